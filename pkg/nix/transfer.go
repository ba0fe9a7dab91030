package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/valid"
)

// NAR opens the NAR of a path. The caller must close it.
func (n *Nix) NAR(ctx context.Context, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(n.dump(ctx, w, path)) }()
	return &narReader{PipeReader: r, cancel: cancel}, nil
}

// dump writes a NAR. It starts no program where it can, because a program for each of many paths
// takes longer than the rest of a push; but only Nix knows how it names files on macOS.
func (n *Nix) dump(ctx context.Context, w io.Writer, path string) error {
	if n.Walks() {
		file, err := n.realFile(path)
		if err != nil {
			return err
		}
		return nar.Dump(w, file)
	}
	cmd := n.command(ctx, "nix", args("store", "dump-path").operands(valid.StorePath, path))
	cmd.Stdout = w
	cmd.Stderr = io.Discard
	return n.run(cmd)
}

// Walks reports whether [Nix.Walk] can read paths: not those of another machine, nor those of macOS,
// because only Nix knows how it names files there.
func (n *Nix) Walks() bool { return runtime.GOOS != "darwin" && n.remote == "" }

// Walk passes the nodes of a valid path to a visitor, without a copy of its contents. It does not check
// them: the visitor compares them with the hash. If the path can't be read, the error is a *PathError.
func (n *Nix) Walk(ctx context.Context, path string, to nar.Visitor) error {
	file, err := n.realFile(path)
	if err != nil {
		return fmt.Errorf("cannot read a store path: %w", err)
	}
	visitor := &visitor{Visitor: to, ctx: ctx}
	if err := nar.Walk(file, visitor); err != nil && visitor.err == nil {
		return &PathError{path, err}
	}
	return visitor.err
}

// A visitor remembers its error, and ends with its context.
type visitor struct {
	nar.Visitor
	ctx context.Context
	err error
}

func (v *visitor) Node(n nar.Node) error {
	if v.err = context.Cause(v.ctx); v.err == nil {
		v.err = v.Visitor.Node(n)
	}
	return v.err
}

func (v *visitor) Room(most int64) (p []byte, err error) {
	p, v.err = v.Visitor.Room(most)
	return p, v.err
}

func (v *visitor) Filled(n int) error {
	v.err = v.Visitor.Filled(n)
	return v.err
}

type narReader struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close also stops the writer.
func (r *narReader) Close() error {
	r.cancel()
	return r.PipeReader.Close()
}

// Export writes the export stream of valid paths, references before their referrers. It does
// not check the contents: the reader compares them with the hash. If a path can't be read, the
// error is a *PathError.
func (n *Nix) Export(ctx context.Context, dst io.Writer, infos []PathInfo) error {
	if !n.Walks() {
		return n.export(ctx, dst, infos)
	}
	for _, info := range infos {
		if err := info.check(); err != nil {
			return fmt.Errorf("cannot export store paths: %w", err)
		}
		err := nar.WriteRecord(dst, info.Path, info.References, info.Deriver, func(w io.Writer) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			to := &lastError{w: w}
			if err := nar.Dump(to, filepath.Join(n.realDir(), filepath.Base(info.Path))); err != nil && to.err == nil {
				return &PathError{info.Path, err}
			}
			return to.err
		})
		if err != nil {
			return fmt.Errorf("cannot export store paths: %w", err)
		}
	}
	return nar.WriteEnd(dst)
}

// lastError is a writer that remembers its last error.
type lastError struct {
	w   io.Writer
	err error
}

func (l *lastError) Write(p []byte) (n int, err error) {
	n, l.err = l.w.Write(p)
	return n, l.err
}

// export is Export with nix-store, because only Nix knows how it names files on macOS.
func (n *Nix) export(ctx context.Context, dst io.Writer, infos []PathInfo) error {
	for _, piece := range chunks(PathsOf(infos)) {
		out := &openEnd{w: dst}
		cmd := n.command(ctx, "nix-store", args("--export").operands(valid.StorePath, piece...))
		cmd.Stdout = out
		if err := n.run(cmd); err != nil {
			var failed *Error
			if errors.As(err, &failed) {
				if named := Named(failed.Message); len(named) > 0 && slices.Contains(piece, named[0]) {
					err = &PathError{named[0], err}
				}
			}
			return fmt.Errorf("cannot export store paths: %w", err)
		}
		if out.end != [8]byte{} || out.have != len(out.end) {
			return fmt.Errorf("cannot export store paths: the stream of nix-store --export is incomplete")
		}
	}
	return nar.WriteEnd(dst)
}

// Import adds the paths of an export stream. It checks neither signatures nor references. Nix
// has one NAR at a time in memory.
func (n *Nix) Import(ctx context.Context, src io.Reader) error {
	cmd := n.command(ctx, "nix-store", args("--import"))
	cmd.Stdin, cmd.Stdout = src, io.Discard
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("cannot import store paths: %w", err)
	}
	return nil
}

