package storecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

// A failed save returns an error and the packs that are complete.
func TestSaveFails(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	closure, err := n.Requisites(t.Context(), paths["top"])
	must(t, err)
	for name, s := range map[string]*Saver{
		"export": {Nix: broken{n}, Cache: open(t), ID: "test"},
		"walk":   {Nix: lame{n}, Cache: open(t), ID: "test"},
		"cache":  {Nix: n, Cache: full{open(t)}, ID: "test"},
	} {
		s.Size = 1 << 20
		packs, err := s.Save(t.Context(), infosOf(t, n, closure...))
		if err == nil || !strings.HasPrefix(err.Error(), "cannot save: ") {
			t.Errorf("%s: %v", name, err)
		}
		for _, p := range packs {
			if _, err := s.Cache.Open(t.Context(), p.Key); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A path that has changed since it was registered, or is missing, is left out of a save, as are
// its referrers; all others are saved.
func TestSaveWithout(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"changed": func(path string) error {
			return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("something else"), 0o600))
		},
		"gone": os.Remove,
		"something else": func(path string) error {
			return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o400))
		},
		"not valid": nil,
	} {
		for _, size := range []int64{0, 1} { // all in one pack, and each in its own
			t.Run(fmt.Sprint(what, " ", size), func(t *testing.T) {
				n := inputsNix(t)
				paths := fleet(t, n)
				closure, err := n.Requisites(t.Context(), paths["top"], paths["alone"])
				must(t, err)
				infos := infosOf(t, n, closure...)
				if damage == nil {
					for _, name := range []string{"top", "left"} { // referrers are deleted first
						nixtest.Run(t, "nix-store", "--delete", "--ignore-liveness", paths[name])
					}
				} else {
					must(t, damage(paths["left"]))
				}
				s := saver(n, open(t), nil)
				s.Size = size
				var lost []string
				s.Lost = func(path string, why error) {
					lost = append(lost, path)
					if why == nil {
						t.Errorf("%s is lost for no reason", path)
					}
				}
				packs, err := s.Save(t.Context(), infos)
				must(t, err)
				slices.Sort(lost)
				want := []string{paths["left"], paths["top"]}
				slices.Sort(want)
				if diff := cmp.Diff(want, lost); diff != "" {
					t.Errorf("lost:\n%s", diff)
				}
				want = slices.DeleteFunc(slices.Clone(closure), func(path string) bool { return slices.Contains(lost, path) })
				slices.Sort(want)
				if diff := cmp.Diff(want, slices.Sorted(slices.Values(pathsOf(t, NewIndex(packs...))))); diff != "" {
					t.Errorf("saved:\n%s", diff)
				}
			})
		}
	}
}

// asking counts how often the store is asked for the metadata of a path.
type asking struct {
	Nix
	times   map[string]int
	queries int // other ones
}

func (a *asking) FullInfo(ctx context.Context, paths ...string) ([]nix.PathInfo, error) {
	for _, path := range paths {
		a.times[path]++
	}
	return a.Nix.FullInfo(ctx, paths...)
}

func (a *asking) Requisites(ctx context.Context, paths ...string) ([]string, error) {
	a.queries++
	return a.Nix.Requisites(ctx, paths...)
}

func (a *asking) Valid(ctx context.Context, paths ...string) (map[string]bool, error) {
	a.queries++
	return a.Nix.Valid(ctx, paths...)
}

// New paths of named closures are the same whether Nix is asked for the closures of those that are wanted, or
// they follow from the infos, as they do while no pack has any.
func TestNamedAsksOnce(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	c := open(t)
	some, err := (&Saver{Nix: n, Cache: c, ID: "test"}).Save(t.Context(), infosOf(t, n, paths["left"], paths["right"])) // through which "low" is needed
	must(t, err)
	for what, saved := range map[string]*Index{"nothing": NewIndex(), "some": NewIndex(some...)} {
		for _, policy := range []Policy{Built, All} {
			for _, named := range [][]string{{paths["top"]}, {paths["top"], paths["alone"]}, {paths["left"]}} {
				a := &asking{Nix: n, times: map[string]int{}}
				got, _, err := Named(t.Context(), a, saved, policy, named)
				must(t, err)
				all, err := n.Requisites(t.Context(), named...)
				must(t, err)
				f := finder{Nix: n, saved: saved, policy: policy, named: named}
				want, err := f.find(t.Context(), unsaved(saved, all), nil)
				must(t, err)
				slices.Sort(got.Needed) // of several orders Nix has one
				slices.Sort(want.Needed)
				names := nix.PathsOf(got.Fresh)
				if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(nix.PathsOf(want.Fresh)))) || !slices.Equal(got.Needed, want.Needed) {
					t.Errorf("%s is saved, policy %s, %q: %q and %q instead of %q and %q", what, policy, named, names, got.Needed, nix.PathsOf(want.Fresh), want.Needed)
				}
				if what == "nothing" && (a.queries != 1 || len(got.Fresh) == 0 && policy == All) {
					t.Errorf("policy %s, %q: %d queries for %q", policy, named, a.queries, names)
				}
				for i, info := range got.Fresh {
					for _, ref := range info.References {
						if at := slices.Index(nix.PathsOf(got.Fresh), ref); at > i {
							t.Errorf("%s is before %s", info.Path, ref)
						}
					}
				}
			}
		}
	}
}

// The store is asked once for the metadata of a saved path, even if another path is lost.
func TestSaveAsksOnce(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	a := &asking{Nix: n, times: map[string]int{}}
	found, err := New(t.Context(), a, NewIndex(), Built, []string{paths["top"], paths["alone"], paths["right"]})
	must(t, err)
	var names []string
	for _, info := range found.Fresh {
		names = append(names, nameOf(info.Path))
	}
	if slices.Sort(names); !slices.Equal(names, []string{"alone", "large", "low", "right", "top"}) { // left is signed
		t.Errorf("new are %q", names)
	}
	must(t, os.Remove(paths["right"]))
	s := &Saver{Nix: a, Cache: open(t), ID: "test"}
	packs, err := s.Save(t.Context(), found.Fresh)
	must(t, err)
	if got := len(pathsOf(t, NewIndex(packs...))); got != 3 {
		t.Errorf("%d paths are saved", got)
	}
	for path, times := range a.times {
		if times > 1 {
			t.Errorf("it asks %d times for %s", times, path)
		}
	}
}

// full is a cache that accepts no more entries.
type full struct{ cache.Cache }

func (full) Save(context.Context, string, io.ReaderAt, int64) error {
	return errors.New("no more room")
}
