package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/pkg/nix"
)

// Direct is the engine that unpacks paths by itself, in any order and on all
// processors, and has Nix register them in the end. It needs Linux and a local store
// that this user may write to; the error says what of it is missing.
//
// Paths are unpacked in a temporary directory in the store, which is gone in the end;
// the next one who restores, or Nix's garbage collector, removes that of a process
// that was killed. Paths with a content address can't be registered that way: Nix
// itself adds them, at once if it can, else after what they refer to.
func Direct(ctx context.Context, n *nix.Nix) (Engine, error) {
	engine, err := direct(ctx, n)
	if err != nil {
		return Engine{}, fmt.Errorf("the direct engine can't be used: %w", err)
	}
	return engine, nil
}

func direct(ctx context.Context, n *nix.Nix) (Engine, error) {
	if runtime.GOOS != "linux" {
		return Engine{}, errors.New("it knows the file names of Linux alone")
	}
	local, dir, err := n.Local()
	if err != nil {
		return Engine{}, err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil && !errors.Is(err, unix.ENOENT) {
		return Engine{}, fmt.Errorf("write to %s: %w", dir, err)
	}
	// This makes a store that is not there yet, and fails where its database may not be
	// changed.
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

// unpackers is how many paths are unpacked at a time: one may wait for its bytes.
func unpackers() int {
	const most = 16
	return min(runtime.GOMAXPROCS(0)+1, most)
}

// A directSink is the [Sink] of the direct engine.
type directSink struct {
	nix   *nix.Nix
	store *os.File // the directory of the store
	temp  *tempDir // in it

	roots *nix.Daemon    // keeps the garbage collector away
	hold  errgroup.Group // what is done about that

	conns chan *nix.Daemon // idle, for paths that Nix adds

	mu    sync.Mutex
	there map[string]bool // valid paths that others may refer to
}

func beginDirect(ctx context.Context, n *nix.Nix, dir string, infos []nix.PathInfo) (_ Sink, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("begin to restore into %s: %w", dir, err)
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

	s := &directSink{nix: n, conns: make(chan *nix.Daemon, len(infos))}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.roots, err = n.Connect(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	if s.store, err = os.Open(dir); err != nil {
		return nil, err
	}
	if s.temp, err = makeTempDir(s.store, s.roots); err != nil {
		return nil, err
	}
	if s.there, err = s.roots.Valid(outside...); err != nil {
		return nil, err
	}
	s.hold.Go(func() error { return s.roots.AddTempRoots(append(paths, outside...)...) })
	return s, nil
}

var hexHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// checkInfo refuses what would be something else in the form that Nix registers from.
func checkInfo(info *nix.PathInfo) error {
	for _, path := range append([]string{info.Path}, info.References...) {
		if !storepath.Valid(path) {
			return fmt.Errorf("%q is not a store path", path)
		}
	}
	if info.Deriver != "" && !storepath.Valid(info.Deriver) {
		return fmt.Errorf("the deriver %q of %s is not a store path", info.Deriver, info.Path)
	}
	if !hexHash.MatchString(info.NarHash) || info.NarSize < 0 {
		return fmt.Errorf("the NAR of %s has %d bytes and the hash %q", info.Path, info.NarSize, info.NarHash)
	}
	return nil
}

// Add unpacks a path, or has Nix add it.
func (s *directSink) Add(ctx context.Context, info nix.PathInfo, r io.Reader) error {
	r = &stoppable{ctx, r}
	if info.CA != "" && s.ready(&info) {
		return s.addByNix(ctx, info, r)
	}
	return nar.Unpack(r, info.NarSize, s.temp.fd, filepath.Base(info.Path))
}

// ready says whether all that the path refers to is valid.
func (s *directSink) ready(info *nix.PathInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(info.References, func(reference string) bool {
		return reference != info.Path && !s.there[reference]
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
	s.there[info.Path] = true
	return nil
}

// discard removes what Nix leaves of a path that it could not add.
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
	if err := s.hold.Wait(); err != nil {
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

// stages sorts what was unpacked: in the stages with even numbers is what we register,
// in the odd ones what Nix adds. What a path refers to is in its stage, before it, or
// in one before.
func (s *directSink) stages(infos []nix.PathInfo) [][]nix.PathInfo {
	var stages [][]nix.PathInfo
	of := make(map[string]int, len(infos))
	for _, info := range infos {
		if s.there[info.Path] {
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

// addUnpacked has Nix add what was unpacked before it could be added.
func (s *directSink) addUnpacked(ctx context.Context, info nix.PathInfo) error {
	r, w := io.Pipe()
	defer r.Close()
	var g errgroup.Group
	g.Go(func() error {
		return w.CloseWithError(nar.Dump(w, filepath.Join(s.temp.path(), filepath.Base(info.Path))))
	})
	err := s.addByNix(ctx, info, &stoppable{ctx, r})
	_ = r.Close() // so that a dump that nobody reads ends
	_ = g.Wait()
	return err
}

// register makes unpacked paths valid whose references are valid or among them. What
// has become valid meanwhile stays as it is.
func (s *directSink) register(ctx context.Context, infos []nix.PathInfo) error {
	paths := make([]string, len(infos))
	for i, info := range infos {
		paths[i] = info.Path
	}
	locks, err := lockPaths(ctx, s.store, paths)
	if err != nil {
		return err
	}
	defer locks.release()
	valid, err := s.nix.Valid(ctx, paths...)
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

// move moves unpacked paths to their places, and away what lies there, which is what
// somebody did not finish.
func (s *directSink) move(infos []nix.PathInfo) error {
	to := int(s.store.Fd())
	for _, info := range infos {
		name := filepath.Base(info.Path)
		if err := nar.Remove(to, name); err != nil {
			return err
		}
		err := unix.Renameat(s.temp.fd, name, to, name)
		if errors.Is(err, unix.EACCES) {
			// Who is not root may not move a directory that is read-only.
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

// retract removes paths that were moved and could not be registered. One that nobody
// knows about stays where it is: it may be valid, and if it is not, whoever makes it
// replaces it.
func (s *directSink) retract(ctx context.Context, infos []nix.PathInfo) {
	paths := make([]string, len(infos))
	for i, info := range infos {
		paths[i] = info.Path
	}
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

// Close removes what was not made valid.
func (s *directSink) Close() error {
	var err error
	if s.temp != nil {
		err = s.temp.remove()
	}
	_ = s.hold.Wait() // Finish has said what it gave
	close(s.conns)
	for d := range s.conns {
		_ = d.Close() // all that it was asked is done
	}
	if s.roots != nil {
		_ = s.roots.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	if err != nil {
		return fmt.Errorf("remove what was not restored: %w", err)
	}
	return nil
}
