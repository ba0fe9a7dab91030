package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/memory"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
)

// shelf is a cache of entries, and the log.
type shelf struct {
	entries []action.CacheEntry
	fail    map[string]error // by a part of the key
	listing error
	removed []string
	asked   int // removals
	stop    func()
	isSlow  bool
	ref     string
	refErr  error
	warned  []string
}

func (s *shelf) list(context.Context, string) ([]action.CacheEntry, error) {
	return s.entries, s.listing
}

func (s *shelf) remove(_ context.Context, e action.CacheEntry) error {
	if s.asked++; s.stop != nil {
		s.stop()
	}
	for part, err := range s.fail {
		if strings.Contains(e.Key, part) {
			return err
		}
	}
	s.removed = append(s.removed, e.Key)
	return nil
}

func (s *shelf) defaultRef(context.Context) (string, error) { return s.ref, s.refErr }
func (s *shelf) slow() bool                                 { return s.isSlow }
func (s *shelf) Doing(string, ...any)                       {}
func (s *shelf) Warn(title string, err error) {
	s.warned = append(s.warned, fmt.Sprint(title, ": ", err))
}

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// old returns a plan that was used so many days ago.
func old(n, days int) action.CacheEntry {
	at := now.AddDate(0, 0, -days)
	return action.CacheEntry{Key: job.PlanKey(job.DefaultID, "", fmt.Append(nil, n))(n), Ref: "refs/heads/main", Size: 100, Created: at, Used: at}
}

func collector(s *shelf) *Collector {
	return &Collector{
		Docs: &documents.Store{ID: job.DefaultID, Trust: &action.Trust{}}, Open: func() (cache.Cache, error) { return nil, nil },
		From: s, Rules: gc.Rules{ID: job.DefaultID, Now: now, Keep: 7 * 24 * time.Hour}, Log: s,
	}
}

// An error of one entry is no reason to leave the others, unless all would have the same.
func TestRemovals(t *testing.T) {
	odd := errors.New("GitHub answers 422")
	key := func(n int) string { return old(n, 0).Key }
	for name, test := range map[string]struct {
		fail     map[string]error
		dry      bool
		stopped  bool // by the first removal
		asked    int
		removed  []string
		failed   bool
		warnings []string
	}{
		"all":                   {asked: 3, removed: []string{key(0), key(1), key(2)}},
		"a dry run":             {dry: true},
		"one fails":             {fail: map[string]error{key(1): odd}, asked: 3, removed: []string{key(0), key(2)}, failed: true, warnings: []string{"GitHub answers 422"}},
		"the last is forbidden": {fail: map[string]error{key(2): action.ErrForbidden}, asked: 3, removed: []string{key(0), key(1)}, failed: true, warnings: []string{"the token may not do this"}},
		"forbidden": {
			fail: map[string]error{job.DefaultID: fmt.Errorf("no: %w", action.ErrForbidden)}, asked: 1, failed: true,
			warnings: []string{"no: the token may not do this (2 more are left for the same reason)"},
		},
		"limited": {
			fail: map[string]error{key(1): action.ErrLimited}, asked: 2, removed: []string{key(0)}, failed: true,
			warnings: []string{"GitHub's rate limit is used up (1 more are left for the same reason)"},
		},
		"stopped":                  {stopped: true, asked: 1, removed: []string{key(0)}},
		"stopped while one failed": {stopped: true, fail: map[string]error{key(0): context.Canceled}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			s := &shelf{entries: []action.CacheEntry{old(0, 12), old(1, 11), old(2, 10), old(3, 1)}, fail: test.fail}
			if test.stopped {
				s.stop = stop
			}
			c := collector(s)
			c.DryRun = test.dry
			got, err := c.Run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if s.asked != test.asked || got.Failed != test.failed || !slices.Equal(s.removed, test.removed) {
				t.Errorf("%d removals were asked for, failed: %v, removed: %q", s.asked, got.Failed, s.removed)
			}
			if len(s.warned) != len(test.warnings) || slices.ContainsFunc(test.warnings, func(w string) bool { return s.warned[0] != "Cannot remove all entries: "+w }) {
				t.Errorf("the warnings are %q", s.warned)
			}
			want := tally{Count: len(test.removed), Bytes: int64(100 * len(test.removed))}
			if test.dry {
				want = tally{Count: 3, Bytes: 300}
			}
			if gone, kept := got.count(job.KeyKinds...); gone != want || gone.Count+kept.Count != 4 {
				t.Errorf("gone %+v, kept %+v", gone, kept)
			}
		})
	}
}

