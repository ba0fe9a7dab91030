package engine

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"testing"
	"testing/iotest"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

// importStream has nix-store import a stream.
func importStream(t *testing.T, stream []byte) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nix-store", "--import")
	cmd.Stdin = bytes.NewReader(stream)
	return cmd.Run()
}

// Each version of Nix imports the stream, which is the same as its own.
func TestExport(t *testing.T) {
	c := kinds(t)
	var stream bytes.Buffer
	must(t, add(t.Context(), Export(&stream), c.Infos, c.open, nil))
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		nixtest.UseMemory(t, "")
		must(t, importStream(t, stream.Bytes()))
		c.checkBut(t, n, forgets("import"))
		var own bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "nix-store", append([]string{"--export"}, c.paths()...)...)
		cmd.Stdout = &own
		must(t, cmd.Run())
		nixtest.UseMemory(t, "")
		must(t, importStream(t, own.Bytes()))
		c.checkBut(t, n, forgets("import"))
		if own.Len() != stream.Len() {
			t.Errorf("the stream has %d bytes, that of Nix %d", stream.Len(), own.Len())
		}
	})
}

// After an error, the stream has no end, so that Nix imports only whole paths and fails.
func TestExportBroken(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	boom := errors.New("boom")
	broken := c.Infos[len(c.Infos)/2]
	var stream bytes.Buffer
	err := add(t.Context(), Export(&stream), c.Infos, func(info nix.PathInfo) io.Reader {
		if info.Path == broken.Path {
			return io.MultiReader(bytes.NewReader(c.NARs[info.Path][:20]), iotest.ErrReader(boom))
		}
		return c.open(info)
	}, boom)
	if err == nil || errors.Is(err, boom) { // that of the next path, or of the end
		t.Errorf("got %v", err)
	}
	if err := importStream(t, stream.Bytes()); err == nil {
		t.Error("Nix takes a stream without an end")
	}
	valid, err := n.Valid(t.Context(), c.paths()...)
	must(t, err)
	if valid[broken.Path] {
		t.Error("half a path is valid")
	}
	nixtest.Verify(t)

	// A reader that has ended is the error.
	if err := add(t.Context(), Export(full{}), c.Infos, c.open, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a closed pipe: %v", err)
	}
	evil := c.Infos[0]
	evil.References = []string{"/etc/passwd"}
	if err := add(t.Context(), Export(io.Discard), []nix.PathInfo{evil}, c.open, nil); err == nil {
		t.Error("it refers to /etc/passwd")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
