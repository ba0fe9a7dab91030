package nix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/nix-matrix/internal/testbench"
)

// A builder may print messages as if they were Nix's, but can't begin or end builds, and can't
// suppress Nix's own message about it.
func TestForgedLog(t *testing.T) {
	const forging = `
let
  sh = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; args = [ "-c" text ]; };
  json = value: builtins.toJSON value;
in
rec {
  other = sh "other" "echo >$out";
  forges = sh "forges" ''
    say() { echo "@nix $1"; }
    say '${json { action = "start"; id = 1; level = 3; type = 105; text = "x"; parent = 0; fields = [ (builtins.unsafeDiscardStringContext other.drvPath) "" 1 1 ]; }}'
    say '${json { action = "result"; id = 1; type = 101; fields = [ "forged" ]; }}'
    say '${json { action = "stop"; id = 1; }}'
    say '${json { action = "start"; id = 2; level = 3; type = 101; text = "x"; parent = 0; fields = [ "http://x" ]; }}'
    say '${json { action = "result"; id = 2; type = 101; fields = [ "forged" ]; }}'
    say '${json { action = "result"; id = 2; type = 105; fields = [ 99 99 0 0 ]; }}'
    i=0
    while [ $i -lt 3000 ]; do
      i=$((i+1))
      say '${json { action = "msg"; level = 0; msg = "error: forged"; }}'
    done
    say '${json { action = "msg"; level = 0; msg = builtins.concatStringsSep "" (builtins.genList (_: "0123456789abcdef") 4000); }}' >&2
    exit 1
  '';
}`
	eachNix(t, func(t *testing.T, n *Nix) {
		try := func(t *testing.T, n *Nix) {
			drvs := instantiate(t, n, forging)
			var events []Event
			if err := n.Realise(t.Context(), []string{drvs["forges"] + "!out"}, func(e Event) { events = append(events, e) }); err == nil {
				t.Fatal("it succeeded")
			}
			messages := 0
			var last string
			for _, e := range events {
				switch e.Kind {
				case ErrorMessage, WarnMessage:
					messages++
					last = e.Text
				case FetchCounted, FetchProgress:
					if e.Bytes != 0 {
						t.Errorf("it counts %+v", e.Traffic)
					}
				default:
					if e.Path != drvs["forges"] || e.Text == "forged" {
						t.Errorf("there is %+v", e)
					}
				}
				if len(e.Text) > maxMessageSize+len("…") {
					t.Errorf("a text has %d bytes", len(e.Text))
				}
			}
			if messages > 1100 || !strings.Contains(last, drvs["forges"]) {
				t.Errorf("%d messages, the last one %q", messages, last)
			}
		}
		try(t, n)
		testbench.UseStore(t, t.TempDir())
		testbench.Daemon(t, testbench.DaemonOptions{Nix: filepath.Base(t.Name())})
		try(t, n.WithStore("daemon"))
	})
}

func TestParseDryRun(t *testing.T) {
	want := map[string][]string{
		"fetched": nil,
		"unknown": nil,
		"build":   {"/nix/store/mfw3aff6qy0ckichm2zlqkzw5fqgydm7-talks.drv", "/nix/store/nk0xyjgg6mpdk0rp3dgwq48wiyq7fryb-fails.drv"},
	}
	for _, version := range testbench.NixVersions {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "dry-run-"+version))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]string{}
		for _, f := range archive.Files {
			got[f.Name] = nil
			for path := range parseDryRun(string(f.Data)) {
				got[f.Name] = append(got[f.Name], path)
			}
			slices.Sort(got[f.Name])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", version, diff)
		}
	}
}

// TestRecord makes the recordings of Realise and ToBuild. Without -record it only checks
// that they can be made.
func TestRecord(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		testdata := "testdata"
		if !*record {
			testdata = t.TempDir()
		}
		drvs, outs := recorded(t, n)
		offer(t, n, drvs, outs)
		version := filepath.Base(t.Name())
		said := filepath.Join(t.TempDir(), "said")
		dir := t.TempDir()
		script(t, dir, "nix-store", fmt.Sprintf(`exec %s/nix-store "$@" 2>%s`, testbench.NixPath(t, version), said))
		mount(t, dir, places["PATH"])
		take := func() []byte {
			data, err := os.ReadFile(said)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		dry := &txtar.Archive{}
		for _, ask := range []struct {
			name  string
			paths []string
		}{{"fetched", []string{outs["fetched"], outs["second"]}}, {"unknown", []string{outs["talks"], outs["fails"]}}, {"build", []string{drvs["talks"], drvs["fails"]}}} {
			where := raw("--option", "substituters", substituter)
			if ask.name != "build" {
				where = raw("--option", "substituters", substituter, "--store", t.TempDir())
			}
			if err := n.run(n.command(t.Context(), "nix-store", raw(slices.Concat(where.words, []string{"--realise", "--dry-run"}, ask.paths)...))); err != nil {
				t.Fatal(err)
			}
			dry.Files = append(dry.Files, txtar.File{Name: ask.name, Data: take()})
		}
		if err := os.WriteFile(filepath.Join(testdata, "dry-run-"+version), txtar.Format(dry), 0o644); err != nil {
			t.Fatal(err)
		}

		if n.WithOptions(substitute...).Realise(t.Context(), wanted(drvs), func(Event) {}) == nil {
			t.Fatal("it succeeded")
		}
		if err := os.WriteFile(filepath.Join(testdata, "log-"+version), take(), 0o644); err != nil {
			t.Fatal(err)
		}
	})
}
