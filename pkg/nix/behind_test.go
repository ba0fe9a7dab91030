package nix

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/org/nix-matrix/internal/testbench"
)

// closer is a writer that is closed.
type closer struct {
	io.Writer
	closed bool
	err    error
}

func (c *closer) Close() error {
	c.closed = true
	return c.err
}

func TestBehindWritesAll(t *testing.T) {
	random := testbench.Random(t)
	var got, want bytes.Buffer
	to := &closer{Writer: &got}
	b := writeBehind(to)
	for _, size := range []int{0, 1, behindPiece - 1, behindPiece, behindPiece + 1, 3*behindPiece + 7, 2 * behindPieces * behindPiece} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		want.Write(data)
		if n, err := b.Write(data); n != size || err != nil {
			t.Fatal(n, err)
		}
		clear(data) // the caller may use its memory again
	}
	if err := b.Close(); err != nil || !to.closed {
		t.Fatal(err, to.closed)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes were written, not the %d that were given", got.Len(), want.Len())
	}
}

// A reader that pauses does not stop the writer at once, nor does it have the memory grow.
func TestBehindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		b := writeBehind(w)
		written := 0
		go func() {
			for err := error(nil); err == nil; written++ {
				_, err = b.Write(make([]byte, behindPiece))
			}
		}()
		synctest.Wait()
		if written != behindPieces {
			t.Errorf("%d pieces fit, not %d", written, behindPieces)
		}
		_ = r.CloseWithError(io.ErrNoProgress)
		synctest.Wait() // until the writer has met the error
		if err := b.Close(); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("Close: %v", err)
		}
	})
}

// Bytes that are lost after the last Write are an error of Close.
func TestBehindFailsLate(t *testing.T) {
	r, w := io.Pipe()
	b := writeBehind(w)
	if _, err := b.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	_ = r.CloseWithError(io.ErrNoProgress)
	if err := b.Close(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Close: %v", err)
	}
	b = writeBehind(&closer{Writer: io.Discard, err: io.ErrShortWrite})
	if err := b.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Close: %v", err)
	}
}
