package main

import (
	"context"
	"fmt"
	"time"
)

// packBytes is what there is an entry of the cache for.
const packBytes = 128 << 20

// saves is putting a closure into a cache that has nothing, and then what is new.
func (b *bench) saves(ctx context.Context) error {
	var first, next, tars, slow, before series
	var size, tarSize, bytes, nextBytes, nextRead, slowBytes, beforeSize int64
	var entries, most int
	var c *closure
	sides := []func(int) error{func(int) error {
		of, s, env, err := b.beginSave(ctx)
		if err != nil {
			return err
		}
		defer s.close()
		c = of
		m, n, err := b.save(ctx, s, env, c.all)
		if err != nil {
			return err
		}
		first, size = append(first, m), n
		if bytes, err = s.stored(); err != nil {
			return err
		}
		s.carried.Store(0)
		entries = len(s.Entries())
		most = 1 + int((size+packBytes-1)/packBytes)
		if m, _, err = b.save(ctx, s, env, c.rebuilt); err != nil {
			return err
		}
		next = append(next, m)
		nextBytes, err = s.stored()
		nextBytes -= bytes
		nextRead = s.carried.Load() - nextBytes
		return err
	}, func(int) error {
		_, s, env, err := b.beginSave(ctx)
		if err != nil {
			return err
		}
		defer s.close()
		s.rate.Store(slowLine)
		m, _, err := b.save(ctx, s, env, c.all)
		slow, slowBytes = append(slow, m), s.carried.Load()
		return err
	}, func(int) error {
		_, s, env, err := b.beginSave(ctx)
		if err != nil {
			return err
		}
		defer s.close()
		m, n, err := b.tar(ctx, env)
		tars, tarSize = append(tars, m), n
		return err
	}}
	if b.before != nil {
		sides = append(sides, func(int) error {
			_, s, env, err := b.beginSave(ctx)
			if err != nil {
				return err
			}
			defer s.close()
			m, n, err := b.before.save(ctx, s, env, c.all)
			before, beforeSize = append(before, m), n
			return err
		})
	}
	if err := inTurn(rounds, sides...); err != nil {
		return err
	}
	add := func(work, against, value, goal string, met bool) {
		b.rows = append(b.rows, row{Work: fmt.Sprintf("%s of %s", work, megabytes(c.bytes)), Against: against, Value: value, Goal: goal, Met: met})
	}
	value, times := faster(first.took(), tars.took())
	more := 100 * (float64(size)/float64(tarSize) - 1)
	add("first save, unthrottled,", "tar | zstd -3 -T0 of all of /nix, to a file",
		fmt.Sprintf("%s; %s against %s, %+.1f %%", value, megabytes(size), megabytes(tarSize), more), "≥ 1×, size within 10 %", times >= 1 && more <= 10)
	add("first save, unthrottled,", "the processors' time / their number", first.middle().limit(), "–", true)
	value, times = faster(next.took(), first.took())
	add("save after paths of 1 % of the bytes were rebuilt,", "the first save",
		fmt.Sprintf("%.3f of %s uploaded, %s read; %s", float64(nextBytes)/1e6, megabytes(bytes), megabytes(nextRead), value), "≤ 0.1 MB, ≥ 10×", nextBytes <= 100_000 && times >= 10)
	least := time.Duration(float64(slowBytes) / slowLine * float64(time.Second))
	part := median(slow.took()).Seconds() / least.Seconds()
	add("first save, at 50 MB/s,", "the time the bytes need at that rate", fmt.Sprintf("%s against %s, %.2f×", seconds(median(slow.took())), seconds(least), part),
		"≤ 1.12×", part <= 1.12)
	if b.before != nil {
		value, _ = faster(first.took(), before.took())
		part = float64(size) / float64(beforeSize)
		add("first save, unthrottled,", "the first format, which has paths whole", fmt.Sprintf("%s; %s against %s, %.2f×", value, megabytes(size), megabytes(beforeSize), part),
			"≤ 0.98× of the bytes", part <= 0.98)
	}
	add("entries created by the first save", "–", fmt.Sprint(entries), fmt.Sprintf("≤ %d, 1 + one per 128 MiB", most), entries <= most)
	return nil
}
