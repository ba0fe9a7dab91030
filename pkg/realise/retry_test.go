package realise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// failed returns the message of a builder that failed.
func failed(name string) string {
	return "builder for '" + drvPath(name) + "' failed with exit code 1"
}

var pauses = []time.Duration{5 * time.Second, 20 * time.Second}

// Failed downloads are retried; failed builds are not.
func TestRetries(t *testing.T) {
	for _, test := range []struct {
		what     string
		store    store
		targets  []string
		asked    string // how often is each target asked for
		tries    map[string]int
		retrying []string
		paused   time.Duration
		outcomes string
		builds   string
		cause    map[string]string // by target
	}{
		{
			what:     "it succeeds at once",
			store:    store{inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true}},
			targets:  []string{"host"},
			asked:    "host",
			tries:    map[string]int{"src": 1, "host": 1},
			outcomes: "built",
			builds:   "src host",
		},
		{
			what: "it succeeds then",
			store: store{
				inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src")}, succeeds: map[string]int{"src": 2},
			},
			targets:  []string{"host"},
			asked:    "host host",
			tries:    map[string]int{"src": 2, "host": 1},
			retrying: []string{"src 5s"},
			paused:   5 * time.Second,
			outcomes: "built",
			builds:   "src! src host",
		},
		{
			what: "it succeeds the last time",
			store: store{
				inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src")}, succeeds: map[string]int{"src": 3},
			},
			targets:  []string{"host"},
			asked:    "host host host",
			tries:    map[string]int{"src": 3, "host": 1},
			retrying: []string{"src 5s", "src 20s"},
			paused:   25 * time.Second,
			outcomes: "built",
			builds:   "src! src! src host",
		},
		{
			what:     "never",
			store:    store{inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true}, fails: map[string]string{"src": failed("src")}},
			targets:  []string{"host"},
			asked:    "host host host",
			tries:    map[string]int{"src": 3},
			retrying: []string{"src 5s", "src 20s"},
			paused:   25 * time.Second,
			outcomes: "failed",
			builds:   "src! src! src!",
			cause:    map[string]string{"host": "src"},
		},
		{
			what:     "it is a target itself",
			store:    store{fixed: map[string]bool{"src": true}, fails: map[string]string{"src": failed("src")}, succeeds: map[string]int{"src": 2}},
			targets:  []string{"src"},
			asked:    "src src",
			tries:    map[string]int{"src": 2},
			retrying: []string{"src 5s"},
			paused:   5 * time.Second,
			outcomes: "built",
			builds:   "src! src",
		},
		{
			what:     "it is no fetch",
			store:    store{inputs: map[string][]string{"host": {"lib"}}, fails: map[string]string{"lib": failed("lib")}},
			targets:  []string{"host"},
			asked:    "host",
			tries:    map[string]int{"lib": 1},
			outcomes: "failed",
			builds:   "lib!",
			cause:    map[string]string{"host": "lib"},
		},
		{
			what: "something else failed too",
			store: store{
				inputs: map[string][]string{"host": {"src", "lib"}}, fixed: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src"), "lib": failed("lib")}, succeeds: map[string]int{"src": 2},
			},
			targets:  []string{"host"},
			asked:    "host",
			tries:    map[string]int{"src": 1, "lib": 1},
			outcomes: "failed",
			builds:   "src! lib!",
			cause:    map[string]string{"host": "src"},
		},
		{
			what: "two are fetched for three",
			store: store{
				inputs: map[string][]string{"a": {"src"}, "b": {"src", "more"}, "c": {"more"}}, fixed: map[string]bool{"src": true, "more": true},
				valid: map[string]bool{outPath("there"): true},
				fails: map[string]string{"src": failed("src"), "more": failed("more")}, succeeds: map[string]int{"src": 3, "more": 5},
			},
			targets: []string{"a", "there", "b", "c"},
			asked:   "a there b c a b c b c",
			// The stand-in retries for each derivation that needs it.
			tries:    map[string]int{"src": 3, "more": 5, "a": 1, "b": 1, "c": 1},
			retrying: []string{"src more 5s", "more 20s"},
			paused:   25 * time.Second,
			outcomes: "built present built built",
			builds:   "src! src! more! more! src a more! more! more b c",
		},
		{
			what: "then something else fails",
			store: store{
				inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src"), "host": failed("host")}, succeeds: map[string]int{"src": 2},
			},
			targets:  []string{"host"},
			asked:    "host host",
			tries:    map[string]int{"src": 2, "host": 1},
			retrying: []string{"src 5s"},
			paused:   5 * time.Second,
			outcomes: "failed",
			builds:   "src! src host!",
			cause:    map[string]string{"host": "host"},
		},
		{
			what: "others are let be",
			store: store{
				inputs: map[string][]string{"host": {"src"}, "user": {"lib"}, "good": {}}, fixed: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src"), "lib": failed("lib")}, succeeds: map[string]int{"src": 2},
			},
			targets:  []string{"good", "user", "host"},
			asked:    "good user host host",
			tries:    map[string]int{"src": 2, "lib": 1, "host": 1, "good": 1},
			retrying: []string{"src 5s"},
			paused:   5 * time.Second,
			outcomes: "built failed built",
			builds:   "good lib! src! src host",
			cause:    map[string]string{"user": "lib"},
		},
		{
			what: "its derivation can't be read",
			store: store{
				inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true}, gone: map[string]bool{"src": true},
				fails: map[string]string{"src": failed("src")},
			},
			targets:  []string{"host"},
			asked:    "host",
			tries:    map[string]int{"src": 1},
			outcomes: "failed",
			builds:   "src!",
			cause:    map[string]string{"host": "src"},
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &test.store
				if s.valid == nil {
					s.valid = map[string]bool{}
				}
				var retrying []string
				start := time.Now()
				got, err := Run(t.Context(), s, targetsOf(test.targets...), Options{
					Emit:    func(nix.Event) {},
					Retries: pauses,
					Retrying: func(drvs []string, pause time.Duration) {
						retrying = append(retrying, fmt.Sprintf("%s %v", strings.Join(names(drvs), " "), pause))
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.asked, strings.Join(askedFor(s), " ")); diff != "" {
					t.Errorf("asked for:\n%s", diff)
				}
				if diff := cmp.Diff(test.tries, s.tries); diff != "" {
					t.Errorf("tries:\n%s", diff)
				}
				if diff := cmp.Diff(test.retrying, retrying); diff != "" {
					t.Errorf("told:\n%s", diff)
				}
				if paused := time.Since(start); paused != test.paused {
					t.Errorf("it paused for %v, want %v", paused, test.paused)
				}
				if diff := cmp.Diff(test.outcomes, outcomes(got)); diff != "" {
					t.Errorf("outcomes:\n%s", diff)
				}
				if diff := cmp.Diff(test.builds, builds(got)); diff != "" {
					t.Errorf("builds:\n%s", diff)
				}
				for _, r := range got.Targets {
					cause, message := "", ""
					if name := test.cause[r.Attr]; name != "" {
						cause, message = drvPath(name), failed(name)
					}
					if r.Cause != cause || r.Error != message {
						t.Errorf("%s failed by %q, want %q: %s", r.Attr, r.Cause, cause, r.Error)
					}
				}
			})
		})
	}
}

