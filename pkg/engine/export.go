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

// Export returns the engine that adds paths to no store, but writes the stream that
// `nix-store --import` reads. Signatures and content addresses have no place in it. Without its
// end, which Finish writes, the stream is incomplete, and Nix imports the paths before that only.
func Export(w io.Writer) Engine {
	return Engine{
		Name: "export", Ordered: true, Parallel: 1,
		Begin: func(context.Context, []nix.PathInfo) (Sink, error) {
			return &exporter{stream: bufio.NewWriterSize(w, 256<<10)}, nil
		},
	}
}

type exporter struct {
	stream *bufio.Writer
	broken error // why the stream can't go on
}

func (e *exporter) Add(ctx context.Context, info nix.PathInfo, from io.Reader) error {
	if e.broken != nil {
		return e.broken
	}
	if err := checkInfo(&info); err != nil {
		return &RefusedError{err}
	}
	source := &errRecorder{r: &stoppable{ctx, from}}
	err := nar.WriteRecord(e.stream, info.Path, info.References, info.Deriver, func(w io.Writer) error {
		_, err := io.Copy(w, source)
		return err
	})
	switch {
	case source.err != nil:
		e.broken = fmt.Errorf("the stream ends in %s, whose NAR cannot be read", info.Path)
		return fmt.Errorf("cannot read the NAR of %s: %w", info.Path, source.err)
	case err != nil:
		e.broken = fmt.Errorf("cannot write the stream: %w", err)
		return e.broken
	}
	return nil
}

// Finish ends the stream, unless it ends in a path.
func (e *exporter) Finish(context.Context, []nix.PathInfo) error {
	if e.broken != nil {
		return e.broken
	}
	if err := errors.Join(nar.WriteEnd(e.stream), e.stream.Flush()); err != nil {
		return fmt.Errorf("cannot write the stream: %w", err)
	}
	return nil
}

// Close has nothing to do.
func (*exporter) Close() error { return nil }
