package nix

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/nix-matrix/internal/testbench"
)

// failing are derivations that fail in different ways, and some that need them.
const failing = `
let
  sh = name: attrs: text: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/bin:/usr/bin";
    args = [ "-c" text ];
  } // attrs);
  fixed = mode: { outputHashMode = mode; outputHashAlgo = "sha256"; outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; };
  floating = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
in
rec {
  flat = sh "flat" (fixed "flat") "echo other >$out";
  recursive = sh "recursive" (fixed "recursive") "echo other >$out";
  unfetched = sh "unfetched" (fixed "flat") "echo 'curl: (6) Could not resolve host' >&2; exit 6";
  exits = sh "exits" { } "echo one; echo two >&2; exit 1";
  mute = sh "mute" { } "exit 1";
  killed = sh "killed" { } "echo one; kill -KILL $$";
  full = sh "full" { } "echo 'write error: No space left on device'; exit 1";
  without = sh "without" { } "exit 0";
  silent = sh "silent" { } "echo one; exec sleep 60";
  floats = sh "floats" floating "exit 3";
  foreign = sh "foreign" { system = "riscv64-linux"; } "exit 1";
  feature = sh "feature" { requiredSystemFeatures = [ "no-such-feature" ]; } "exit 1";
  needsExits = sh "needs-exits" { } "echo ${exits} >$out";
  farFromExits = sh "far-from-exits" { } "echo ${needsExits} >$out";
  needsTwo = sh "needs-two" { } "echo ${exits} ${mute} >$out";
  needsFlat = sh "needs-flat" { } "echo ${flat} >$out";
  needsKilled = sh "needs-killed" { } "echo ${killed} >$out";
  needsSilent = sh "needs-silent" { } "echo ${silent} >$out";
  needsForeign = sh "needs-foreign" { } "echo ${foreign} >$out";
  needsFeature = sh "needs-feature" { } "echo ${feature} >$out";
  base = sh "base" floating "echo base >$out";
  resolved = sh "resolved" floating "echo ${base}; exit 3";
  fine = sh "fine" { } "echo >$out";
  later = sh "later" { system = "riscv64-linux"; } "echo ${fine}";
  slow = sh "slow" { } "echo one; sleep 2; echo >$out";
}`

// failures are the groups of them that are realised.
var failures = []struct {
	name    string
	fails   []string // derivations that fail themselves; name if there is none
	refused bool     // their builds do not start
	lines   int      // of the log of each
	says    string   // the reason
	blocked []string // derivations that fail because an input fails
}{
	{name: "flat", says: `(?s)hash mismatch.*specified: *sha256-A{43}=\s+got: *sha256-fk\+i64x6wIlznV3vxEifrWihANkggso1xrQKRSSCH4c=$`},
	{name: "recursive", says: `(?s)hash mismatch.*specified: *sha256-A{43}=\s+got: *sha256-Ym0yHYWVFHd\+ZX9200fV10Dgw7phlALQXGWDeiDUqSI=$`},
	{name: "unfetched", says: "failed with exit code 6", lines: 1},
	{name: "exits", says: "failed with exit code 1", lines: 2},
	{name: "mute", says: "failed with exit code 1"},
	{name: "killed", says: `failed due to signal 9 \(Killed\)`, lines: 1},
	{name: "full", says: "failed with exit code 1", lines: 1},
	{name: "without", says: "failed to produce output path"},
	{name: "silent", says: `timed out after 1 seconds`, lines: 1},
	{name: "floats", says: "failed with exit code 3"},
	{name: "foreign", says: "platform mismatch|'riscv64-linux' with features {} is required", refused: true},
	{name: "feature", says: "missing system features|with features {no-such-feature} is required", refused: true},
	{name: "needsExits", fails: []string{"exits"}, says: "failed with exit code 1", lines: 2, blocked: []string{"needsExits"}},
	{name: "farFromExits", fails: []string{"exits"}, says: "failed with exit code 1", lines: 2, blocked: []string{"needsExits", "farFromExits"}},
	{name: "needsTwo", fails: []string{"exits", "mute"}, says: "failed with exit code 1", blocked: []string{"needsTwo"}},
	{name: "needsFlat", fails: []string{"flat"}, says: "hash mismatch", blocked: []string{"needsFlat"}},
	{name: "needsKilled", fails: []string{"killed"}, says: "failed due to signal 9", lines: 1, blocked: []string{"needsKilled"}},
	{name: "needsSilent", fails: []string{"silent"}, says: "timed out after 1 seconds", lines: 1, blocked: []string{"needsSilent"}},
	{name: "needsForeign", fails: []string{"foreign"}, says: "platform mismatch|is required", refused: true, blocked: []string{"needsForeign"}},
	{name: "needsFeature", fails: []string{"feature"}, says: "missing system features|is required", refused: true, blocked: []string{"needsFeature"}},
}