func targetsOf(names ...string) []Target {
	var targets []Target
	for i, name := range names {
		targets = append(targets, target(i, name))
	}
	return targets
}

func names(drvs []string) []string {
	var names []string
	for _, drv := range drvs {
		names = append(names, nameOf(drv))
	}
	return names
}

func askedFor(s *store) []string {
	var asked []string
	for _, o := range s.asked {
		drv, _, _ := strings.Cut(o, "!")
		asked = append(asked, nameOf(drv))
	}
	return asked
}

func outcomes(o *Outcome) string {
	var all []string
	for _, r := range o.Targets {
		all = append(all, string(r.Outcome))
	}
	return strings.Join(all, " ")
}

// builds returns the builds, with a mark for each that failed.
func builds(o *Outcome) string {
	var all []string
	for _, b := range o.Builds {
		all = append(all, nameOf(b.DrvPath)+map[bool]string{true: "!"}[b.Failed])
	}
	return strings.Join(all, " ")
}

func TestNoRetries(t *testing.T) {
	s := &store{valid: map[string]bool{}, fixed: map[string]bool{"src": true}, fails: map[string]string{"src": failed("src")}}
	got, err := Run(t.Context(), s, targetsOf("src"), Options{Emit: func(nix.Event) {}})
	if err != nil || s.tries["src"] != 1 || outcomes(got) != "failed" {
		t.Errorf("%d tries, %s, %v", s.tries["src"], outcomes(got), err)
	}
}

