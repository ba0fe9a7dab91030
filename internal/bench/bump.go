package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A bump is a new version of everything: all hashes change, and some files.
type bump struct {
	name   string
	edited uint64 // percent of the files
	builds bool   // ELF files have other build ids
	most   int64  // bytes to upload, the goal
	after  *bump  // or nil
}

var bumps = []bump{
	{name: "1 % of the files edited", edited: 1, most: 4_000_000},
	{name: "1 % of the files edited, and all build ids of programs", edited: 1, builds: true, most: 20_000_000},
	{name: "10 % of the files edited", edited: 10, most: 30_000_000},
}

// edit returns what the last bump that has edited a file has put into it.
func (by *bump) edit(source string) []byte {
	for ; by != nil; by = by.after {
		if hashOf(source, "edited", by.name)%100 < by.edited {
			return []byte("edited by " + by.name)
		}
	}
	return nil
}

// A body is the content of a file: its source, but for references, and what a bump has changed.
type body struct {
	source io.ReaderAt
	size   int64
	over   []overlay // in ascending order
	insert []byte    // in the middle
}

// An overlay is bytes in place of those of the source.
type overlay struct {
	at   int64
	text string
}

func hashOf(all ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, all...)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], h.Sum64()*0x9e3779b97f4a7c15)
	return binary.BigEndian.Uint64(b[:])
}

// content is what a file of a path has. One file of six refers to store paths, as a real closure does.
func (p *storePath) content(f *file, source io.ReaderAt, head []byte) *body {
	b := &body{source: source, size: f.size}
	all := append(slices.Clone(p.refs), p)
	if h := hashOf(f.source, "refers"); h%6 == 0 && f.size > 200 {
		at := int64(0)
		for n := range h / 7 % 5 {
			ref := all[hashOf(f.source, n)%uint64(len(all))].path + "/bin"
			at += int64(hashOf(f.source, n, "at") % uint64(f.size)) //nolint:gosec // below a size
			if at+int64(len(ref)) > f.size {
				break
			}
			b.over = append(b.over, overlay{at, ref})
			at += int64(len(ref))
		}
	}
	b.insert = p.bump.edit(f.source)
	if p.bump != nil && p.bump.builds && bytes.HasPrefix(head, []byte("\x7fELF")) && f.size > 1<<10 && len(b.over) == 0 {
		b.over = append(b.over, overlay{600, fmt.Sprintf("%020d", hashOf(p.path, f.source))})
	}
	return b
}

func (b *body) length() int64 { return b.size + int64(len(b.insert)) }

func (b *body) writeTo(w io.Writer) error {
	var at int64
	middle := b.size / 2
	upTo := func(end int64) error {
		if len(b.insert) > 0 && at <= middle && middle < end {
			if _, err := io.Copy(w, io.NewSectionReader(b.source, at, middle-at)); err != nil {
				return err
			}
			if _, err := w.Write(b.insert); err != nil {
				return err
			}
			at, b.insert = middle, nil
		}
		_, err := io.Copy(w, io.NewSectionReader(b.source, at, end-at))
		at = end
		return err
	}
	for _, o := range b.over {
		if err := upTo(o.at); err != nil {
			return err
		}
		if _, err := io.WriteString(w, o.text); err != nil {
			return err
		}
		if at += int64(len(o.text)); len(b.insert) > 0 && at > middle {
			middle = at
		}
	}
	if err := upTo(b.size); err != nil {
		return err
	}
	_, err := w.Write(b.insert)
	return err
}

// bumpAll returns new versions of paths.
func bumpAll(paths []*storePath, by *bump) []*storePath {
	news := map[*storePath]*storePath{}
	var all []*storePath
	for _, p := range paths {
		q := &storePath{files: p.files, bytes: p.bytes, bump: by}
		for _, ref := range p.refs {
			if ref == p {
				q.refs = append(q.refs, q)
			} else {
				q.refs = append(q.refs, news[ref])
			}
		}
		news[p] = q
		q.name(p.base, by.name)
		all = append(all, q)
	}
	return all
}

