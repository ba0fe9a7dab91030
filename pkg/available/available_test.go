package available

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

const (
	first  = "https://first.example"
	second = "https://second.example"
)

// fake is a Nix with substituters that are made up.
type fake struct {
	has    map[string][]string // paths, by substituter
	signed []string            // paths with a trusted signature
	broken []string            // paths whose closure nobody has
	lost   []string            // paths without contents
	mute   string              // the substituter that does not answer
	err    error               // of each question for paths
	unsure error               // of each question for closures

	asked map[string]int // how often, by substituter
	open  int            // inquiries
}

func (f *fake) Inquire(_ context.Context, substituters ...string) (Inquiry, error) {
	f.open++
	return &question{f, substituters}, nil
}

// question is an inquiry of a fake.
type question struct {
	*fake
	substituters []string
}

func (q *question) Close() { q.open-- }

func (q *question) Substitutable([]string) (map[string]bool, error) {
	f, substituters := q.fake, q.substituters
	offered := map[string]bool{}
	err := f.err
	for _, substituter := range substituters {
		if f.asked == nil {
			f.asked = map[string]int{}
		}
		f.asked[substituter]++
		if substituter == f.mute {
			err = &nix.NoAnswerError{Substituters: []string{substituter}}
			continue
		}
		for _, path := range f.has[substituter] { // what else Nix would fetch with the paths, too
			offered[path] = true
		}
	}
	return offered, err
}

func (f *fake) TrustedPaths(_ context.Context, paths []string, _ string) (map[string]bool, error) {
	return without(paths, func(path string) bool { return !slices.Contains(f.signed, path) }), nil
}

func (f *fake) SubstitutableClosures(_ context.Context, paths []string, _ ...string) (map[string]bool, error) {
	return without(paths, func(path string) bool { return slices.Contains(f.broken, path) }), f.unsure
}

func (f *fake) Delivers(_ context.Context, _, path string) (bool, error) {
	return !slices.Contains(f.lost, path), nil
}

func without(paths []string, drop func(string) bool) map[string]bool {
	rest := map[string]bool{}
	for _, path := range paths {
		if !drop(path) {
			rest[path] = true
		}
	}
	return rest
}

// warnings are the titles of what a Finder warns about.
type warnings []string

func (w *warnings) Warn(title string, _ error) { *w = append(*w, title) }

func finder(f *fake, substituters ...string) (*Finder, *warnings) {
	log := &warnings{}
	return &Finder{Nix: func() Asker { return f }, Substituters: func() []string { return slices.Clone(substituters) }, Log: log}, log
}

// names returns the paths that a place has.
func names(has map[string]bool) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(has)), func(path string) bool { return !has[path] })
}

