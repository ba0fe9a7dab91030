package main

import (
	"context"
	"fmt"
	"time"
)

// Rates of a line, in bytes a second.
const (
	slowLine  = 50_000_000
	quickLine = 85_000_000
)

const (
	protocolEngine = "protocol"
	importEngine   = "import"
	directEngine   = "direct"
	restoreMemory  = 288 << 20 // bytes
)

// restores is bringing a closure into an empty store, as fast as the line, the
// processors and others allow.
func (b *bench) restores(ctx context.Context) error {
	c, s, env, err := b.beginSave(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if _, err := b.official(ctx, s, env, "save"); err != nil {
		return err
	}
	if _, _, err := b.save(ctx, s, env, c.all); err != nil {
		return err
	}
	if err := b.offer(ctx, s, env, c.all); err != nil {
		return err
	}
	r := &restorer{bench: b, closure: c, service: s}
	first, err := b.firstFormat(ctx, c, env)
	if err != nil {
		return err
	}
	if first != nil {
		defer first.close()
		r.first = &restorer{bench: b.before, closure: c, service: first}
	}
	for _, measure := range []func(context.Context) error{r.slow, r.quick, r.free} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// A restorer has a service with all that is restored, by us and others.
type restorer struct {
	*bench
	closure *closure
	service *service
	first   *restorer // of the first format, or nil
}

// limitTo limits the lines to a rate.
func (r *restorer) limitTo(rate int64) {
	r.service.rate.Store(rate)
	if r.first != nil {
		r.first.service.rate.Store(rate)
	}
}

// inTurn fetches in turn, and all of the closure in the first format too.
func (r *restorer) inTurn(ctx context.Context, work, engine string, ours *fetch, others ...*fetch) error {
	sides := []func(int) error{r.into(ctx, ours)}
	for _, other := range others {
		sides = append(sides, r.into(ctx, other))
	}
	if r.first == nil {
		return inTurn(rounds, sides...)
	}
	first := r.first.ours(ctx, engine, r.closure.all)
	if err := inTurn(rounds, append(sides, r.first.into(ctx, first))...); err != nil {
		return err
	}
	share := median(ours.took()).Seconds() / median(first.took()).Seconds()
	r.add(work, "the first format", fmt.Sprintf("%s against %s, %.2f×, peak memory %s against %s", seconds(median(ours.took())), seconds(median(first.took())),
		share, mebibytes(ours.peak()), mebibytes(first.peak())), "≤ 1.05×, ≤ "+mebibytes(restoreMemory), share <= 1.05 && ours.peak() <= restoreMemory)
	return nil
}

// A fetch is one way to fill an empty store, and what it took.
type fetch struct {
	series
	bytes int64 // that went through the line, the last time
	run   func(env []string) (*metered, error)
}

// into fetches something. What came is looked at the first time.
func (r *restorer) into(ctx context.Context, f *fetch) func(int) error {
	return func(i int) error {
		env, err := r.fresh()
		if err != nil {
			return err
		}
		r.service.carried.Store(0)
		m, err := f.run(append(env, r.closure.conf))
		if err != nil {
			return err
		}
		f.series, f.bytes = append(f.series, m), r.service.carried.Load()
		if i == 0 {
			_, err = r.run(ctx, r.dir, env, "nix-store", "--verify", "--check-contents")
		}
		return err
	}
}

func (r *restorer) ours(ctx context.Context, engine, path string) *fetch {
	return &fetch{run: func(env []string) (*metered, error) { return r.restore(ctx, r.service, env, engine, path) }}
}

func (r *restorer) official(ctx context.Context) *fetch {
	return &fetch{run: func(env []string) (*metered, error) { return r.bench.official(ctx, r.service, env, "restore") }}
}

func (r *restorer) add(work, against, value, goal string, met bool) {
	r.rows = append(r.rows, row{Work: fmt.Sprintf("restore of %s, %s", megabytes(r.closure.bytes), work), Against: against, Value: value, Goal: goal, Met: met})
}

func (r *restorer) limit(work string, ours *fetch) {
	r.add(work, "the processors' time / their number", ours.middle().limit(), "–", true)
}

func (r *restorer) slow(ctx context.Context) error {
	r.limitTo(slowLine)
	const work = "at 50 MB/s, protocol engine"
	ours := r.ours(ctx, protocolEngine, r.closure.all)
	if err := r.inTurn(ctx, work, protocolEngine, ours); err != nil {
		return err
	}
	took := median(ours.took())
	least := time.Duration(float64(ours.bytes) / slowLine * float64(time.Second))
	share := took.Seconds() / least.Seconds()
	r.add(work, "the time the bytes need at that rate", fmt.Sprintf("%s against %s, %.2f×", seconds(took), seconds(least), share), "≤ 1.15×", share <= 1.15)
	r.limit(work, ours)
	return nil
}

func (r *restorer) quick(ctx context.Context) error {
	r.limitTo(quickLine)
	const work = "at 85 MB/s, protocol engine"
	ours, part, theirs := r.ours(ctx, protocolEngine, r.closure.all), r.ours(ctx, protocolEngine, r.closure.tenth), r.official(ctx)
	if err := r.inTurn(ctx, work, protocolEngine, ours, theirs, part); err != nil {
		return err
	}
	value, times := faster(ours.took(), theirs.took())
	r.add(work, "@actions/cache, all of /nix", value, "≥ 1.2×", times >= 1.2)
	r.limit(work, ours)
	bytes := 100 * float64(part.bytes) / float64(ours.bytes)
	all, took := median(ours.took()), median(part.took())
	time := 100 * took.Seconds() / all.Seconds()
	r.add("a path that needs a tenth of it, at 85 MB/s, protocol engine", "restoring all",
		fmt.Sprintf("%s of %s, %.1f %%; %s of %s, %.1f %%", megabytes(part.bytes), megabytes(ours.bytes), bytes, seconds(took), seconds(all), time),
		"≤ 15 % of the bytes, ≤ 20 % of the time", bytes <= 15 && time <= 20)
	if r.first == nil {
		return nil
	}
	first := r.first.ours(ctx, protocolEngine, r.closure.tenth)
	if err := r.first.into(ctx, first)(0); err != nil {
		return err
	}
	share := float64(part.bytes) / float64(first.bytes)
	r.add("a path that needs a tenth of it: bytes", "the first format", fmt.Sprintf("%s against %s, %.2f×", megabytes(part.bytes), megabytes(first.bytes), share),
		"≤ 1.2×", share <= 1.2)
	return nil
}

func (r *restorer) free(ctx context.Context) error {
	r.limitTo(0)
	const work = "unthrottled, direct engine"
	ours, theirs, stock := r.ours(ctx, directEngine, r.closure.all), r.official(ctx), r.ours(ctx, importEngine, r.closure.all)
	imports := &fetch{run: func(env []string) (*metered, error) { return r.nixImport(ctx, r.service, env) }}
	copies := &fetch{run: func(env []string) (*metered, error) { return r.nixCopy(ctx, r.service, env, r.closure.all) }}
	if err := r.inTurn(ctx, work, directEngine, ours, imports, stock, theirs, copies); err != nil {
		return err
	}
	value, times := faster(ours.took(), imports.took())
	r.add(work, "zstd -dc | nix-store --import", fmt.Sprintf("%s, peak memory %s", value, mebibytes(ours.peak())),
		"≥ 2.5×, ≤ "+mebibytes(restoreMemory), times >= 2.5 && ours.peak() <= restoreMemory)
	share := median(stock.took()).Seconds() / median(imports.took()).Seconds()
	r.add("unthrottled, import engine", "zstd -dc | nix-store --import",
		fmt.Sprintf("%s against %s, %.2f×, peak memory %s", seconds(median(stock.took())), seconds(median(imports.took())), share, mebibytes(stock.peak())),
		"≤ 1.05×", share <= 1.05)
	value, times = faster(ours.took(), theirs.took())
	r.add(work, "@actions/cache, all of /nix", value, "≥ 1.2×", times >= 1.2)
	value, times = faster(ours.took(), copies.took())
	r.add(work, "nix copy --from a binary cache with zstd", value, "≥ 2×", times >= 2)
	r.limit(work, ours)
	return nil
}