// withStore makes a store of the paths, the last of which needs all others, for as long as use takes.
func (b *bench) withStore(ctx context.Context, paths []*storePath, use func(of *closure, env []string) error) (err error) {
	of := &closure{store: "bumped", all: paths[len(paths)-1].path}
	defer func() {
		b.leaveStore()
		err = errors.Join(err, os.RemoveAll(filepath.Join(b.dir, of.store)))
	}()
	if err := b.makeStore(ctx, of, paths); err != nil {
		return err
	}
	env, err := b.fresh()
	if err := errors.Join(err, b.useStore(of.store), b.resolve()); err != nil {
		return err
	}
	return use(of, append(env, of.conf))
}

// bumped measures what saves upload after a new version of everything.
func (b *bench) bumped(ctx context.Context) error {
	c, err := b.newClosure(ctx)
	if err != nil {
		return err
	}
	for i := range bumps {
		err := b.withStore(ctx, slices.Concat(c.paths, bumpAll(c.paths, &bumps[i])), func(of *closure, env []string) error {
			return b.saveBump(ctx, c, of, &bumps[i], env)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// saveBump saves the first version, and then the next.
func (b *bench) saveBump(ctx context.Context, old, young *closure, by *bump, env []string) error {
	s, err := b.serve(ctx, "service")
	if err != nil {
		return err
	}
	defer s.close()
	first, _, err := b.save(ctx, s, env, old.all)
	if err != nil {
		return err
	}
	firstBytes, err := s.stored()
	if err != nil {
		return err
	}
	next, _, err := b.save(ctx, s, env, young.all)
	if err != nil {
		return err
	}
	bytes, err := s.stored()
	if err != nil {
		return err
	}
	bytes -= firstBytes
	value, times := faster(series{next}.took(), series{first}.took())
	work := fmt.Sprintf("save of %s, all hashes new and %s", megabytes(old.bytes), by.name)
	b.rows = append(b.rows, row{
		Work: work + ": bytes", Against: "first save", Value: fmt.Sprintf("%s of %s", megabytes(bytes), megabytes(firstBytes)),
		Goal: "≤ " + megabytes(by.most), Met: bytes <= by.most,
	}, row{Work: work + ": time", Against: "first save", Value: value, Goal: "≥ 4×", Met: times >= 4})
	return nil
}

// tenBumps measures a restore from the packs of eleven saves.
func (b *bench) tenBumps(ctx context.Context) error {
	c, many, env, err := b.beginSave(ctx)
	if err != nil {
		return err
	}
	defer many.close()
	one, err := b.serve(ctx, "service-one")
	if err != nil {
		return err
	}
	defer one.close()
	if _, _, err := b.save(ctx, many, env, c.all); err != nil {
		return err
	}
	const last = 10
	var newest *closure
	var by *bump
	for n := range turns(last) {
		by = &bump{name: fmt.Sprint("bump ", n+1), edited: 1, after: by}
		err := b.withStore(ctx, bumpAll(c.paths, by), func(of *closure, env []string) error {
			newest = of
			_, _, err := b.save(ctx, many, env, of.all)
			if n == last-1 && err == nil {
				_, _, err = b.save(ctx, one, env, of.all)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	r, alone := &restorer{bench: b, closure: newest, service: many}, &restorer{bench: b, closure: newest, service: one}
	after, once := r.ours(ctx, directEngine, newest.all), alone.ours(ctx, directEngine, newest.all)
	if err := inTurn(rounds, r.into(ctx, after), alone.into(ctx, once)); err != nil {
		return err
	}
	share := median(after.took()).Seconds() / median(once.took()).Seconds()
	r.add("after ten bumps with 1 % of the files edited each, unthrottled, direct engine", "a restore after one save",
		fmt.Sprintf("%s against %s, %.2f×; %s against %s; peak memory %s", seconds(median(after.took())), seconds(median(once.took())), share,
			megabytes(after.bytes), megabytes(once.bytes), mebibytes(after.peak())), "≤ 1.3×", share <= 1.3)
	return nil
}

// stored returns the bytes of all entries.
func (s *service) stored() (bytes int64, err error) {
	err = filepath.WalkDir(filepath.Join(s.dir, "blobs"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}
