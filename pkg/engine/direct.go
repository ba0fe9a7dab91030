package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/pkg/nix"
)

// Direct returns the engine that unpacks paths itself, in any order and on all
// processors, and has Nix register them at the end. It needs Linux and a local store
// that this user may write to; else the error says what is missing.
//
// Paths are unpacked in a temporary directory in the store, which is removed at the end.
// The directory of a killed process is removed by the next restore or by Nix's garbage
// collector. Paths with a content address can't be registered that way: Nix adds them, at
// once if their references are valid, else after these.
func Direct(ctx context.Context, n *nix.Nix) (Engine, error) {
	engine, err := direct(ctx, n)
	if err != nil {
		return Engine{}, fmt.Errorf("cannot use the direct engine: %w", err)
	}
	return engine, nil
}

func direct(ctx context.Context, n *nix.Nix) (Engine, error) {
	if runtime.GOOS != "linux" {
		return Engine{}, errors.New("it supports only Linux")
	}
	local, dir, err := n.Local()
	if err != nil {
		return Engine{}, err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil && !errors.Is(err, unix.ENOENT) {
		return Engine{}, fmt.Errorf("cannot write to %s: %w", dir, err)
	}
	// This creates a store that does not exist yet, and fails if this user may not change
	// its database.
	if err := local.LoadDB(ctx, nil); err != nil {
		return Engine{}, err
	}
	return Engine{
		Name:     "direct",
		Parallel: unpackers(),
		Begin: func(ctx context.Context, infos []nix.PathInfo) (Sink, error) {
			return beginDirect(ctx, local, dir, infos)
		},
	}, nil
}

// unpackers returns how many paths are unpacked at a time, or fewer with several goroutines
// each: one more than there are processors, because one may wait for its bytes.
func unpackers() int {
	const most = 16
	return min(runtime.GOMAXPROCS(0)+1, most)
}

// A directSink is the [Sink] of the direct engine.
type directSink struct {
	nix   *nix.Nix
	store *os.File // the directory of the store
	temp  *tempDir // in it

	unpacker nar.Unpacker

	roots    *nix.Daemon    // has the temporary roots
	addRoots errgroup.Group // adds them

	conns chan *nix.Daemon // idle, for paths that Nix adds

	mu    sync.Mutex
	valid map[string]bool // valid paths that others may refer to
}

func beginDirect(ctx context.Context, n *nix.Nix, dir string, infos []nix.PathInfo) (_ Sink, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot restore into %s: %w", dir, err)
		}
	}()
	given := make(map[string]bool, len(infos))
	var paths, outside []string
	for _, info := range infos {
		if err := checkInfo(&info); err != nil {
			return nil, err
		}
		given[info.Path] = true
		paths = append(paths, info.Path)
	}
	for _, info := range infos {
		for _, reference := range info.References {
			if !given[reference] {
				given[reference] = true
				outside = append(outside, reference)
			}
		}
	}

	s := &directSink{nix: n, unpacker: nar.Unpacker{Parallel: unpackers()}, conns: make(chan *nix.Daemon, len(infos))}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.roots, err = n.Connect(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	if s.store, err = os.Open(dir); err != nil { //nolint:gosec // root serves a user who may run anything as root
		return nil, err
	}
	if s.temp, err = makeTempDir(s.store, s.roots); err != nil {
		return nil, err
	}
	if s.valid, err = s.roots.Valid(outside...); err != nil {
		return nil, err
	}
	s.addRoots.Go(func() error { return s.roots.AddTempRoots(append(paths, outside...)...) })
	return s, nil
}

var hexHash = lazyregexp.New(`^[0-9a-f]{64}$`)

// checkInfo refuses values that would break the lines from which Nix registers paths.
func checkInfo(info *nix.PathInfo) error {
	for _, path := range append([]string{info.Path}, info.References...) {
		if !storepath.Valid(path) {
			return fmt.Errorf("%q is not a store path", path)
		}
	}
	if info.Deriver != "" && !storepath.Valid(info.Deriver) {
		return fmt.Errorf("the deriver %q of %s is not a store path", info.Deriver, info.Path)
	}
	if !hexHash().MatchString(info.NarHash) || info.NarSize < 0 {
		return fmt.Errorf("invalid NAR size %d or hash %q of %s", info.NarSize, info.NarHash, info.Path)
	}
	return nil
}

// Add unpacks a path, or has Nix add it.
func (s *directSink) Add(ctx context.Context, info nix.PathInfo, r io.Reader) error {
	r = &stoppable{ctx, r}
	if info.CA != "" && s.ready(&info) {
		return s.addByNix(ctx, info, r)
	}
	return s.unpacker.Unpack(r, info.NarSize, s.temp.fd, filepath.Base(info.Path))
}

// ready reports whether all references of the path are valid.
func (s *directSink) ready(info *nix.PathInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(info.References, func(reference string) bool {
		return reference != info.Path && !s.valid[reference]
	})
}

