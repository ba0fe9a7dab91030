package engine

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

// Nix has the paths before one that breaks off, though not all of their bytes were in the pipe then.
func TestImportBreaksOff(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	nixtest.UseMemory(t, "")
	last := len(c.Infos) - 1
	broken := errors.New("the line is cut")
	err := add(t.Context(), Import(n), c.Infos, func(info nix.PathInfo) io.Reader {
		if info.Path == c.Infos[last].Path {
			return io.MultiReader(bytes.NewReader(c.NARs[info.Path][:1]), iotest.ErrReader(broken))
		}
		return c.open(info)
	}, nil)
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	valid, err := n.Valid(t.Context(), c.paths()...)
	must(t, err)
	for i, info := range c.Infos {
		if valid[info.Path] != (i < last) {
			t.Errorf("%s is valid: %v", info.Path, valid[info.Path])
		}
	}
}

// unreadPipe is the pipe to a program that does not read it all.
type unreadPipe struct{ io.Writer }

func (unreadPipe) Close() error { return syscall.EPIPE }

// A program that ends well but has not read everything is an error.
func TestImportUnread(t *testing.T) {
	pipe := unreadPipe{io.Discard}
	i := &importer{pipe: pipe, stream: bufio.NewWriter(pipe), end: func() error { return nil }}
	if err := i.Finish(t.Context(), nil); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("its error is %v", err)
	}
}
