package push

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/glob"
	"github.com/org/nix-matrix/pkg/nix"
)

// shelf is a store with paths /nix/store/HASH-NAME, by their names, and what they refer to.
type shelf map[string][]string

func shelved(name string) string { return "/nix/store/" + strings.Repeat("0", 32) + "-" + name }

func (s shelf) Closure(_ context.Context, paths ...string) (map[string]nix.PathInfo, error) {
	infos := map[string]nix.PathInfo{}
	for len(paths) > 0 {
		name := strings.TrimPrefix(paths[0], shelved(""))
		paths = paths[1:]
		info := nix.PathInfo{Path: shelved(name)}
		for _, reference := range s[name] {
			info.References = append(info.References, shelved(reference))
			if reference != name {
				paths = append(paths, shelved(reference))
			}
		}
		infos[info.Path] = info
	}
	return infos, nil
}

func filter(t *testing.T, globs string) *Filter {
	t.Helper()
	var all []glob.Glob
	for _, text := range strings.Fields(globs) {
		g, err := glob.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return NewFilter(all)
}

func TestFilter(t *testing.T) {
	whole := shelf{
		"nixos-system-web": {"hello-2.12", "key-source", "nixos-system-web"}, "nixos-system-db": {"hello-2.12"},
		"hello-2.12": {"glibc-2.42"}, "hello-2.12-dev": {"hello-2.12"}, "app": {"deep"}, "deep": {"key-source"},
	}
	const all = "nixos-system-web nixos-system-db hello-2.12 hello-2.12-dev app key-source"
	for globs, want := range map[string]struct{ pass, unused string }{
		"":                                  {all, ""},
		"nixos-system-*":                    {"nixos-system-web nixos-system-db", ""},
		"nixos-system-* app":                {"nixos-system-web nixos-system-db app", ""},
		"!*-source":                         {"nixos-system-db hello-2.12 hello-2.12-dev", ""},
		"nixos-system-* !*-source":          {"nixos-system-db", ""},
		"!glibc-*":                          {"app key-source", ""}, // key-source and app do not refer to it
		"!/nix/store/*-hello-2.12-dev":      {"nixos-system-web nixos-system-db hello-2.12 app key-source", ""},
		"hallo-* !helo-*":                   {"", "hallo-* !helo-*"},
		"nixos-*-web !nothing":              {"nixos-system-web", "!nothing"},
		"00000000000000000000000000000000*": {"", "00000000000000000000000000000000*"},
	} {
		t.Run(globs, func(t *testing.T) {
			store := whole
			if globs == "!glibc-*" {
				store = shelf{"nixos-system-web": {"hello-2.12"}, "nixos-system-db": {"hello-2.12"}, "hello-2.12": {"glibc-2.42"}, "hello-2.12-dev": {"hello-2.12"}}
			}
			f := filter(t, globs)
			paths := []string{"/nix/store/00000000000000000000000000000000-app.drv!*"}
			for _, name := range strings.Fields(all) {
				paths = append(paths, shelved(name))
			}
			for range 2 { // what was decided stays
				pass, err := f.pass(t.Context(), store, paths)
				if err != nil {
					t.Fatal(err)
				}
				if globs == "" {
					pass = pass[1:]
				}
				var names []string
				for _, path := range pass {
					names = append(names, strings.TrimPrefix(path, shelved("")))
				}
				if diff := cmp.Diff(want.pass, strings.Join(names, " ")); diff != "" {
					t.Error(diff)
				}
				if kept := len(f.Kept()); f != nil && kept != 6-len(names) {
					t.Errorf("%d paths were held back", kept)
				}
			}
			if diff := cmp.Diff(want.unused, strings.Join(f.Unused(), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type brokenShelf struct{}

func (brokenShelf) Closure(context.Context, ...string) (map[string]nix.PathInfo, error) {
	return nil, errors.New("the daemon is away")
}

// A path whose closure is not known is not pushed.
func TestFilterFails(t *testing.T) {
	f := filter(t, "!*-source")
	if pass, err := f.pass(t.Context(), brokenShelf{}, []string{shelved("a")}); err == nil || pass != nil {
		t.Errorf("%v, %v", pass, err)
	}
	if pass, err := f.pass(t.Context(), shelf{}, []string{shelved("a")}); err != nil || len(pass) != 1 {
		t.Errorf("after that: %v, %v", pass, err)
	}
}

// A session pushes what the filter lets through, and counts nothing else.
func TestSessionFilters(t *testing.T) {
	w := &warehouse{copy: func(context.Context, int) error { return nil }}
	s := session(t, t.Context(), w, Options{Filter: filter(t, "a*")})
	r := s.Finish([]string{shelved("ab"), shelved("b"), shelved("ac")})[0]
	if r.Err != nil || r.Paths != 2 {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff([][]string{{shelved("ab"), shelved("ac")}}, w.copied); diff != "" {
		t.Error(diff)
	}
	w.copied = nil
	s = session(t, t.Context(), w, Options{Filter: filter(t, "x")})
	if r := s.Finish([]string{shelved("ab")})[0]; r.Err != nil || r.Paths != 0 || len(w.copied) > 0 {
		t.Errorf("%+v, %v", r, w.copied)
	}
}