func (s *directSink) addByNix(ctx context.Context, info nix.PathInfo, r io.Reader) error {
	var d *nix.Daemon
	select {
	case d = <-s.conns:
	default:
		var err error
		if d, err = s.nix.Connect(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	stop := d.StopWith(ctx) // Nix may wait for a lock
	err := d.AddMultiple([]nix.PathInfo{info}, func(nix.PathInfo) (io.Reader, error) { return r, nil })
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = d.Close()
		s.discard(ctx, info)
		return err
	}
	s.conns <- d
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid[info.Path] = true
	return nil
}

// discard removes the files that Nix leaves of a path that it could not add.
func (s *directSink) discard(ctx context.Context, info nix.PathInfo) {
	if locks, err := lockPaths(ctx, s.store, []string{info.Path}); err == nil {
		s.retract(ctx, []nix.PathInfo{info})
		locks.release()
	}
}

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}

// Finish moves the paths to their places and registers them.
func (s *directSink) Finish(ctx context.Context, infos []nix.PathInfo) error {
	if err := s.addRoots.Wait(); err != nil {
		return err
	}
	for i, stage := range s.stages(infos) {
		if i%2 == 1 {
			for _, info := range stage {
				if err := s.addUnpacked(ctx, info); err != nil {
					return err
				}
			}
			continue
		}
		for batch := range slices.Chunk(stage, mostLocks()) {
			if err := s.register(ctx, batch); err != nil {
				return err
			}
		}
	}
	return nil
}

// stages sorts the unpacked paths: we register those of even stages, Nix adds those of odd
// ones. The references of a path are before it in its stage, or in an earlier one.
func (s *directSink) stages(infos []nix.PathInfo) [][]nix.PathInfo {
	var stages [][]nix.PathInfo
	of := make(map[string]int, len(infos))
	for _, info := range infos {
		if s.valid[info.Path] {
			continue
		}
		stage, kind := 0, 0
		if info.CA != "" {
			kind = 1
		}
		for _, reference := range info.References {
			stage = max(stage, of[reference])
		}
		stage += (stage + kind) % 2
		of[info.Path] = stage
		for len(stages) <= stage {
			stages = append(stages, nil)
		}
		stages[stage] = append(stages[stage], info)
	}
	return stages
}

// addUnpacked has Nix add a path that was unpacked because its references were not valid yet.
func (s *directSink) addUnpacked(ctx context.Context, info nix.PathInfo) error {
	r, w := io.Pipe()
	defer r.Close()
	var g errgroup.Group
	g.Go(func() error {
		return w.CloseWithError(nar.Dump(w, filepath.Join(s.temp.path(), filepath.Base(info.Path))))
	})
	err := s.addByNix(ctx, info, &stoppable{ctx, r})
	_ = r.Close() // so that the dump ends if it was not read to its end
	_ = g.Wait()
	return err
}

// register makes unpacked paths valid whose references are valid or among them. Paths that
// have become valid meanwhile stay as they are.
func (s *directSink) register(ctx context.Context, infos []nix.PathInfo) error {
	paths := nix.PathsOf(infos)
	locks, err := lockPaths(ctx, s.store, paths)
	if err != nil {
		return err
	}
	defer locks.release()
	valid, err := s.roots.Valid(paths...)
	if err != nil {
		return err
	}
	infos = slices.DeleteFunc(slices.Clone(infos), func(info nix.PathInfo) bool { return valid[info.Path] })
	err = s.move(infos)
	if err == nil {
		err = s.nix.LoadDB(ctx, infos)
	}
	if err != nil {
		s.retract(ctx, infos)
		return err
	}
	return s.roots.AddSignatures(infos)
}

// move moves unpacked paths to their places. It removes files that are there, because another
// process did not finish them.
func (s *directSink) move(infos []nix.PathInfo) error {
	to := int(s.store.Fd())
	for _, info := range infos {
		name := filepath.Base(info.Path)
		if err := nar.Remove(to, name); err != nil {
			return err
		}
		err := unix.Renameat(s.temp.fd, name, to, name)
		if errors.Is(err, unix.EACCES) {
			// Only root may move a read-only directory.
			const mode = 0o555
			if err = unix.Fchmodat(s.temp.fd, name, mode|0o200, 0); err == nil {
				err = errors.Join(unix.Renameat(s.temp.fd, name, to, name), unix.Fchmodat(to, name, mode, 0))
			}
		}
		if err != nil {
			return &os.LinkError{Op: "rename", Old: filepath.Join(s.temp.name, name), New: info.Path, Err: err}
		}
	}
	return nil
}

// retract removes paths that were moved and could not be registered. If Nix can't be asked,
// they stay: they may be valid, and if not, the next process that makes them replaces them.
func (s *directSink) retract(ctx context.Context, infos []nix.PathInfo) {
	paths := nix.PathsOf(infos)
	valid, err := s.nix.Valid(context.WithoutCancel(ctx), paths...)
	if err != nil {
		return
	}
	for _, path := range paths {
		if !valid[path] {
			_ = nar.Remove(int(s.store.Fd()), filepath.Base(path))
		}
	}
}

// Close removes the paths that were not made valid.
func (s *directSink) Close() error {
	var err error
	if s.temp != nil {
		err = s.temp.remove()
	}
	_ = s.addRoots.Wait() // Finish returned its error
	close(s.conns)
	for d := range s.conns {
		_ = d.Close() // its operations are done
	}
	if s.roots != nil {
		_ = s.roots.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot remove the temporary directory: %w", err)
	}
	return nil
}