// Matches the message of a blocked derivation, and no other.
var isBlocked = regexp.MustCompile(`\d+ dependenc(y|ies)\b.* failed`)

// These events identify a failure, with Nix alone and with a daemon, which quotes the errors of
// inputs. The messages are recorded for the tests of pkg/realise.
func TestFailures(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		version := filepath.Base(t.Name())
		said := &txtar.Archive{Comment: []byte("What Nix " + version + " says of failures, recorded by TestFailures of pkg/nix.\n")}
		n = n.WithOptions(
			Set("extra-experimental-features", "ca-derivations"),
			Set("max-silent-time", "1"),
			Set("system-features", "benchmark"), // on any machine
		)
		tryFailures(t, n, "alone", said)
		testbench.UseStore(t, t.TempDir())
		testbench.Daemon(t, testbench.DaemonOptions{Nix: version, Config: "extra-experimental-features = ca-derivations\nsystem-features = benchmark"})
		tryFailures(t, n.WithStore("daemon"), "daemon", said)

		file := filepath.Join("..", "realise", "testdata", "failures-"+version)
		if *record {
			if err := os.WriteFile(file, txtar.Format(said), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		recorded, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(recorded), string(txtar.Format(said))); diff != "" {
			t.Errorf("it says something else than recorded; -record records it anew:\n%s", diff)
		}
	})
}

func tryFailures(t *testing.T, n *Nix, how string, said *txtar.Archive) {
	t.Helper()
	drvs := instantiate(t, n, failing)
	for _, test := range failures {
		var events []Event
		err := n.Realise(t.Context(), []string{drvs[test.name] + "!out"}, func(e Event) {
			events = append(events, e)
		})
		what := fmt.Sprintf("%s, %s", how, test.name)
		if err == nil {
			t.Errorf("%s: it succeeded", what)
			continue
		}
		if test.fails == nil {
			test.fails = []string{test.name}
		}

		// A build starts, prints its lines and stops; other derivations have no such events.
		got, want := map[string][]EventKind{}, map[string][]EventKind{}
		var messages []string
		for _, e := range events {
			if e.Kind == ErrorMessage {
				messages = append(messages, e.Text)
				continue
			}
			got[e.Path] = append(got[e.Path], e.Kind)
		}
		for _, name := range test.fails {
			if test.refused {
				continue
			}
			kinds := []EventKind{BuildStarted}
			lines := test.lines
			if test.name == "needsTwo" && name == "exits" {
				lines = 2
			}
			for range lines {
				kinds = append(kinds, BuildLine)
			}
			want[drvs[name]] = append(kinds, BuildStopped)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}

		// Each failure has one message. It names the derivation, except some of Nix 2.30 and later
		// that name none.
		left := slices.Clone(messages)
		for _, name := range test.fails {
			i := slices.IndexFunc(left, func(m string) bool { return strings.Contains(m, drvs[name]) })
			if test.says == `timed out after 1 seconds` && n.nixSince(30) {
				i = slices.IndexFunc(left, func(m string) bool { return !strings.Contains(m, "/nix/store/") })
			}
			if i < 0 {
				t.Errorf("%s: no message of %s:\n%s", what, name, strings.Join(messages, "\n"))
				continue
			}
			if !regexp.MustCompile(test.says).MatchString(left[i]) || isBlocked.MatchString(left[i]) {
				t.Errorf("%s: it does not say %q:\n%s", what, test.says, left[i])
			}
			left = slices.Delete(left, i, i+1)
		}
		// So has each blocked derivation, and its message names only that one. Before Nix 2.30, a
		// refusal ends everything at once.
		if test.refused && !n.nixSince(30) {
			test.blocked = nil
		}
		for _, name := range test.blocked {
			i := slices.IndexFunc(left, func(m string) bool { return strings.Contains(m, drvs[name]) })
			if i < 0 || !isBlocked.MatchString(left[i]) || strings.Count(left[i], ".drv") != 1 {
				t.Errorf("%s: no message that %s is blocked:\n%s", what, name, strings.Join(messages, "\n"))
				continue
			}
			left = slices.Delete(left, i, i+1)
		}
		if len(left) > 0 {
			t.Errorf("%s: it says too\n%s", what, strings.Join(left, "\n"))
		}
		for i, message := range messages {
			name := fmt.Sprintf("%s %s %d", how, test.name, i)
			said.Files = append(said.Files, txtar.File{Name: name, Data: []byte(message + "\n")})
		}
	}
	outs, err := n.Outputs(t.Context(), slices.Collect(maps.Values(drvs))...)
	if err != nil {
		t.Fatal(err)
	}
	for name, drv := range drvs {
		if out := outs[drv]["out"]; out != "" && isValid(t, n, out) {
			t.Errorf("%s: there is an output of %s", how, name)
		}
	}
}

