package nix

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/wire"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// When the context ends, adding ends, which has no other end, and only the context's error is returned.
func TestAddStops(t *testing.T) {
	info := PathInfo{Path: "/nix/store/" + strings.Repeat("1", 32) + "-endless", NarHash: strings.Repeat("0", 64), NarSize: 1 << 60}
	eachDaemon(t, func(t *testing.T, n *Nix) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		var head request
		head.texts("nix-archive-1", "(", "type", "regular", "contents")
		head.numbers(1 << 59)
		err := n.Add(ctx, []PathInfo{info}, func(PathInfo) (io.Reader, error) {
			return io.MultiReader(bytes.NewReader(head.Bytes()), io.LimitReader(zeros{}, 1<<20), stopper{func() { cancel(why) }}, zeros{}), nil
		})
		if !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}

// stopper is an empty reader that calls a function when it is read.
type stopper struct{ do func() }

func (s stopper) Read([]byte) (int, error) {
	s.do()
	return 0, io.EOF
}

// talk is a connection to a server of the test's own.
func talk(t *testing.T, serve func(r io.Reader, w io.Writer)) *Daemon {
	t.Helper()
	requests, in := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(requests, out)
		_ = out.Close()
	}()
	t.Cleanup(func() { <-done })
	return &Daemon{in: in, w: bufio.NewWriter(in), r: bufio.NewReader(answers), close: func() error {
		_ = in.Close()
		return nil
	}}
}

func errorMessage(text string) *request {
	var q request
	q.numbers(messageError)
	q.texts("Error")
	q.numbers(0)
	q.texts("Error", text)
	q.numbers(0, 1, 0)
	q.texts("a trace")
	return &q
}

// A server that has sent an error need not read on.
func TestAddServerStops(t *testing.T) {
	info, nar := file("first", strings.Repeat("first", 1<<20))
	d := talk(t, func(r io.Reader, w io.Writer) {
		_, _ = io.CopyN(io.Discard, r, 100<<10)
		_, _ = errorMessage("no space left on device").WriteTo(w)
	})
	err := d.AddMultiple([]PathInfo{info}, from(map[string][]byte{info.Path: nar}))
	if err == nil || err.Error() != "cannot add to the store: no space left on device" {
		t.Errorf("got %v", err)
	}
}

// The server's messages are read while we write to it, else both would wait.
func TestAddTalkative(t *testing.T) {
	info, nar := file("first", strings.Repeat("first", 1<<20))
	d := talk(t, func(r io.Reader, w io.Writer) {
		var line request
		line.numbers(messageNext)
		line.texts(strings.Repeat("word ", 100))
		for range 1000 {
			_, _ = w.Write(line.Bytes())
		}
		_, _ = io.CopyN(io.Discard, r, 3*8) // the operation and its flags
		for {
			n, err := wire.ReadUint64(r)
			if err != nil || n == 0 {
				break
			}
			_, _ = io.CopyN(io.Discard, r, int64(n))
		}
		var last request
		last.numbers(messageLast)
		_, _ = last.WriteTo(w)
	})
	if err := d.AddMultiple([]PathInfo{info}, from(map[string][]byte{info.Path: nar})); err != nil {
		t.Error(err)
	}
}

// The end of the connection is an error.
func TestAddLostServer(t *testing.T) {
	info, nar := file("first", strings.Repeat("first", 1<<20))
	d := talk(t, func(r io.Reader, _ io.Writer) {
		_, _ = io.CopyN(io.Discard, r, 100<<10)
		_ = r.(*io.PipeReader).Close()
	})
	if err := d.AddMultiple([]PathInfo{info}, from(map[string][]byte{info.Path: nar})); err == nil || !strings.HasPrefix(err.Error(), "cannot add to the store: ") {
		t.Errorf("got %v", err)
	}
}

// Add adds paths to the store like AddMultiple, with a connection of its own.
func (n *Nix) Add(ctx context.Context, infos []PathInfo, open func(PathInfo) (io.Reader, error)) error {
	d, err := n.Connect(ctx)
	if err != nil {
		return err
	}
	err = d.AddMultiple(infos, open)
	_ = d.Close() // the operation has ended
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("cannot add to the store: %w", context.Cause(ctx))
	}
	return err
}
