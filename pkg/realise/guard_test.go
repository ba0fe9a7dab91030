package realise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// building is a store in which a script builds each requested derivation after its
// dependencies, one after the other. A word of the script is a line of the log, with _ for
// spaces; "wait" takes a minute.
type building struct {
	store
	scripts map[string]string // by name
	rounds  []string
	failed  map[string]bool // in this round, by name
}

func (s *building) Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error {
	s.failed = map[string]bool{}
	s.rounds = append(s.rounds, strings.Join(namesOf(outputs), " "))
	failed := false
	for _, name := range namesOf(outputs) {
		failed = !s.run(ctx, name, emit) || failed
	}
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case failed:
		return errors.New("some failed")
	}
	return nil
}

func (s *building) run(ctx context.Context, name string, emit func(nix.Event)) bool {
	good := true
	for _, input := range s.inputs[name] {
		good = s.run(ctx, input, emit) && good
	}
	if s.valid[outPath(name)] {
		return true
	}
	if ctx.Err() != nil || !good || s.failed[name] {
		return false
	}
	drv := drvPath(name)
	emit(nix.Event{Kind: nix.BuildStarted, Path: drv, Time: time.Now()})
	for line := range strings.FieldsSeq(s.scripts[name]) {
		if line != "wait" {
			emit(nix.Event{Kind: nix.BuildLine, Path: drv, Text: strings.ReplaceAll(line, "_", " "), Time: time.Now()})
			continue
		}
		if !sleep(ctx, time.Minute) {
			break
		}
	}
	if ctx.Err() != nil {
		return false // without a word
	}
	emit(nix.Event{Kind: nix.BuildStopped, Path: drv, Time: time.Now()})
	if message := s.fails[name]; message != "" {
		emit(nix.Event{Kind: nix.ErrorMessage, Text: message, Time: time.Now()})
		s.failed[name] = true
		return false
	}
	s.valid[outPath(name)] = true
	return true
}

// A silent builder of a remote store is stopped, and nothing else is lost.
func TestSilence(t *testing.T) {
	for _, test := range []struct {
		what     string
		silence  time.Duration
		mute     string
		outcomes string
		rounds   []string
	}{
		{"too long", 2 * time.Minute, "one wait wait wait", "built failed built", []string{"first mute after", "after"}},
		{"from the beginning", 2 * time.Minute, "wait wait wait", "built failed built", []string{"first mute after", "after"}},
		{"not too long", 2 * time.Minute, "one wait two wait three wait", "built built built", []string{"first mute after"}},
		{"without a limit", 0, "wait wait wait wait", "built built built", []string{"first mute after"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &building{store: store{valid: map[string]bool{}}, scripts: map[string]string{"mute": test.mute, "first": "wait x wait", "after": "x"}}
				var errs []string
				got, err := Run(t.Context(), s, targetsOf("first", "mute", "after"), Options{Remote: true, Silence: test.silence, Emit: func(e nix.Event) {
					if e.Kind == nix.ErrorMessage {
						errs = append(errs, e.Text)
					}
				}})
				if err != nil || outcomes(got) != test.outcomes {
					t.Errorf("%s, %v", outcomes(got), err)
				}
				if diff := cmp.Diff(test.rounds, s.rounds); diff != "" {
					t.Errorf("asked for:\n%s", diff)
				}
				r := got.Targets[1]
				if r.Outcome.OK() {
					return
				}
				want := "building of '" + drvPath("mute") + "' timed out after 120 seconds of silence"
				if r.Cause != drvPath("mute") || !strings.HasPrefix(r.Error, want+"\n"+hintTime) || len(errs) != 1 || errs[0] != want {
					t.Errorf("by %s: %s; it told %q", r.Cause, r.Error, errs)
				}
				if got := builds(got); got != "first mute! after" {
					t.Errorf("builds: %s", got)
				}
			})
		})
	}
}