// A substituter counts only with a trusted signature, the whole closure and the contents of a path.
func TestSubstituted(t *testing.T) {
	f := &fake{
		has:    map[string][]string{first: {"good", "unsigned", "partial"}, second: {"good", "other", "lost"}},
		signed: []string{"good", "partial", "other", "lost"},
		broken: []string{"partial"},
		lost:   []string{"lost"},
	}
	find, log := finder(f, first, second)
	got := find.Substituted(t.Context(), []string{"good", "unsigned", "partial", "other", "lost", "absent"})
	if diff := cmp.Diff([]string{"good", "other"}, names(got.Has)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(warnings{"A binary cache is not complete", second + " has lost contents"}, *log); diff != "" {
		t.Error(diff)
	}
}

// A substituter that does not answer is asked once, and hides nothing that the others have.
func TestMute(t *testing.T) {
	f := &fake{has: map[string][]string{first: {"a"}, second: {"a", "b"}}, signed: []string{"a", "b"}, mute: first}
	find, log := finder(f, first, second)
	if got, err := find.Offered(t.Context(), []string{"b"}); err != nil || !got["b"] {
		t.Errorf("got %v, %v", got, err)
	}
	for range 3 {
		if diff := cmp.Diff([]string{"a", "b"}, names(find.Substituted(t.Context(), []string{"a", "b"}).Has)); diff != "" {
			t.Error(diff)
		}
	}
	if got := find.Destination(t.Context(), "first", first, true, []string{"a"}); len(got.Has) > 0 {
		t.Errorf("the destination has %v", got.Has)
	}
	if f.asked[first] != 1 || len(*log) != 1 {
		t.Errorf("it is asked %d times, with the warnings %q", f.asked[first], *log)
	}
}

// Where a question fails, no path counts as available. The end of the run is no warning.
func TestAskingFails(t *testing.T) {
	for name, f := range map[string]*fake{"for paths": {err: errors.New("it broke")}, "for closures": {unsure: errors.New("it broke")}} {
		t.Run(name, func(t *testing.T) {
			f.has, f.signed = map[string][]string{first: {"a"}}, []string{"a"}
			find, log := finder(f, first)
			if got := find.Substituted(t.Context(), []string{"a"}); len(got.Has) > 0 {
				t.Errorf("substituters have %v", got.Has)
			}
			if got := find.Destination(t.Context(), "ours", first, true, []string{"a"}); len(got.Has) > 0 {
				t.Errorf("the destination has %v", got.Has)
			}
			if len(*log) != 2 {
				t.Errorf("the warnings are %q", *log)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			find.Substituted(ended, []string{"a"})
			if find.Destination(ended, "ours", first, true, []string{"a"}); len(*log) != 2 {
				t.Errorf("the end of a run is a warning: %q", *log)
			}
		})
	}
}

// A binary cache that is pushed to needs signatures where its key is known, and an address.
func TestDestination(t *testing.T) {
	f := &fake{has: map[string][]string{first: {"signed", "unsigned"}}, signed: []string{"signed"}}
	find, log := finder(f)
	for name, test := range map[string]struct {
		address string
		signed  bool
		want    []string
	}{
		"with a key":         {first, true, []string{"signed"}},
		"without a key":      {first, false, []string{"signed", "unsigned"}},
		"without an address": {"", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := find.Destination(t.Context(), "ours", test.address, test.signed, []string{"signed", "unsigned"})
			if have := names(got.Has); !slices.Equal(have, test.want) || got.Name != "at ours" || len(*log) > 0 {
				t.Errorf("%q has %q, with the warnings %q; want %q", got.Name, have, *log, test.want)
			}
		})
	}
}

// Questions to the same substituters go to one inquiry, and none stays open.
func TestOneInquiry(t *testing.T) {
	f := &fake{has: map[string][]string{first: {"a"}}}
	find, _ := finder(f, first)
	for range 3 {
		if _, err := find.Offered(t.Context(), []string{"a", "b"}); err != nil || f.open != 1 {
			t.Errorf("%d are open, %v", f.open, err)
		}
	}
	find.Substituted(t.Context(), []string{"a"})
	if find.Destination(t.Context(), "ours", second, false, []string{"a"}); f.open != 1 || f.asked[first] != 4 || f.asked[second] != 1 {
		t.Errorf("%d are open, asked %v", f.open, f.asked)
	}
	f.err = errors.New("it broke")
	if _, err := find.Offered(t.Context(), []string{"a"}); err == nil || f.open != 0 {
		t.Errorf("after an error, %d are open, %v", f.open, err)
	}
	f.err = nil
	if _, err := find.Offered(t.Context(), []string{"a"}); err != nil || f.open != 1 {
		t.Errorf("then, %d are open, %v", f.open, err)
	}
	find.Close()
	if find.Close(); f.open != 0 {
		t.Errorf("at the end, %d are open", f.open)
	}
}

// Of very many paths, only the first few are checked for contents.
func TestUndelivered(t *testing.T) {
	paths := make([]string, maxDelivered+1)
	for i := range paths {
		paths[i] = "lost"
	}
	find, _ := finder(&fake{lost: []string{"lost"}})
	if lost, err := find.Undelivered(t.Context(), paths, first); err != nil || len(lost) != maxDelivered {
		t.Errorf("%d are lost, %v", len(lost), err)
	}
}

// Outputs of targets count at a substituter only if their signatures were checked; all other places
// count for each path.
func TestSources(t *testing.T) {
	f := &fake{has: map[string][]string{first: {"own", "signed", "dependency"}}}
	find, _ := finder(f, first)
	all := []string{"own", "signed", "dependency", "valid", "saved", "absent", "own-valid"}
	s := &Sources{
		Finder: find,
		Store:  place("valid", "own-valid"),
		Saved:  []Saved{place(), place("saved")},
		Own:    []string{"own", "signed", "own-valid"},
		Signed: map[string]bool{"signed": true},
	}
	got, err := s.Offered(t.Context(), all)
	if diff := cmp.Diff([]string{"dependency", "own-valid", "saved", "signed", "valid"}, names(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	f.err = errors.New("it broke")
	f.has = nil
	got, err = s.Offered(t.Context(), all)
	if diff := cmp.Diff([]string{"own-valid", "saved", "signed", "valid"}, names(got)); diff != "" || !errors.Is(err, f.err) {
		t.Error(diff, err)
	}
	s.Finder = nil
	if got, err := s.Offered(t.Context(), all); err != nil || len(names(got)) != 4 {
		t.Errorf("without substituters: %v, %v", got, err)
	}
	s.Store = broken{}
	if got, err := s.Offered(t.Context(), all); err == nil {
		t.Errorf("with a store that cannot be read: %v", got)
	}
}

// places are a store, or an index of packs.
type places map[string]bool

func place(paths ...string) places {
	p := places{}
	for _, path := range paths {
		p[path] = true
	}
	return p
}

func (p places) Has(path string) bool { return p[path] }

func (p places) Valid(_ context.Context, paths ...string) (map[string]bool, error) {
	return without(paths, func(path string) bool { return !p[path] }), nil
}

type broken struct{}

func (broken) Valid(context.Context, ...string) (map[string]bool, error) {
	return nil, errors.New("it broke")
}
