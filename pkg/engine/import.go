package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/nix"
)

// Import is the engine that every Nix has: `nix-store --import`. It loses signatures and
// content addresses, and holds a NAR in memory.
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
	pipe   *io.PipeWriter // to the program; nil when there is none
	stream *bufio.Writer
	ended  chan error
}

func (i *importer) start() {
	r, w := io.Pipe()
	i.pipe, i.stream, i.ended = w, bufio.NewWriterSize(w, 256<<10), make(chan error, 1)
	go func() {
		err := i.nix.Import(i.ctx, r)
		_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		i.ended <- err
	}()
}

// stop ends the program: with a stream that has an end or, after an error, without one.
func (i *importer) stop(cause error) error {
	if i.pipe == nil {
		return nil
	}
	_ = i.pipe.CloseWithError(cause)
	i.pipe = nil
	return <-i.ended
}

func (i *importer) Add(ctx context.Context, info nix.PathInfo, from io.Reader) error {
	if i.pipe == nil {
		i.start()
	}
	source := &heard{r: from}
	err := nar.WriteRecord(i.stream, info.Path, info.References, info.Deriver, func(w io.Writer) error {
		_, err := io.Copy(w, source)
		return err
	})
	switch {
	case source.err != nil:
		// Without its end nothing of the path is imported. What came before it must be.
		_ = i.stream.Flush()
		_ = i.stop(nil)
		return fmt.Errorf("read the NAR of %s: %w", info.Path, source.err)
	case err != nil:
		return i.failed(ctx, err)
	}
	return nil
}

// failed finds out why the program takes no more.
func (i *importer) failed(ctx context.Context, err error) error {
	if told := i.stop(err); told != nil {
		err = told
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
	return i.stop(nil)
}

// Close leaves nothing of a path that was not read to its end.
func (i *importer) Close() error {
	_ = i.stop(io.ErrUnexpectedEOF)
	return nil
}

// heard remembers what a reader has said.
type heard struct {
	r   io.Reader
	err error
}

func (f *heard) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
