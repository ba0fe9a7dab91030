package storecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// opened is a cache that notes which blobs are opened.
type opened struct {
	cache.Cache
	mu   sync.Mutex // packs are read side by side
	keys []string
}

func (o *opened) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	o.mu.Lock()
	o.keys = append(o.keys, key)
	o.mu.Unlock()
	return o.Cache.Open(ctx, key, prefixes...)
}

// substituted is a store with a substituter for some paths.
type substituted struct {
	*memory
	brings []string
	asked  []string
}

func (s *substituted) Valid(_ context.Context, paths ...string) (map[string]bool, error) {
	valid := map[string]bool{}
	for _, path := range paths {
		if slices.Contains(s.asked, path) && slices.Contains(s.brings, path) {
			valid[path] = true
		}
	}
	return valid, nil
}

func (s *substituted) Substitute(_ context.Context, _ func(nix.Traffic), paths ...string) error {
	s.asked = append(s.asked, paths...)
	return errors.New("not all are there")
}

// A store that does not trust this user gets only proven paths whose references are proven too;
// no others are read.
func TestRestoreUntrusted(t *testing.T) {
	distrust := fmt.Errorf("%w: for a test", nix.ErrUntrusted)
	for _, test := range []struct {
		what      string
		distrusts func(context.Context) error
		brings    []string
		want      []string // names
		reads     string
		err       error
	}{
		{"no matter", nil, nil, []string{"alone", "left", "low", "right"}, "proven unproven", nil},
		{"trusted", func(context.Context) error { return nil }, nil, []string{"alone", "left", "low", "right"}, "proven unproven", nil},
		{"untrusted", func(context.Context) error { return distrust }, nil, []string{"right"}, "proven", nix.ErrUntrusted},
		{"a substituter", func(context.Context) error { return distrust }, []string{pathOf("low")}, []string{"left", "right"}, "proven", nix.ErrUntrusted},
		{"unknown", func(context.Context) error { return io.ErrUnexpectedEOF }, nil, nil, "", io.ErrUnexpectedEOF},
	} {
		t.Run(test.what, func(t *testing.T) {
			unproven, data := packOf(t, "unproven", nil, "low", "alone")
			proven, more := packOf(t, "proven", nil, "left:low", "right")
			for i := range proven.Index.Records {
				proven.Index.Records[i].Proof = pack.Proof{Signatures: []string{"test-1:signature"}}
			}
			c := &opened{Cache: open(t)}
			must(t, c.Save(t.Context(), unproven.Key, bytes.NewReader(data), unproven.Size))
			must(t, c.Save(t.Context(), proven.Key, bytes.NewReader(more), proven.Size))
			m := &substituted{memory: newMemory(), brings: test.brings}
			engine := m.engine()
			engine.Distrusts = test.distrusts
			r := &Restorer{Nix: m, Engine: engine, Cache: c, Index: NewIndex(unproven, proven)}
			got, err := r.Restore(t.Context(), pathsOf(t, r.Index)...)
			if !errors.Is(err, test.err) || test.err == nil && err != nil {
				t.Errorf("got %v, want %v", err, test.err)
			}
			if errors.Is(err, nix.ErrUntrusted) && (!strings.Contains(err.Error(), "2 store paths") || !strings.Contains(err.Error(), slices.Min([]string{pathOf("low"), pathOf("alone")}))) {
				t.Errorf("it does not say which: %v", err)
			}
			var names []string
			for path := range m.valid {
				names = append(names, path[strings.LastIndex(path, "-")+1:])
			}
			slices.Sort(names)
			slices.Sort(c.keys)
			if !slices.Equal(names, test.want) || got.Paths != len(test.want) {
				t.Errorf("%d paths: %q, want %q", got.Paths, names, test.want)
			}
			if reads := strings.Join(c.keys, " "); reads != test.reads {
				t.Errorf("it reads %q, want %q", reads, test.reads)
			}
		})
	}
}
