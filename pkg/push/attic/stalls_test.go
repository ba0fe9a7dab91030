package attic_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

// A NAR that hangs is given up like a server that does, whether the context or
// only Close wakes it.
func TestNarStalls(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			_, options := serve(t, attictest.Options{})
			c := dial(t, options)
			s := &shop{wrap: func(ctx context.Context, _ string, n int, nar io.Reader) (io.Reader, error) {
				if n > 1 {
					return nar, nil
				}
				if !heeds {
					r, _ := io.Pipe()
					return r, nil
				}
				return readerFunc(func([]byte) (int, error) {
					<-ctx.Done()
					return 0, errors.New("killed")
				}), nil
			}}
			begun := time.Now()
			stats, err := c.Push(t.Context(), s.paths(1), s.nar)
			if err != nil || stats.Uploaded != 1 || s.most != 1 {
				t.Errorf("%+v, %v, %d open at a time", stats, err, s.most)
			}
			if took := time.Since(begun); took < 2*time.Minute {
				t.Errorf("it was given up after %s", took)
			}
		})
	}
}

// A NAR that hangs does not keep an answer waiting.
func TestAnswerBeforeNar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, options := serve(t, attictest.Options{Fault: always(attictest.Fault{Status: 400})})
		c := dial(t, options)
		s := &shop{wrap: func(context.Context, string, int, io.Reader) (io.Reader, error) {
			r, _ := io.Pipe()
			return r, nil
		}}
		begun := time.Now()
		_, err := c.Push(t.Context(), []attic.Path{s.path("path", strings.Repeat("x", megabyte/2))}, s.nar)
		if err == nil || !strings.Contains(err.Error(), "400") || time.Since(begun) != 0 || s.left() != 0 {
			t.Errorf("%v after %s, %d open", err, time.Since(begun), s.left())
		}
	})
}

// A server may take longer to answer when the NAR is large.
func TestLateAnswer(t *testing.T) {
	const late = 2*time.Minute + 2*time.Second
	for _, test := range []struct {
		size    int
		patient bool
	}{{megabyte, false}, {12 * megabyte, true}} {
		synctest.Test(t, func(t *testing.T) {
			_, options := serve(t, attictest.Options{Fault: always(attictest.Fault{Late: late})})
			c := dial(t, options)
			s := &shop{}
			begun := time.Now()
			stats, err := c.Push(t.Context(), []attic.Path{s.path("path", strings.Repeat("x", test.size))}, s.nar)
			if err != nil || stats.Uploaded != 1 {
				t.Errorf("%+v, %v", stats, err)
			}
			if took := time.Since(begun); (took >= late) != test.patient {
				t.Errorf("%d bytes: it took %s", test.size, took)
			}
		})
	}
}

// An upload may take as long as it likes while it goes on.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, options := serve(t, attictest.Options{})
		c := dial(t, options)
		s := &shop{wrap: func(_ context.Context, _ string, _ int, nar io.Reader) (io.Reader, error) {
			return readerFunc(func(p []byte) (int, error) {
				time.Sleep(time.Minute)
				return nar.Read(p[:min(len(p), 1024)])
			}), nil
		}}
		stats, err := c.Push(t.Context(), []attic.Path{s.path("path", strings.Repeat("x", 20<<10))}, s.nar)
		if err != nil || stats.Uploaded != 1 || server.Calls("upload-path") != 1 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, options := serve(t, attictest.Options{Fault: func(n int) attictest.Fault {
			return attictest.Fault{Stall: n > 2}
		}})
		options.Jobs = 2
		c := dial(t, options)
		ctx, cancel := context.WithCancel(t.Context())
		s := &shop{}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			synctest.Wait() // until two uploads stall
			cancel()
		})
		begun := time.Now()
		stats, err := c.Push(ctx, s.paths(10), s.nar)
		waiting.Wait()
		if !errors.Is(err, context.Canceled) || stats.Uploaded != 2 || stats.Failed != 8 {
			t.Errorf("%+v, %v", stats, err)
		}
		if time.Since(begun) != 0 || server.Calls("upload-path") != 4 || s.left() != 0 {
			t.Errorf("%d tries, %d open", server.Calls("upload-path"), s.left())
		}
	})
	t.Run("while waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server, options := serve(t, attictest.Options{Fault: always(attictest.Fault{Status: 500})})
			options.Wait, options.MaxWait = time.Hour, time.Hour
			c := dial(t, options)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Minute, cancel)
			s := &shop{}
			_, err := c.Push(ctx, s.paths(1), s.nar)
			if !errors.Is(err, context.Canceled) || server.Calls("upload-path") != 1 {
				t.Errorf("%v after %d tries", err, server.Calls("upload-path"))
			}
		})
	})
}