// Removals from a slow cache have a pause between them, which the end of the context ends.
func TestPauses(t *testing.T) {
	for _, ends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			s := &shelf{entries: []action.CacheEntry{old(0, 12), old(1, 11), old(2, 10)}, isSlow: true}
			c := collector(s)
			c.Pause = time.Hour
			if ends {
				time.AfterFunc(90*time.Minute, stop)
			}
			began := time.Now()
			if _, err := c.Run(ctx); err != nil {
				t.Fatal(err)
			}
			want, removed := 2*time.Hour, 3
			if ends {
				want, removed = 90*time.Minute, 2
			}
			if took := time.Since(began); took != want || len(s.removed) != removed {
				t.Errorf("%d were removed in %s", len(s.removed), took)
			}
		})
	}
}

// Without the list, or the default branch where the budget needs it, nothing is removed.
func TestUnknown(t *testing.T) {
	odd := errors.New("GitHub answers 500")
	for _, s := range []*shelf{{listing: odd}, {refErr: odd}} {
		s.entries = []action.CacheEntry{old(0, 12)}
		c := collector(s)
		c.Rules.Budget = 1
		if _, err := c.Run(t.Context()); !errors.Is(err, odd) || s.asked > 0 {
			t.Errorf("%v, %d removals", err, s.asked)
		}
	}
}

// Packs that the newest index of a ref names stay, and all packs of a ref whose index is not known.
func TestNamedPacks(t *testing.T) {
	const main, other = "refs/heads/main", "refs/heads/other"
	at := now.AddDate(0, 0, -3)
	blob := memory.New()
	index := func(ref, system string) action.CacheEntry {
		key := job.IndexPrefix(job.DefaultID) + "2+0+" + system + "+" + cache.Escape(ref) + "+1.0"
		data, err := storecache.NewIndex(&storecache.Pack{Key: "nix-matrix-pack-named-0", Size: 1, Used: at, Index: &pack.Index{}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := blob.Save(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil && !errors.Is(err, cache.ErrExists) {
			t.Fatal(err)
		}
		return action.CacheEntry{Key: key, Ref: ref, Size: 1, Created: at, Used: at}
	}
	packed := func(ref, name string) action.CacheEntry {
		return action.CacheEntry{Key: "nix-matrix-pack-" + name + "-0", Ref: ref, Size: 1, Created: at, Used: at}
	}
	damaged := index(main, "aarch64-linux")
	damaged.Key += "1"
	if err := blob.Save(t.Context(), damaged.Key, strings.NewReader("damaged"), 7); err != nil {
		t.Fatal(err)
	}
	packs := []action.CacheEntry{packed(main, "named"), packed(main, "unnamed"), packed(other, "elsewhere")}
	both := append(slices.Clone(packs), index(main, "x86_64-linux"), index(other, "x86_64-linux"))
	for name, test := range map[string]struct {
		entries  []action.CacheEntry
		cache    cache.Cache
		opening  error
		want     []string
		warnings int
	}{
		"without an index nobody knows a pack": {entries: packs, cache: blob, want: []string{"elsewhere", "named", "unnamed"}},
		"those of another ref may be named":    {entries: both, cache: blob, want: []string{"unnamed"}},
		"an index that cannot be read":         {entries: append(slices.Clone(both), damaged), cache: blob, warnings: 1},
		"an index that is gone":                {entries: both, cache: memory.New(), warnings: 1},
		"no cache":                             {entries: both},
		"a cache that cannot be opened":        {entries: both, opening: errors.New("no token")},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{entries: test.entries}
			c := collector(s)
			c.Docs.Trust = &action.Trust{Running: true, Ref: main}
			c.Open = func() (cache.Cache, error) { return test.cache, test.opening }
			if _, err := c.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, key := range s.removed {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(key, "nix-matrix-pack-"), "-0"))
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" || len(s.warned) != test.warnings {
				t.Errorf("%s, warnings: %q", diff, s.warned)
			}
		})
	}
}
