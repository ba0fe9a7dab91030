package engine

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/nix"
)

// Import returns the engine that works with every Nix: `nix-store --import`. It loses
// signatures and content addresses, and has a NAR in memory.
func Import(n *nix.Nix) Engine {
	return Engine{
		Name: "import", Ordered: true, Parallel: 1, Distrusts: n.RefusesUnproven,
		Begin: func(ctx context.Context, _ []nix.PathInfo) (Sink, error) {
			return &importer{nix: n, ctx: ctx}, nil
		},
	}
}

type importer struct {
	nix    *nix.Nix
	ctx    context.Context
	pipe   io.WriteCloser // to the program; nil if none runs
	stream *bufio.Writer
	end    func() error // of the program
}

func (i *importer) start() (err error) {
	if i.pipe, i.end, err = i.nix.ImportPipe(i.ctx); err != nil {
		i.pipe = nil
		return err
	}
	i.stream = bufio.NewWriterSize(i.pipe, 256<<10)
	return nil
}

// stop ends the program's stdin, and returns the program's error, or that of what it did not read.
func (i *importer) stop() error {
	if i.pipe == nil {
		return nil
	}
	unread := i.pipe.Close()
	i.pipe = nil
	return cmp.Or(i.end(), unread)
}

func (i *importer) Add(ctx context.Context, info nix.PathInfo, from io.Reader) error {
	if i.pipe == nil {
		if err := i.start(); err != nil {
			return err
		}
	}
	source := &errRecorder{r: from}
	err := nar.WriteRecord(i.stream, info.Path, info.References, info.Deriver, func(w io.Writer) error {
		_, err := io.Copy(w, source)
		return err
	})
	switch {
	case source.err != nil:
		// Nix imports the paths before it, and nothing of a path without an end.
		_ = i.stream.Flush()
		_ = i.stop()
		return fmt.Errorf("cannot read the NAR of %s: %w", info.Path, source.err)
	case err != nil:
		return i.failed(ctx, err)
	}
	return nil
}

// failed returns why the program stopped reading.
func (i *importer) failed(ctx context.Context, err error) error {
	if programErr := i.stop(); programErr != nil {
		err = programErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (i *importer) Finish(ctx context.Context, _ []nix.PathInfo) error {
	if i.pipe == nil {
		return nil
	}
	err := nar.WriteEnd(i.stream)
	if err == nil {
		err = i.stream.Flush()
	}
	if err != nil {
		return i.failed(ctx, err)
	}
	return i.stop()
}

// Close stops the program, which drops an incomplete path.
func (i *importer) Close() error {
	_ = i.stop()
	return nil
}

// errRecorder remembers the error of a reader.
type errRecorder struct {
	r   io.Reader
	err error
}

func (e *errRecorder) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}