// A target that cannot be built any more is reported at once. Its other dependencies are built,
// unless fail_fast is set; then only those that other targets need.
func TestHopeless(t *testing.T) {
	for _, test := range []struct {
		what     string
		targets  []string
		inputs   map[string][]string
		failFast bool
		warned   []string
		rounds   []string
		builds   string
		outcomes string
	}{
		{
			what: "all goes on", targets: []string{"host"}, inputs: map[string][]string{"host": {"bad", "long"}},
			warned: []string{"cannot build host any more: bad failed; everything else that is needed is still built"},
			rounds: []string{"host"}, builds: "bad! long", outcomes: "failed",
		},
		{
			what: "the only target", targets: []string{"host"}, inputs: map[string][]string{"host": {"bad", "long"}}, failFast: true,
			warned: []string{"cannot build host any more: bad failed; the build ends with the other targets"},
			rounds: []string{"host"}, builds: "bad!", outcomes: "failed",
		},
		{
			what: "others come first", targets: []string{"host", "good"}, inputs: map[string][]string{"host": {"bad", "lib", "long"}, "good": {"lib"}}, failFast: true,
			warned: []string{"cannot build host any more: bad failed; the build ends with the other targets"},
			rounds: []string{"host good"}, builds: "bad! lib long good", outcomes: "failed built",
		},
		{
			what: "others are done", targets: []string{"good", "host"}, inputs: map[string][]string{"host": {"bad", "long"}}, failFast: true,
			warned: []string{"cannot build host any more: bad failed; the build ends with the other targets"},
			rounds: []string{"good host"}, builds: "good bad!", outcomes: "built failed",
		},
		{
			what: "others are done later", targets: []string{"host", "good", "user"},
			inputs: map[string][]string{"host": {"bad"}, "user": {"bad", "long"}}, failFast: true,
			warned: []string{"cannot build host, user any more: bad failed; the build ends with the other targets"},
			rounds: []string{"host good user"}, builds: "bad! good", outcomes: "failed built failed",
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &building{store: store{valid: map[string]bool{}, inputs: test.inputs, fails: map[string]string{"bad": failed("bad")}}, scripts: map[string]string{"long": "wait wait"}}
				var warned []string
				got, err := Run(t.Context(), s, targetsOf(test.targets...), Options{
					Emit: func(nix.Event) {}, Warn: func(text string) { warned = append(warned, text) }, FailFast: test.failFast,
				})
				if err != nil || outcomes(got) != test.outcomes {
					t.Errorf("%s, %v", outcomes(got), err)
				}
				if got := builds(got); got != test.builds {
					t.Errorf("builds: %s, want %s", got, test.builds)
				}
				if diff := cmp.Diff(test.warned, warned); diff != "" {
					t.Errorf("told:\n%s", diff)
				}
				if diff := cmp.Diff(test.rounds, s.rounds); diff != "" {
					t.Errorf("asked for:\n%s", diff)
				}
			})
		})
	}
}

// from is a store with derivations that fetch from hosts.
type from struct {
	building
	hosts map[string]string // by name
}

func (s *from) Derivation(path string) (*derivation.Derivation, error) {
	d, err := s.store.Derivation(path)
	if host := s.hosts[nameOf(path)]; host != "" {
		d.Env = map[string]string{"urls": "https://" + host + "/" + nameOf(path) + " mirror://other/x"}
		d.Outputs["out"].HashAlgorithm, d.Outputs["out"].Hash = "sha256", "00"
	}
	return d, err
}

