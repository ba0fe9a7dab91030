package push

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// warehouse is a store in which every derivation NAME.drv has built NAME, and
// whose pushes do what copy says.
type warehouse struct {
	calls
	mu     sync.Mutex
	copied [][]string
	copy   func(ctx context.Context, n int) error
	asked  int
	deaf   int // so many questions are not answered
	late   int // so many times nothing is valid
}

func (w *warehouse) Copy(ctx context.Context, _ string, paths []string, _ ...string) (nix.Traffic, error) {
	w.mu.Lock()
	w.copied = append(w.copied, paths)
	n := len(w.copied)
	w.mu.Unlock()
	return nix.Traffic{Paths: n, Bytes: 100}, w.copy(ctx, n)
}

func (w *warehouse) Built(_ context.Context, drvs ...string) (paths, unbuilt []string, err error) {
	if w.asked++; w.asked <= w.deaf {
		return nil, nil, errors.New("the daemon is away")
	}
	if w.late--; w.late >= 0 {
		return nil, drvs, nil
	}
	for _, drv := range drvs {
		if drv == "failed.drv" {
			unbuilt = append(unbuilt, drv)
		} else {
			paths = append(paths, strings.TrimSuffix(drv, ".drv"))
		}
	}
	return paths, unbuilt, nil
}

func session(t *testing.T, ctx context.Context, w *warehouse, o Options) *Session { //nolint:revive // the test comes first
	t.Helper()
	to, err := Parse("file:///srv")
	if err != nil {
		t.Fatal(err)
	}
	return Start(ctx, w, []Destination{to}, o)
}

func TestSession(t *testing.T) {
	for name, test := range map[string]struct {
		deaf  int
		late  int
		copy  func(ctx context.Context, n int) error
		paths int
		err   string
	}{
		"all is well":                   {paths: 3},
		"a failure is made up for":      {copy: func(_ context.Context, n int) error { return map[int]error{1: errors.New("502")}[n] }, paths: 3},
		"it is registered late":         {late: 1, paths: 3},
		"the store is away for a while": {deaf: 1, paths: 3},
		"the store stays away":          {deaf: 9, paths: 2, err: "the daemon is away"},
		"nothing works":                 {copy: func(context.Context, int) error { return errors.New("502") }, err: "502"},
		"it hangs": {copy: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return errors.New("killed")
		}, err: "timeout after 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &warehouse{copy: test.copy, deaf: test.deaf, late: test.late}
				if w.copy == nil {
					w.copy = func(context.Context, int) error { return nil }
				}
				s := session(t, t.Context(), w, Options{Timeout: time.Minute})
				s.Built("a.drv")
				synctest.Wait() // it is pushed before the next is built
				s.Built("b.drv")
				s.Built("failed.drv")
				r := s.Finish([]string{"a", "c"})[0]
				if r.Paths != test.paths || (r.Err == nil) != (test.err == "") || r.Err != nil && !strings.Contains(r.Err.Error(), test.err) {
					t.Errorf("got %+v", r)
				}
				if name == "all is well" {
					n := len(w.copied) // two or three, because "b" may be built while "c" is pushed, or before
					if want := (nix.Traffic{Paths: n * (n + 1) / 2, Bytes: int64(n) * 100}); n < 2 || r.Sent != want {
						t.Errorf("sent %+v in %d batches, want that of all of them, %+v", r.Sent, n, want)
					}
					if diff := cmp.Diff([]string{"a"}, w.copied[0]); diff != "" {
						t.Error(diff)
					}
				}
				if name == "it hangs" && len(w.copied) != 1 {
					t.Errorf("it was tried again: %v", w.copied)
				}
			})
		})
	}
}

// Paths that are finished when the context ends are still pushed, but not for long.
func TestSessionStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &warehouse{copy: func(ctx context.Context, n int) error {
			if n > 1 {
				<-ctx.Done()
			}
			return ctx.Err()
		}}
		s := session(t, ctx, w, Options{})
		start := time.Now()
		cancel()
		s.Built("a.drv")
		synctest.Wait()
		s.Built("b.drv")
		r := s.Finish(nil)[0]
		if r.Paths != 1 || !errors.Is(r.Err, context.Canceled) || time.Since(start) != Grace {
			t.Errorf("got %+v after %v", r, time.Since(start))
		}
	})
}
