package realise

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A target's time is that in which derivations or paths that it needs are built or fetched, not
// that of others.
func TestOwnTime(t *testing.T) {
	long := func(lines int) []string { return make([]string, lines-1) } // a second each, and one for the end
	s := &store{
		inputs:   map[string][]string{"host": {"base", "lib"}, "other": {"base"}, "last": {"float"}, "user": {"bad"}},
		valid:    map[string]bool{outPath("there"): true},
		fetched:  map[string]bool{"lib": true, "offered": true},
		fails:    map[string]string{"bad": "builder for '" + drvPath("bad") + "' failed with exit code 2"},
		floating: map[string]bool{"float": true, "last": true},
		lines:    map[string][]string{"base": long(100), "host": long(20), "other": long(3), "float": long(40), "last": long(2), "bad": long(7)},
	}
	names := []string{"host", "other", "there", "offered", "last", "user"}
	run := func(names ...string) map[string]float64 {
		var targets []Target
		for i, name := range names {
			targets = append(targets, target(i, name))
		}
		got, err := Run(t.Context(), s, targets, Options{Emit: func(nix.Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		seconds := map[string]float64{}
		for _, r := range got.Targets {
			seconds[r.Attr] = r.Seconds
		}
		return seconds
	}
	want := map[string]float64{"host": 100 + 1 + 20, "other": 100 + 3, "there": 0, "offered": 1, "last": 40 + 2, "user": 7}
	if diff := cmp.Diff(want, run(names...)); diff != "" {
		t.Error(diff)
	}
	delete(s.valid, outPath("other"))
	if diff := cmp.Diff(map[string]float64{"other": 3}, run("other")); diff != "" {
		t.Error(diff)
	}
}

func TestCovered(t *testing.T) {
	begin := time.Now()
	w := newWatch()
	at := func(second int, kind nix.EventKind, path string) {
		w.see(nix.Event{Kind: kind, Path: path, Time: begin.Add(time.Duration(second) * time.Second)}, false)
	}
	at(0, nix.BuildStarted, drvPath("a"))
	at(1, nix.FetchStarted, outPath("b"))
	at(3, nix.BuildStopped, drvPath("a"))
	at(5, nix.FetchStopped, outPath("b"))
	at(8, nix.BuildStarted, drvPath("a"))
	at(9, nix.BuildStopped, drvPath("a"))
	at(20, nix.BuildStarted, drvPath("c"))
	spans := w.spansUntil(begin.Add(30 * time.Second))
	for names, want := range map[string]int{"": 0, "a": 4, "b": 4, "ab": 6, "c": 10, "abc": 16} {
		t.Run(names, func(t *testing.T) {
			got := covered(spans, func(path string) bool {
				for _, name := range names {
					if job.DrvName(path) == string(name) {
						return true
					}
				}
				return false
			})
			if got != time.Duration(want)*time.Second {
				t.Errorf("%v", got)
			}
		})
	}
}
