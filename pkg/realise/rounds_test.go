package realise

import (
	"context"
	"errors"

	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// ending is a store that ends early: at the derivations of ends, with the message, after events
// for the start and end of the builds in beside, unless those were built before.
type ending struct {
	store
	ends    map[string]string // by name
	beside  []string
	keeps   bool           // it goes on when a build fails
	heals   map[string]int // by name: it ends so often, 0 is always
	ended   map[string]int // by name
	rounds  []string       // what was asked for, by name
	pending []string       // names that ToBuild was asked for
}

func (s *ending) ToBuild(ctx context.Context, outputs []string) ([]string, error) {
	s.pending = append(s.pending, strings.Join(namesOf(outputs), " "))
	return s.store.ToBuild(ctx, outputs)
}

func namesOf(outputs []string) []string {
	var all []string
	for _, o := range outputs {
		drv, _, _ := strings.Cut(o, "!")
		all = append(all, nameOf(drv))
	}
	return all
}

func (s *ending) Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error {
	s.rounds = append(s.rounds, strings.Join(namesOf(outputs), " "))
	todo, err := s.store.ToBuild(ctx, outputs)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(todo, func(drv string) bool { return s.endsAt(nameOf(drv)) }) {
		for _, name := range s.beside {
			if slices.Contains(todo, drvPath(name)) {
				emit(nix.Event{Kind: nix.BuildStarted, Path: drvPath(name), Time: time.Now()})
				emit(nix.Event{Kind: nix.BuildStopped, Path: drvPath(name), Time: time.Now()})
			}
		}
	}
	failed := false
	for _, name := range namesOf(outputs) {
		good, ended := s.try(name, emit)
		if ended {
			return errors.New("nix-store ended")
		}
		failed = failed || !good
	}
	if failed {
		return errors.New("some failed")
	}
	return nil
}

func (s *ending) endsAt(name string) bool {
	return s.ends[name] != "" && (s.heals[name] == 0 || s.ended[name] < s.heals[name])
}

// try builds a derivation, until the store ends.
func (s *ending) try(name string, emit func(nix.Event)) (good, ended bool) {
	if s.valid[outPath(name)] || s.fetched[name] {
		return true, false
	}
	for _, input := range s.inputs[name] {
		if good, ended := s.try(input, emit); !good {
			return false, ended || !s.keeps
		}
	}
	if s.endsAt(name) {
		s.ended[name]++
		emit(nix.Event{Kind: nix.BuildStarted, Path: drvPath(name), Time: time.Now()})
		emit(nix.Event{Kind: nix.ErrorMessage, Text: s.ends[name], Time: time.Now()})
		return false, true
	}
	if s.realise(name, emit) {
		return true, false
	}
	return false, !s.keeps
}

// If Nix ends with a cause that it names, that failed; else the derivation at which it ends.
// All others are built, and no failed derivation is retried.
func TestEnds(t *testing.T) {
	socket := func(name string) string { return "file '" + outPath(name) + "/x' has an unsupported type" }
	const hook = "program '/etc/nix/hook' failed with exit code 3"
	for _, test := range []struct {
		what     string
		store    ending
		targets  []string
		rounds   []string
		outcomes string
		causes   map[string]string // by target
		errors   map[string]string // likewise, of those without causes
		builds   string
		tries    map[string]int
		paused   time.Duration
	}{
		{
			what: "by an output",
			store: ending{
				store: store{inputs: map[string][]string{"host": {"socket", "part"}, "other": {"lib"}}},
				ends:  map[string]string{"socket": socket("socket")}, beside: []string{"lib", "part"}, keeps: true,
			},
			targets:  []string{"host", "other"},
			rounds:   []string{"host other", "part other"},
			outcomes: "failed built",
			causes:   map[string]string{"host": "socket"},
			builds:   "socket! part lib other",
			tries:    map[string]int{"part": 1, "lib": 1, "other": 1},
		},
		{
			what: "by two outputs",
			store: ending{
				store: store{inputs: map[string][]string{"host": {"a", "b", "c"}}},
				ends:  map[string]string{"a": socket("a"), "b": socket("b")}, beside: []string{"c"}, keeps: true,
			},
			targets:  []string{"host"},
			rounds:   []string{"host", "b c", "c"},
			outcomes: "failed",
			causes:   map[string]string{"host": "a b"},
			builds:   "a! b! c",
			tries:    map[string]int{"c": 1},
		},
		{
			what: "for something that passes",
			store: ending{
				store: store{inputs: map[string][]string{"host": {"lib"}}},
				ends:  map[string]string{"lib": "unexpected end-of-file"}, heals: map[string]int{"lib": 2}, beside: []string{"host"}, keeps: true,
			},
			targets:  []string{"host"},
			rounds:   []string{"host", "host", "host"},
			outcomes: "built",
			builds:   "lib host",
			paused:   25 * time.Second,
		},
		{
			what: "for one of many, which has no name",
			store: ending{
				ends: map[string]string{"d": hook}, keeps: true, beside: []string{"e"},
			},
			targets: []string{"a", "b", "c", "d", "e"},
			rounds: []string{
				"a b c d e", "d e", // something was built
				"d e", "d e", // after the pauses
				"d", "e",
			},
			outcomes: "built built built failed built",
			errors:   map[string]string{"d": hook},
			builds:   "a b c e",
			paused:   25 * time.Second,
		},
		{
			what:     "for all",
			store:    ending{ends: map[string]string{"a": hook, "b": hook, "c": hook}, keeps: true},
			targets:  []string{"a", "b", "c"},
			rounds:   []string{"a b c", "a b c", "a b c", "a b", "a", "b", "c"},
			outcomes: "failed failed failed",
			errors:   map[string]string{"a": hook, "b": hook, "c": hook},
			paused:   25 * time.Second,
		},
		{
			what:     "for want of room",
			store:    ending{ends: map[string]string{"a": "writing to file: No space left on device"}, keeps: true},
			targets:  []string{"a", "b"},
			rounds:   []string{"a b"},
			outcomes: "failed failed",
			errors: map[string]string{
				"a": "writing to file: No space left on device\n" + hints[0].text, "b": "writing to file: No space left on device\n" + hints[0].text,
			},
		},
		{
			what: "at the first failure, as a remote store",
			store: ending{
				store: store{
					inputs: map[string][]string{"host": {"bad", "part", "worse"}, "worse": {"lib"}, "late": {"lib"}},
					fails:  map[string]string{"bad": failed("bad"), "worse": failed("worse")},
				},
			},
			targets:  []string{"host", "late"},
			rounds:   []string{"host late", "part worse late", "late"},
			outcomes: "failed built",
			causes:   map[string]string{"host": "bad worse"},
			builds:   "bad! part lib worse! late",
			tries:    map[string]int{"bad": 1, "worse": 1, "part": 1, "lib": 1, "late": 1},
		},
		{
			what: "and what can be fetched is not built, nor what it would need",
			store: ending{
				store: store{
					inputs:  map[string][]string{"host": {"bad", "tool"}, "tool": {"bad", "compiler"}},
					fetched: map[string]bool{"tool": true}, fails: map[string]string{"bad": failed("bad")},
				},
			},
			targets:  []string{"host"},
			rounds:   []string{"host"},
			outcomes: "failed",
			causes:   map[string]string{"host": "bad"},
			builds:   "bad!",
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &test.store
				s.valid, s.ended = map[string]bool{}, map[string]int{}
				start := time.Now()
				got, err := Run(t.Context(), s, targetsOf(test.targets...), Options{Emit: func(nix.Event) {}, Retries: pauses, Remote: !s.keeps})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.rounds, s.rounds); diff != "" {
					t.Errorf("asked for:\n%s", diff)
				}
				if got := outcomes(got); got != test.outcomes {
					t.Errorf("outcomes: %s, want %s", got, test.outcomes)
				}
				if got := builds(got); got != test.builds {
					t.Errorf("builds: %s, want %s", got, test.builds)
				}
				for name, tries := range test.tries {
					if s.tries[name] != tries {
						t.Errorf("%s was built %d times", name, s.tries[name])
					}
				}
				for _, r := range got.Targets {
					if got := strings.Join(names(r.Causes), " "); got != test.causes[r.Attr] {
						t.Errorf("%s: by %s, want %s", r.Attr, got, test.causes[r.Attr])
					}
					if want := test.errors[r.Attr]; want != "" && r.Error != want {
						t.Errorf("%s: %s", r.Attr, r.Error)
					}
				}
				if paused := time.Since(start); paused != test.paused {
					t.Errorf("it paused for %v, want %v", paused, test.paused)
				}
			})
		})
	}
}