// A derivation whose input's path is known only after a build is not built itself: in its place,
// Nix builds one of the same name.
func TestFailureOfResolved(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		n = n.WithOptions(Set("extra-experimental-features", "ca-derivations"))
		drvs := instantiate(t, n, failing)
		var built, messages []string
		err := n.Realise(t.Context(), []string{drvs["resolved"] + "!out"}, func(e Event) {
			switch e.Kind {
			case BuildStopped:
				built = append(built, e.Path)
			case ErrorMessage:
				messages = append(messages, e.Text)
			}
		})
		if err == nil || len(built) != 2 || built[0] != drvs["base"] {
			t.Fatalf("built %q, %v", built, err)
		}
		if built[1] == drvs["resolved"] || !strings.HasSuffix(built[1], "-resolved.drv") {
			t.Errorf("built was %s in place of %s", built[1], drvs["resolved"])
		}
		if len(messages) != 2 || !strings.Contains(messages[0], built[1]) || strings.Contains(messages[0], drvs["resolved"]) {
			t.Errorf("it says %q", messages)
		}
		if _, err := n.Derivation(built[1]); err != nil {
			t.Error(err)
		}
		outputs, err := n.Outputs(t.Context(), built...)
		if err != nil || outputs[built[0]]["out"] == "" || outputs[built[1]]["out"] != "" {
			t.Errorf("the outputs are %v, %v", outputs, err)
		}
	})
}

// Before Nix 2.30, a derivation that no available machine can build ends everything: running
// builds are stopped, and no message says so.
func TestRefusal(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		n = n.WithOptions(Set("extra-experimental-features", "ca-derivations"), Set("max-jobs", "2"))
		drvs := instantiate(t, n, failing)
		var stopped, messages []string
		err := n.Realise(t.Context(), []string{drvs["later"] + "!out", drvs["slow"] + "!out"}, func(e Event) {
			switch e.Kind {
			case BuildStopped:
				stopped = append(stopped, e.Path)
			case ErrorMessage:
				messages = append(messages, e.Text)
			}
		})
		if err == nil || len(messages) != 1 || !strings.Contains(messages[0], drvs["later"]) {
			t.Errorf("got %v, it says %q", err, messages)
		}
		if diff := cmp.Diff([]string{drvs["fine"], drvs["slow"]}, stopped); diff != "" {
			t.Error(diff)
		}
		_, unbuilt, err := n.Built(t.Context(), drvs["fine"], drvs["slow"])
		if err != nil {
			t.Fatal(err)
		}
		if givenUp := slices.Contains(unbuilt, drvs["slow"]); givenUp == n.nixSince(30) || slices.Contains(unbuilt, drvs["fine"]) {
			t.Errorf("given up: %t; not built: %q", givenUp, unbuilt)
		}
	})
}