// Only a few files are requested from a host that does not answer.
func TestDeadHost(t *testing.T) {
	const many = 20
	setUp := func() *from {
		s := &from{building: building{store: store{valid: map[string]bool{}, inputs: map[string][]string{}, fails: map[string]string{}}, scripts: map[string]string{}}, hosts: map[string]string{}}
		for i := range many {
			name := fmt.Sprintf("src%02d", i)
			s.inputs["host"] = append(s.inputs["host"], name)
			s.hosts[name] = "dead.example.org"
			s.fails[name] = failed(name)
			s.scripts[name] = "trying_https://dead.example.org/" + name + " curl:_(6)_Could_not_resolve_host_after_17_ms"
		}
		return s
	}
	for _, test := range []struct {
		what    string
		change  func(s *from)
		targets []string
		tried   int // downloads
		want    string
		rounds  []string
	}{
		{"does not answer", func(*from) {}, []string{"host"}, 3 * maxSameFailures, "failed", []string{"host", "host", "host"}},
		{"answers later", func(s *from) {
			s.stop = "heal"
		}, []string{"host"}, maxSameFailures + many, "built", []string{"host", "host"}},
		{"does not have the files", func(s *from) {
			for name := range s.scripts {
				s.scripts[name] = "curl:_(22)_The_requested_URL_returned_error:_404"
			}
		}, []string{"host"}, 3 * many, "failed", []string{"host", "host", "host"}},
		{"is one of many", func(s *from) {
			for i, name := range s.inputs["host"] {
				s.hosts[name] = fmt.Sprintf("host%d.example.org", i)
			}
		}, []string{"host"}, 3 * many, "failed", []string{"host", "host", "host"}},
		{"is not known", func(s *from) {
			for _, name := range s.inputs["host"] {
				s.fixed = map[string]bool{name: true}
				delete(s.hosts, name)
			}
		}, []string{"host"}, many, "failed", []string{"host"}}, // all but the last are no downloads
		{"is not all that is needed", func(s *from) {
			s.inputs["other"] = []string{"lib"}
		}, []string{"host", "other"}, 3 * maxSameFailures, "failed built", []string{"host other", "other", "host", "host"}},
		{"has something else that is needed", func(s *from) {
			s.inputs["other"] = []string{"src19"}
		}, []string{"host", "other"}, 3 * maxSameFailures, "failed failed", []string{"host other", "host other", "host other"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := setUp()
				test.change(s)
				tried := 0
				var warned []string
				got, err := Run(t.Context(), s, targetsOf(test.targets...), Options{
					Retries: pauses, Retrying: func([]string, time.Duration) {
						if s.stop == "heal" {
							s.fails = nil
						}
					},
					Warn: func(text string) { warned = append(warned, text) },
					Emit: func(e nix.Event) {
						if e.Kind == nix.BuildStopped && strings.Contains(e.Path, "-src") {
							tried++
						}
					},
				})
				if err != nil || outcomes(got) != test.want || tried != test.tried {
					t.Errorf("%s, %v, after %d downloads", outcomes(got), err, tried)
				}
				if diff := cmp.Diff(test.rounds, s.rounds); diff != "" {
					t.Errorf("asked for:\n%s", diff)
				}
				const how = "5 downloads from dead.example.org failed in the same way"
				gaveUp := strings.Contains(strings.Join(warned, "\n"), how+" (curl: (6) Could not resolve host")
				if gaveUp != (test.tried == 3*maxSameFailures || test.want == "built") {
					t.Errorf("told: %q", warned)
				}
				for _, r := range got.Targets {
					if r.Attr == "other" && r.Outcome == job.OutcomeFailed && !strings.HasPrefix(r.Error, "cannot fetch everything from dead.example.org: 5 downloads failed in the same way: curl: (6) Could not resolve host") {
						t.Errorf("other: %s", r.Error)
					}
				}
			})
		})
	}
}

// lossy is a store whose substituter has lost a path that it lists: lib is built then.
type lossy struct{ building }

func (s *lossy) Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error {
	emit(nix.Event{Kind: nix.FetchStarted, Path: outPath("lib"), Time: time.Now()})
	emit(nix.Event{Kind: nix.FetchStopped, Path: outPath("lib"), Time: time.Now()})
	emit(nix.Event{Kind: nix.ErrorMessage, Text: "unable to download " + outPath("lib"), Time: time.Now()})
	emit(nix.Event{Kind: nix.ErrorMessage, Text: "some substitutes for the outputs of derivation '" + drvPath("lib") + "' failed", Time: time.Now()})
	return s.building.Realise(ctx, outputs, emit)
}

// A derivation whose outputs could not be fetched is built.
func TestLostContents(t *testing.T) {
	s := &lossy{building{store: store{valid: map[string]bool{}, inputs: map[string][]string{"host": {"lib"}}}}}
	got, err := Run(t.Context(), s, targetsOf("host"), Options{
		Emit: func(nix.Event) {}, FailFast: true, Warn: func(text string) { t.Errorf("told: %s", text) },
	})
	if err != nil || outcomes(got) != "built" {
		t.Fatalf("%s, %v", outcomes(got), err)
	}
	if diff := cmp.Diff([]string{outPath("lib")}, got.Promised); diff != "" {
		t.Errorf("promised:\n%s", diff)
	}
}
