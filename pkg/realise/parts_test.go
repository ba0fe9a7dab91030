package realise

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

func wanted(names ...string) []job.Wanted {
	var all []job.Wanted
	for _, name := range names {
		all = append(all, job.Wanted{DrvPath: drvPath(name), Outputs: []string{"out"}})
	}
	return all
}

// start begins a build of two hosts that share a kernel and a service, and each have an own part.
func start(t *testing.T, s *store, o Options) *Build {
	s.inputs = map[string][]string{
		"a": {"kernel", "service", "own-a", "offered"}, "b": {"kernel", "own-b"}, "service": {"library"}, "kernel": {"compiler"},
	}
	if s.valid == nil {
		s.valid = map[string]bool{}
	}
	s.fetched = map[string]bool{"offered": true}
	if o.Emit == nil {
		o.Emit = func(nix.Event) {}
	}
	return Start(t.Context(), s, []Target{target(0, "a"), target(1, "b")}, o)
}

func part(t *testing.T, b *Build, names ...string) (bool, []job.Failure) {
	t.Helper()
	done, failures, err := b.Part(t.Context(), wanted(names...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return done, failures
}

func finish(t *testing.T, b *Build) *Outcome {
	t.Helper()
	got, err := b.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func outcomeOf(of *Outcome) map[string]job.Outcome {
	all := map[string]job.Outcome{}
	for _, t := range of.Targets {
		all[t.Attr] = t.Outcome
	}
	return all
}

// Parts are built once, and count as builds of the whole: also a target that a part had.
func TestParts(t *testing.T) {
	s := &store{}
	b := start(t, s, Options{})
	for _, name := range []string{"kernel", "b"} {
		if done, failures := part(t, b, name); !done || len(failures) > 0 {
			t.Errorf("%s: %v, %v", name, done, failures)
		}
	}
	got := finish(t, b)
	if diff := cmp.Diff(map[string]job.Outcome{"a": job.OutcomeBuilt, "b": job.OutcomeBuilt}, outcomeOf(got)); diff != "" {
		t.Error(diff)
	}
	for name, tries := range s.tries {
		if tries != 1 {
			t.Errorf("%s was built %d times", name, tries)
		}
	}
	if len(got.Builds) != 8 {
		t.Errorf("%d builds", len(got.Builds))
	}
}

// Outputs that another job has made between the start and the end are fetched.
func TestPartsTaken(t *testing.T) {
	s := &store{}
	b := start(t, s, Options{})
	s.valid[outPath("b")] = true
	if got := outcomeOf(finish(t, b)); got["b"] != job.OutcomeFetched || got["a"] != job.OutcomeBuilt {
		t.Error(got)
	}
}

// A derivation that failed in a part is not tried again; what needs it fails because of it, and
// everything else is built.
func TestPartFails(t *testing.T) {
	for _, fast := range []bool{false, true} {
		s := &store{fails: map[string]string{"compiler": "builder for '" + drvPath("compiler") + "' failed"}}
		b := start(t, s, Options{FailFast: fast})
		done, failures := part(t, b, "kernel")
		if done || len(failures) != 1 || failures[0].DrvPath != drvPath("compiler") || len(failures[0].Log) == 0 {
			t.Errorf("%v, %v", done, failures)
		}
		if done, failures := part(t, b, "service"); !done || len(failures) > 0 {
			t.Errorf("service: %v, %v", done, failures)
		}
		got := finish(t, b)
		for _, target := range got.Targets {
			if target.Outcome != job.OutcomeFailed || target.Cause != drvPath("compiler") {
				t.Errorf("%s: %s because of %s", target.Attr, target.Outcome, target.Cause)
			}
		}
		want := map[string]int{"compiler": 1, "service": 1, "library": 1}
		if !fast {
			want["own-a"], want["own-b"] = 1, 1
		}
		if diff := cmp.Diff(want, s.tries); diff != "" {
			t.Error(diff)
		}
	}
}

// A derivation that failed in another job is not tried here at all, and its failure says where it was.
func TestBlock(t *testing.T) {
	s := &store{}
	b := start(t, s, Options{})
	b.Block(job.Failure{DrvPath: drvPath("compiler"), Error: "builder failed", Entry: "c", URL: "https://example.org/job/1"})
	got := finish(t, b)
	if s.tries["compiler"] > 0 || s.tries["kernel"] > 0 || s.tries["own-b"] != 1 {
		t.Error(s.tries)
	}
	if len(got.Failures) != 1 || got.Failures[0].Entry != "c" || got.Failures[0].URL == "" {
		t.Error(got.Failures)
	}
	for _, target := range got.Targets {
		if target.Outcome != job.OutcomeFailed || target.Error != "builder failed" {
			t.Errorf("%s: %s, %s", target.Attr, target.Outcome, target.Error)
		}
	}
}

// A derivation that failed in another job and is in the store all the same blocks nothing.
func TestBlockValid(t *testing.T) {
	s := &store{valid: map[string]bool{outPath("compiler"): true}}
	b := start(t, s, Options{})
	b.Block(job.Failure{DrvPath: drvPath("compiler"), Error: "builder failed", Entry: "c"})
	if got := outcomeOf(finish(t, b)); got["a"] != job.OutcomeBuilt || got["b"] != job.OutcomeBuilt {
		t.Error(got)
	}
}

// The rest is what needs none of the units that other jobs build; it is tried once.
func TestRest(t *testing.T) {
	s := &store{fails: map[string]string{"own-a": "builder for '" + drvPath("own-a") + "' failed"}}
	b := start(t, s, Options{})
	open := map[string]bool{drvPath("kernel"): true, drvPath("library"): true}
	for i, want := range []bool{true, false} {
		if built, err := b.Rest(t.Context(), open); err != nil || built != want {
			t.Errorf("rest %d: %v, %v", i, built, err)
		}
	}
	want := map[string]int{"own-a": 1, "own-b": 1}
	if diff := cmp.Diff(want, s.tries); diff != "" {
		t.Error(diff)
	}
	if built, err := b.Rest(t.Context(), map[string]bool{drvPath("kernel"): true}); !built || err != nil || s.tries["service"] != 1 {
		t.Errorf("%v, %v, %v", built, err, s.tries)
	}
	if got := outcomeOf(finish(t, b)); got["a"] != job.OutcomeFailed || got["b"] != job.OutcomeBuilt || s.tries["own-a"] != 1 {
		t.Error(got, s.tries)
	}
}

// A later build of the same job leaves the logs of the earlier one alone.
func TestKeepLogs(t *testing.T) {
	dir := t.TempDir()
	s := &store{valid: map[string]bool{}, fails: map[string]string{"bad": failed("bad"), "worse": failed("worse")}}
	for i, name := range []string{"bad", "good", "worse"} {
		if _, err := Run(t.Context(), s, targetsOf(name), Options{Emit: func(nix.Event) {}, Logs: dir, KeepLogs: i > 0}); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("logs: %q", got)
	}
}

// Output paths that the caller knows are not asked for.
func TestPartKnowsItsPaths(t *testing.T) {
	s := &store{}
	b := start(t, s, Options{})
	s.broken = map[string]error{"Outputs": errors.New("it is asked")}
	w := wanted("kernel")
	done, failures, err := b.Part(t.Context(), w, map[string]map[string]string{w[0].DrvPath: {"out": outPath("kernel")}})
	if !done || len(failures) > 0 || err != nil {
		t.Errorf("%v, %+v, %v", done, failures, err)
	}
}
