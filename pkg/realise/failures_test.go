package realise

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

var storePath = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-([0-9a-zA-Z+._?=-]+)`)

// recordedFailures returns the messages of a version of Nix that pkg/nix has recorded, each
// under the way Nix was run, the case, and its number: "daemon exits 0". Their store paths are
// those of the stand-in.
func recordedFailures(t *testing.T, version string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", "failures-"+version))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, f := range archive.Files {
		said[f.Name] = storePath.ReplaceAllStringFunc(strings.TrimSuffix(string(f.Data), "\n"), func(path string) string {
			if name, ok := strings.CutSuffix(nameOf(path), ".drv"); ok || strings.HasSuffix(path, ".drv") {
				return drvPath(name)
			}
			return outPath(nameOf(path))
		})
	}
	return said
}

const (
	hintDisk    = "The disk is full."
	hintMemory  = "The builder was killed, most likely for want of memory"
	hintSystem  = "This machine builds other systems"
	hintFeature = "This machine lacks a feature"
	hintTime    = "The builder printed nothing for longer than max_silent_time"
)

// The cause of a target's failure by each of Nix's recorded messages, and the first and last
// lines about it.
func TestRecordedFailures(t *testing.T) {
	const zeros = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, test := range []struct {
		name, target string
		inputs       map[string][]string
		causes       []string // whose messages are there, the first of which is the cause
		refused      bool     // they were not begun
		old, new     string   // the first line, before and from Nix 2.30 on
		hint         string
		log          []string
	}{
		{name: "flat", old: "hash mismatch in DRV: wanted " + zeros + ", got sha256-fk+i64x6wIlznV3vxEifrWihANkggso1xrQKRSSCH4c="},
		{name: "recursive", old: "hash mismatch in DRV: wanted " + zeros + ", got sha256-Ym0yHYWVFHd+ZX9200fV10Dgw7phlALQXGWDeiDUqSI="},
		{name: "unfetched", old: "builder for 'DRV' failed with exit code 6", new: "builder failed with exit code 6: DRV"},
		{name: "exits", old: "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV"},
		{name: "mute", old: "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV"},
		{name: "killed", old: "builder for 'DRV' failed due to signal 9 (Killed)", new: "builder failed due to signal 9 (Killed): DRV", hint: hintMemory},
		{
			name: "full", old: "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV",
			hint: hintDisk, log: []string{"write error: No space left on device"},
		},
		{
			name: "without", old: "builder for 'DRV' failed to produce output path for output 'out' at '" + outPath("without") + "'",
			new: "builder for 'DRV' failed to produce output path for output 'out' at \"" + outPath("without") + "\"",
		},
		{name: "silent", old: "building of 'DRV!out' from .drv file timed out after 1 seconds of silence", new: "timed out after 1 seconds: DRV", hint: hintTime},
		{name: "floats", old: "builder for 'DRV' failed with exit code 3", new: "builder failed with exit code 3: DRV"},
		{
			name: "foreign", refused: true, hint: hintSystem, new: "platform mismatch: DRV",
			old: "a 'riscv64-linux' with features {} is required to build 'DRV', but I am a 'x86_64-linux' with features {benchmark, ca-derivations}",
		},
		{
			name: "feature", refused: true, hint: hintFeature, new: "missing system features: DRV",
			old: "a 'x86_64-linux' with features {no-such-feature} is required to build 'DRV', but I am a 'x86_64-linux' with features {benchmark, ca-derivations}",
		},
		{
			name: "needsExits", target: "needs-exits", inputs: map[string][]string{"needs-exits": {"exits"}}, causes: []string{"exits"},
			old: "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV",
		},
		{
			name: "farFromExits", target: "far-from-exits", causes: []string{"exits"},
			inputs: map[string][]string{"far-from-exits": {"needs-exits"}, "needs-exits": {"exits"}},
			old:    "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV",
		},
		{
			name: "needsTwo", target: "needs-two", inputs: map[string][]string{"needs-two": {"exits", "mute"}}, causes: []string{"exits", "mute"},
			old: "builder for 'DRV' failed with exit code 1", new: "builder failed with exit code 1: DRV",
		},
		{
			name: "needsFlat", target: "needs-flat", inputs: map[string][]string{"needs-flat": {"flat"}}, causes: []string{"flat"},
			old: "hash mismatch in DRV: wanted " + zeros + ", got sha256-fk+i64x6wIlznV3vxEifrWihANkggso1xrQKRSSCH4c=",
		},
		{
			name: "needsKilled", target: "needs-killed", inputs: map[string][]string{"needs-killed": {"killed"}}, causes: []string{"killed"}, hint: hintMemory,
			old: "builder for 'DRV' failed due to signal 9 (Killed)", new: "builder failed due to signal 9 (Killed): DRV",
		},
		{
			name: "needsSilent", target: "needs-silent", inputs: map[string][]string{"needs-silent": {"silent"}}, causes: []string{"silent"}, hint: hintTime,
			old: "building of 'DRV!out' from .drv file timed out after 1 seconds of silence", new: "timed out after 1 seconds: DRV",
		},
		{
			name: "needsForeign", target: "needs-foreign", inputs: map[string][]string{"needs-foreign": {"foreign"}}, causes: []string{"foreign"}, refused: true,
			old: "a 'riscv64-linux' with features {} is required to build 'DRV', but I am a 'x86_64-linux' with features {benchmark, ca-derivations}",
			new: "platform mismatch: DRV", hint: hintSystem,
		},
		{
			name: "needsFeature", target: "needs-feature", inputs: map[string][]string{"needs-feature": {"feature"}}, causes: []string{"feature"}, refused: true,
			old: "a 'x86_64-linux' with features {no-such-feature} is required to build 'DRV', but I am a 'x86_64-linux' with features {benchmark, ca-derivations}",
			new: "missing system features: DRV", hint: hintFeature,
		},
	} {
		if test.target == "" {
			test.target, test.causes = test.name, []string{test.name}
		}
		for _, version := range testbench.NixVersions {
			for _, how := range []string{"alone", "daemon"} {
				t.Run(strings.Join([]string{test.name, version, how}, " "), func(t *testing.T) {
					s := &replay{store: store{valid: map[string]bool{}, inputs: test.inputs}}
					for i, said := 0, recordedFailures(t, version); said[key(how, test.name, i)] != ""; i++ {
						s.messages = append(s.messages, said[key(how, test.name, i)])
					}
					if len(s.messages) == 0 {
						t.Fatal("nothing is recorded")
					}
					if !test.refused {
						s.built = test.causes
					}
					s.log = test.log
					got, err := Run(t.Context(), s, targetsOf("unrelated", test.target), Options{Emit: func(nix.Event) {}})
					if err != nil {
						t.Fatal(err)
					}
					r := got.Targets[1]
					if r.Outcome != job.OutcomeFailed || r.Cause != drvPath(test.causes[0]) {
						t.Errorf("%s, by %q: %s", r.Outcome, r.Cause, r.Error)
					}
					want := test.old
					if version == "2.34" && test.new != "" {
						want = test.new
					}
					want = strings.ReplaceAll(want, "DRV", drvPath(test.causes[0]))
					first, _, _ := strings.Cut(r.Error, "\n")
					if how == "daemon" && version != "2.34" {
						first = strings.TrimSuffix(first, ";") // what follows are lines of the log
					}
					if version != "2.8" { // which says it in another way
						want = strings.ReplaceAll(want, "drv!out", "drv^out")
					}
					if diff := cmp.Diff(want, first); diff != "" {
						t.Error(diff)
					}
					last := r.Error[strings.LastIndex(r.Error, "\n")+1:]
					if test.hint != "" && !strings.HasPrefix(last, test.hint) {
						t.Errorf("what to do is not said: %s", r.Error)
					}
					for _, h := range hints {
						if test.hint == "" && strings.Contains(r.Error, h.text) {
							t.Errorf("it says to do something: %s", r.Error)
						}
					}
					if unrelated := got.Targets[0]; unrelated.Cause != "" {
						t.Errorf("what has nothing to do with it failed by %q", unrelated.Cause)
					}
				})
			}
		}
	}
}

func key(how, name string, i int) string {
	return strings.Join([]string{how, name, string(rune('0' + i))}, " ")
}

// replay is a store in which some builds start, and Nix prints given messages.
type replay struct {
	store
	built    []string // by name
	log      []string
	messages []string
}

func (r *replay) Realise(_ context.Context, _ []string, emit func(nix.Event)) error {
	for _, name := range r.built {
		emit(nix.Event{Kind: nix.BuildStarted, Path: drvPath(name)})
		for _, line := range r.log {
			emit(nix.Event{Kind: nix.BuildLine, Path: drvPath(name), Text: line})
		}
		emit(nix.Event{Kind: nix.BuildStopped, Path: drvPath(name)})
	}
	for _, message := range r.messages {
		emit(nix.Event{Kind: nix.ErrorMessage, Text: message})
	}
	return errors.New("some failed")
}

// Messages that are not recorded.
func TestCondense(t *testing.T) {
	const wanted, got = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "sha256-fk+i64x6wIlznV3vxEifrWihANkggso1xrQKRSSCH4c="
	x := drvPath("x")
	for message, want := range map[string]string{
		"":        "",
		"no good": "no good",
		"hash mismatch in fixed-output derivation '" + x + "':\n  wanted: " + wanted + "\n  got:    " + got:// Nix 2.3
		"hash mismatch in " + x + ": wanted " + wanted + ", got " + got,
		"hash mismatch in fixed-output derivation '" + x + "':\n    likely URL: https://x.invalid/a?b=c\n     specified: " + wanted + "\n        got:    " + got + "\n expected path: " + outPath("x"):// Lix
		"hash mismatch in " + x + ": wanted " + wanted + ", got " + got,
		"Cannot build '" + x + "'.\nReason: builder failed with exit code 1.\nOutput paths:\n  " + outPath("x") + "\n  " + outPath("x-doc"): "builder failed with exit code 1: " + x,
		"Cannot build '" + x + "'.\nReason: 1 dependency failed.\nOutput paths:\n  " + outPath("x"):                                         "1 dependency failed: " + x,
		"Cannot build '" + x + "'.\nReason: builder failed with exit code 1.\nOutput paths:\n  " + outPath("x") +
			"\nLast 2 log lines:\n> Reason: none.\n> Output paths:\nFor full logs, run:\n  nix log " + x: "builder failed with exit code 1: " + x +
			"\nLast 2 log lines:\n> Reason: none.\n> Output paths:\nFor full logs, run:\n  nix log " + x,
		"Cannot build '" + x + "'.\nReason: platform mismatch\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'": "platform mismatch: " + x + "\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'",
	} {
		if got := condense(message); got != want {
			t.Errorf("%q is\n%q, want\n%q", message, got, want)
		}
	}
}

func TestHint(t *testing.T) {
	for _, test := range []struct {
		message, log, want string
	}{
		{"", "", ""},
		{"builder failed with exit code 1", "all is well", ""},
		{"", "tar: ./x: Cannot write: No space left on device", hintDisk},
		{"writing to file: No space left on device", "", hintDisk},
		{"", "cp: error writing: Disk quota exceeded", hintDisk},
		{"builder failed due to signal 9 (Killed)", "", hintMemory},
		{"", "x86_64-linux-gnu-gcc: fatal error: Killed signal terminated program cc1plus", hintMemory},
		{"", "c++: fatal error: Killed terminated program cc1plus", hintMemory},
		{"", "virtual memory: Cannot allocate memory", hintMemory},
		{"", "java.lang.OutOfMemoryError: out of memory", hintMemory},
		{"builder failed due to signal 15 (Terminated)", "", ""},
		{"building of '" + drvPath("x") + "^out' timed out after 3600 seconds", "", hintTime},
		// A log's own lines about time and systems mean nothing.
		{"builder failed with exit code 1", "FAIL: test timed out after 30 seconds", ""},
		{"builder failed with exit code 1", "Required system: a fast one", ""},
	} {
		got := hint(test.message, []string{"first", test.log, "last"})
		if test.want == "" && got != "" || !strings.HasPrefix(got, test.want) {
			t.Errorf("%q and %q: %q, want %q", test.message, test.log, got, test.want)
		}
	}
}

// A derivation that a message names in passing is not the cause for targets that do not need
// it; without a message, Nix's own error is the cause.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		what     string
		messages []string
		cause    string
		want     string
	}{
		{"nothing", nil, "", "some failed"},
		{"of another", []string{"can't begin " + drvPath("other")}, "", "can't begin " + drvPath("other")},
		{"of itself", []string{"can't begin " + drvPath("host")}, "host", "can't begin " + drvPath("host")},
		{"of what it needs", []string{"can't begin " + drvPath("other"), "can't begin " + drvPath("lib")}, "lib", "can't begin " + drvPath("lib")},
		{"of more than that", []string{"can't begin " + drvPath("other") + " and " + drvPath("lib")}, "lib", "can't begin " + drvPath("other") + " and " + drvPath("lib")},
		{
			"only that it is blocked", []string{"1 dependencies of derivation '" + drvPath("host") + "' failed to build"}, "",
			"1 dependencies of derivation '" + drvPath("host") + "' failed to build",
		},
	} {
		s := &replay{store: store{valid: map[string]bool{}, inputs: map[string][]string{"host": {"lib"}}}, messages: test.messages}
		got, err := Run(t.Context(), s, targetsOf("host"), Options{Emit: func(nix.Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		if test.cause != "" {
			test.cause = drvPath(test.cause)
		}
		if r := got.Targets[0]; r.Outcome != job.OutcomeFailed || r.Cause != test.cause || r.Error != test.want {
			t.Errorf("%s: %s, by %q: %s", test.what, r.Outcome, r.Cause, r.Error)
		}
	}
}

// forging is a store in which a builder forges messages about others.
type forging struct{ store }

func (s *forging) Realise(_ context.Context, _ []string, emit func(nix.Event)) error {
	say := func(text string) { emit(nix.Event{Kind: nix.ErrorMessage, Text: text}) }
	for _, name := range []string{"bad", "good"} {
		say("forged: " + drvPath(name))
		emit(nix.Event{Kind: nix.BuildStarted, Path: drvPath(name)})
		say("forged again: " + drvPath(name))
		emit(nix.Event{Kind: nix.BuildStopped, Path: drvPath(name)})
	}
	say("Cannot build '" + drvPath("bad") + "'")
	say("later: " + drvPath("bad"))
	s.valid[outPath("good")] = true
	return errors.New("some failed")
}

// Nix's message after a build explains its failure, and no other derivation failed.
func TestForgedCause(t *testing.T) {
	s := &forging{store{valid: map[string]bool{}}}
	got, err := Run(t.Context(), s, targetsOf("bad", "good"), Options{Emit: func(nix.Event) {}})
	if err != nil || outcomes(got) != "failed built" {
		t.Fatalf("%s, %v", outcomes(got), err)
	}
	if want := "Cannot build '" + drvPath("bad") + "'"; got.Targets[0].Error != want {
		t.Errorf("got %q; want %q", got.Targets[0].Error, want)
	}
}