// ImportPipe starts [Nix.Import] and returns the pipe from which it reads. The pipe holds some megabytes, so
// that both sides work at the same time, and Close waits until they are read. end waits for the program after the
// pipe was closed; when the program has ended before, Write or Close fails. The caller must close the pipe and call end.
func (n *Nix) ImportPipe(ctx context.Context) (to io.WriteCloser, end func() error, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot import store paths: %w", err)
	}
	widen(w)
	ended := make(chan error, 1)
	go func() {
		err := n.Import(ctx, r) // the program reads from the file itself
		_ = r.Close()
		ended <- err
	}()
	return writeBehind(w), func() error { return <-ended }, nil
}

// openEnd writes all but the last eight bytes, so that streams can be joined.
type openEnd struct {
	w    io.Writer
	end  [8]byte
	have int
}

func (o *openEnd) Write(p []byte) (int, error) {
	all := append(o.end[:o.have:o.have], p...)
	keep := min(len(all), len(o.end))
	if _, err := o.w.Write(all[:len(all)-keep]); err != nil {
		return 0, err
	}
	o.have = copy(o.end[:], all[len(all)-keep:])
	return len(p), nil
}

// Copy sends the closures of the paths to another store, and returns the traffic, whose size is
// known only for binary caches. With DRV!* among the paths, the other store also records the
// derivation of these outputs. env has further variables, NAME=VALUE, which may be secrets.
func (n *Nix) Copy(ctx context.Context, destination string, paths []string, env ...string) (Traffic, error) {
	if err := valid.Address(destination); err != nil {
		return Traffic{}, fmt.Errorf("cannot copy: %w", err)
	}
	log := &copyLog{sizes: map[string]int64{}, rest: tail{limit: 16 << 10}}
	installables := make([]string, len(paths))
	for i, path := range paths {
		installables[i] = n.installable(path)
	}
	for _, piece := range chunks(installables) {
		with := args().settings(asked...).add("copy", "--verbose", "--to").checked(valid.Address, destination)
		if strings.HasPrefix(destination, "ssh") {
			with.add("--substitute-on-destination") // spares us an upload
		}
		cmd := n.commandWithCredentials(ctx, "nix", with.operands(copied, piece...))
		cmd.Env = append(cmd.Env, env...)
		cmd.WaitDelay = copyGrace
		cmd.Stderr = log // not to n.log, because it may quote the address
		err := cmd.Run()
		if err = failure(cmd, err, log.rest.String()+string(log.partly)); err != nil {
			maps.DeleteFunc(log.sizes, func(_ string, size int64) bool { return size == 0 }) // it may not have arrived
			name, _, _ := strings.Cut(Redact(destination), "?")
			return log.traffic(), fmt.Errorf("cannot copy to %s: %w", name, redactErr(err, destination))
		}
	}
	return log.traffic(), nil
}

// A copyLog reads the stderr of nix copy: the paths that it sends and, for a binary cache, when
// one has been compressed and has arrived.
type copyLog struct {
	sizes  map[string]int64 // bytes of NARs by path, 0 if not known
	partly []byte           // a line that has not ended yet
	rest   tail             // the other lines, the last of which can be an error
}

var copyPattern = lazyregexp.New(`^copying path '([^']+)' (?:to '|from '.*' to '|\((\d+) bytes, )`)

func (l *copyLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		l.partly = append(l.partly, line...)
		if !ended && len(l.partly) < l.rest.limit {
			break
		}
		if m := copyPattern().FindSubmatch(l.partly); m != nil {
			size, _ := strconv.ParseInt(string(m[2]), 10, 64) // 0 if not known
			l.sizes[string(m[1])] = max(size, l.sizes[string(m[1])])
		} else if !bytes.HasSuffix(l.partly, []byte("...")) { // such lines report progress
			_, _ = l.rest.Write(append(l.partly, '\n'))
		}
		l.partly, rest = l.partly[:0], after
	}
	return len(p), nil
}

func (l *copyLog) traffic() Traffic {
	var t Traffic
	for _, size := range l.sizes {
		t.Add(Traffic{1, size})
	}
	return t
}

// CopyDerivations sends the closures of derivations to another store. Even a store that does
// not trust us accepts them, because they have content addresses.
func (n *Nix) CopyDerivations(ctx context.Context, destination string, drvs []string) error {
	if err := valid.Address(destination); err != nil {
		return fmt.Errorf("cannot copy derivations: %w", err)
	}
	for _, piece := range chunks(drvs) {
		cmd := n.commandWithCredentials(ctx, "nix", args("copy", "--derivation", "--to").checked(valid.Address, destination).operands(valid.StorePath, piece...))
		cmd.Stderr = io.Discard
		if err := n.run(cmd); err != nil {
			return fmt.Errorf("cannot copy derivations to %s: %w", Redact(destination), redactErr(err, destination))
		}
	}
	return nil
}