// A hash mismatch, or a download that is too much for this machine, is not retried, whatever
// the wording of Nix's message.
func TestNoRetryOf(t *testing.T) {
	for _, version := range testbench.NixVersions {
		said := recordedFailures(t, version)
		for _, how := range []string{"alone", "daemon"} {
			for name, retried := range map[string]bool{
				"flat 0": false, "needsFlat 0": false, "recursive 0": false,
				"killed 0": false, "needsKilled 0": false,
				"full 0":   false, // which only its log says
				"silent 0": false, "needsSilent 0": false,
				"unfetched 0": true, "exits 0": true, "needsExits 0": true,
			} {
				synctest.Test(t, func(t *testing.T) {
					message := said[how+" "+name]
					if message == "" {
						t.Fatalf("%s: nothing is recorded of %s %s", version, how, name)
					}
					src := strings.ToLower(strings.TrimPrefix(strings.TrimSuffix(name, " 0"), "needs"))
					s := &store{
						valid: map[string]bool{}, fixed: map[string]bool{src: true}, inputs: map[string][]string{"host": {src}},
						fails: map[string]string{src: message}, succeeds: map[string]int{src: 2},
						lines: map[string][]string{"full": {"write error: No space left on device"}, "unfetched": {"curl: (28) Operation timed out after 30 seconds"}},
					}
					got, err := Run(t.Context(), s, targetsOf("host"), Options{
						Emit: func(nix.Event) {}, Retries: pauses[:1], Retrying: func([]string, time.Duration) {},
					})
					if err != nil {
						t.Fatal(err)
					}
					if (s.tries[src] == 2) != retried || outcomes(got) != map[bool]string{true: "built", false: "failed"}[retried] {
						t.Errorf("%s, %s %s: %d tries, %s", version, how, name, s.tries[src], outcomes(got))
					}
				})
			}
		}
	}
}

// A successful retry does not hide earlier failures of others.
func TestRetryKeepsOthers(t *testing.T) {
	for _, timedOut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			message := failed("lib")
			if timedOut { // and does not say what
				message = "timed out after 1 seconds"
			}
			s := &store{
				inputs: map[string][]string{"host": {"src"}, "user": {"lib"}}, fixed: map[string]bool{"src": true}, valid: map[string]bool{},
				fails: map[string]string{"src": failed("src"), "lib": message}, succeeds: map[string]int{"src": 2},
			}
			got, err := Run(t.Context(), s, targetsOf("user", "host"), Options{
				Emit: func(nix.Event) {}, Retries: pauses, Retrying: func([]string, time.Duration) {}, Logs: dir,
			})
			if err != nil {
				t.Fatal(err)
			}
			user := got.Targets[0]
			if outcomes(got) != "failed built" || user.Cause != drvPath("lib") || !strings.HasPrefix(user.Error, message) || len(user.Log) == 0 {
				t.Errorf("%s: %+v", outcomes(got), user)
			}
			if diff := cmp.Diff([]string{"00000000000000000000000000000000-lib.log"}, files(t, dir)); diff != "" {
				t.Errorf("its log:\n%s", diff)
			}
		})
	}
}

// The failure of a retried derivation is that of the last try.
func TestRetryTellsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{
			inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true}, valid: map[string]bool{},
			fails: map[string]string{"src": "error 1 of " + drvPath("src")},
		}
		got, err := Run(t.Context(), s, targetsOf("host"), Options{Emit: func(nix.Event) {}, Retries: pauses, Retrying: func([]string, time.Duration) {
			tries := s.tries["src"] + 1
			s.fails["src"] = fmt.Sprintf("error %d of %s", tries, drvPath("src"))
			s.lines = map[string][]string{"src": {fmt.Sprintf("try %d", tries)}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		r := got.Targets[0]
		if r.Error != "error 3 of "+drvPath("src") || !slices.Equal(r.Log, []string{"try 3"}) {
			t.Errorf("got %q, and the log %q", r.Error, r.Log)
		}
	})
}

// A store that cannot be queried is an error, and there is an Outcome nevertheless.
func TestStoreError(t *testing.T) {
	gone := errors.New("the store is gone")
	for _, method := range []string{"Valid", "Outputs"} {
		s := &store{
			valid: map[string]bool{}, fixed: map[string]bool{"src": true}, fails: map[string]string{"src": failed("src")},
			broken: map[string]error{method: gone},
		}
		got, err := Run(t.Context(), s, targetsOf("src", "other"), Options{Emit: func(nix.Event) {}, Retries: pauses})
		if !errors.Is(err, gone) || outcomes(got) != "failed failed" || s.tries["src"] > 1 {
			t.Errorf("%s: %v, %s", method, err, outcomes(got))
		}
		if method == "Outputs" && (!strings.Contains(err.Error(), "some failed") || len(got.Builds) != 2) {
			t.Errorf("%s: %v, of %d builds", method, err, len(got.Builds))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &store{broken: map[string]error{"Valid": ctx.Err()}}
	if got, err := Run(ctx, s, targetsOf("a"), Options{Emit: func(nix.Event) {}}); err == nil || got.Targets[0].Outcome != job.OutcomeCancelled {
		t.Errorf("%+v, %v", got.Targets, err)
	}
}

// files returns the names of the files in a directory, none if it does not exist.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
