package evaluate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// The walk into a set that contains itself ends after some levels, on any way into it.
func TestLoop(t *testing.T) {
	n := useNix(t, "2.34")
	loop := `let x = { recurseForDerivations = true; self = x; z = d "z"; }; in `
	file := filepath.Join(t.TempDir(), "default.nix")
	if err := os.WriteFile(file, []byte(`let d = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; }; in `+loop+`x`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what string
		o    Options
		want int // targets
	}{
		{"hydraJobs", Options{Installables: []string{flake(t, loop+`{ hydraJobs = x; }`) + "#hydraJobs"}}, 33},
		{"legacyPackages", Options{Installables: []string{flake(t, loop+`{ legacyPackages.x86_64-linux = x; }`) + "#legacyPackages"}}, 32},
		{"packages", Options{Installables: []string{flake(t, loop+`{ packages.x86_64-linux = x; }`)}}, 32},
		{"a set that is named", Options{Installables: []string{flake(t, loop+`{ a.b = x; }`) + "#a.b"}}, 33},
		{"a file", Options{File: file}, 33},
	} {
		t.Run(test.what, func(t *testing.T) {
			test.o.Workers = 1
			got, d, c := observe(t, n, test.o)
			loops := slices.DeleteFunc(slices.Clone(got), func(line string) bool { return strings.HasSuffix(line, " build") })
			if len(got) != test.want || len(loops) != 1 || !strings.Contains(loops[0], "failed: it is more than 32 sets deep. If a set contains itself, ") {
				t.Errorf("%d targets, %q", len(got), loops)
			}
			if c.started != 1 {
				t.Errorf("%d evaluators were started", c.started)
			}
			checkPlan(t, d)
		})
	}
}

// Each set contains itself twice: the walk would practically have no end.
func TestTooManyAttributes(t *testing.T) {
	n := useNix(t, "2.34")
	for _, test := range []struct{ what, jobs string }{
		{"targets", `builtins.listToAttrs (builtins.genList (n: { name = "p${toString n}"; value = throw "not evaluated"; }) 100001)`},
		{"empty sets", `let x = n: if n == 0 then { } else { a = x (n - 1); b = x (n - 1); }; in x 30`},
	} {
		t.Run(test.what, func(t *testing.T) {
			ref := flake(t, `{ hydraJobs = `+test.jobs+`; }`)
			_, err := Run(t.Context(), n, with(n, Options{Installables: []string{ref + "#hydraJobs"}, Workers: 1}))
			want := "there are more than 100000 attributes in " + ref + "#hydraJobs. Name the ones to build, or leave sets out with --exclude (input exclude)"
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// Many long names do not fit into one line, and globs are not slower for them.
func TestManyNames(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			long = builtins.concatStringsSep "" (builtins.genList (_: "\n") 900);
			many = count: name: builtins.listToAttrs (builtins.genList (n: { name = name n; value = if n == count - 1 then d "last" else builtins.abort "not wanted"; }) count);
		in { packages = { x86_64-linux = many 2000 (n: "${long}${toString (10000 + n)}"); aarch64-linux = many 30000 (n: "p${toString n}"); }; }`)
		got, _ := look(t, n, Options{Installables: []string{ref + "#packages"}, Include: []string{"packages.x86_64-linux.*11999", "packages.*.p29999"}})
		if len(got) != 2 || got[0] != "package packages.aarch64-linux.p29999 build" || !strings.HasSuffix(got[1], "11999\" build") {
			t.Errorf("got %d targets: %.300q", len(got), got)
		}
	})
}

// Other output of evaluators, however much, hides no event.
func TestLongTraces(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			long = builtins.concatStringsSep "" (builtins.genList (n: builtins.substring 0 100 "${toString n} xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx") 100000);
		in { packages.x86_64-linux = builtins.listToAttrs (builtins.genList (n: rec { name = "p${toString (100 + n)}"; value = if n == 20 || n == 79 then builtins.trace "${name} ${long}" (d name) else if n == 50 then throw long else d name; }) 80); }`)
		var logged []string
		o := with(n, Options{Installables: []string{ref}, Workers: 1})
		o.Log = func(line string) { logged = append(logged, line) }
		d, err := Run(t.Context(), n, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range summary(d) {
			if want := fmt.Sprintf("package packages.x86_64-linux.p%d build", 100+i); line != want && i != 50 {
				t.Errorf("target %d is %.200q, want %q", i, line, want)
			}
		}
		if len(d.Targets) != 80 || d.Incomplete {
			t.Errorf("%d targets, incomplete: %v", len(d.Targets), d.Incomplete)
		}
		if message := d.Targets[50].Error; !strings.HasPrefix(message, "0 xxx") || len(message) > 20<<10 {
			t.Errorf("a message of %d bytes: %.100q", len(message), message)
		}
		logged = slices.DeleteFunc(logged, func(line string) bool { return !strings.HasPrefix(line, "trace: p1") })
		if len(logged) != 2 || len(logged[0]) > 5000 || !strings.HasSuffix(logged[0], "…") {
			t.Errorf("%d lines are logged: %.200q", len(logged), logged)
		}
	})
}

// A background process with an evaluator's stderr neither delays nor hides anything.
func TestStderrHeldOpen(t *testing.T) {
	t.Setenv("NIX_CONFIG", os.Getenv("NIX_CONFIG")+"\nallow-unsafe-native-code-during-evaluation = true")
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		pids := filepath.Join(t.TempDir(), "pids")
		t.Cleanup(func() { end(t, pids) })
		ref := flake(t, `{ packages.x86_64-linux = {
			a = builtins.seq (builtins.exec [ "/bin/sh" "-c" "sleep 600 >/dev/null & echo $! >>`+pids+`; echo null" ]) (d "a");
			b = builtins.trace (builtins.concatStringsSep "" (builtins.genList (_: "x") 3000000)) (d "b");
			c = builtins.abort "c";
			d = d "d";
		}; }`)
		got, d, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: 1})
		want := []string{"package packages.x86_64-linux.a build", "package packages.x86_64-linux.b build", "package packages.x86_64-linux.c failed: evaluation aborted with the following error message: 'c'", "package packages.x86_64-linux.d build"}
		if diff := cmp.Diff(want, got); diff != "" || d.Incomplete || c.started < 2 || c.started > 3 { // b takes so much memory that another one may go on
			t.Errorf("%d evaluators, incomplete %v:\n%s", c.started, d.Incomplete, diff)
		}
	})
}

// end ends the processes whose ids are in a file.
func end(t *testing.T, pids string) {
	t.Helper()
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(data)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err != nil {
			t.Fatal(err)
		}
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// forgetful drops the events of its first evaluators from some event on, and their errors.
type forgetful struct {
	Evaluator
	keep []int // events, for each evaluator
	lost bool  // some
}

func (f *forgetful) Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error {
	if len(f.keep) == 0 {
		return f.Evaluator.Eval(ctx, e, line)
	}
	keep := f.keep[0]
	f.keep = f.keep[1:]
	told := 0
	_ = f.Evaluator.Eval(ctx, e, func(text string) bool {
		if strings.Contains(text, "nix-matrix-") {
			if told++; told > keep {
				f.lost = true
				return true
			}
		}
		return line(text)
	})
	return nil
}

// An evaluator has not finished before its last event. Wherever events are lost, each target
// is found or is a failure, and none is missing.
func TestLastWordsLost(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, `{ nixosConfigurations.h = host "h"; packages.x86_64-linux = { a = d "a"; b = d "b"; c = d "c"; }; checks.x86_64-linux.d = d "d"; }`)
	o := with(n, Options{Installables: []string{ref}, Workers: 1})
	d, err := Run(t.Context(), n, o)
	if err != nil {
		t.Fatal(err)
	}
	all := summary(d)
	for keep := 0; ; keep++ {
		f := &forgetful{Evaluator: n, keep: []int{keep}}
		d, err := Run(t.Context(), f, o)
		if err != nil {
			if keep > 0 || !strings.Contains(err.Error(), errUnfinished.Error()) {
				t.Errorf("after %d events: %v", keep, err)
			}
			continue
		}
		if missing := missing(all, d); len(missing) > 0 {
			t.Errorf("after %d events, nothing is known of %v: %v", keep, missing, summary(d))
		}
		failed := slices.ContainsFunc(d.Targets, func(t job.Target) bool { return t.State == job.StateFailed })
		if diff := cmp.Diff(all, summary(d)); diff != "" && !failed {
			t.Errorf("after %d events, nothing failed:\n%s", keep, diff)
		}
		if !f.lost {
			if keep < 40 || failed || d.Incomplete {
				t.Errorf("after all of %d events: %v, incomplete %v", keep, summary(d), d.Incomplete)
			}
			break
		}
	}
	// One after the other: not one of them can hide anything.
	d, err = Run(t.Context(), &forgetful{Evaluator: n, keep: []int{30, 12, 9, 9}}, o)
	if err != nil || len(missing(all, d)) > 0 {
		t.Errorf("%v, %v", summary(d), err)
	}
}

// missing returns the targets that were not found, nor any set that they are in.
func missing(all []string, d *Evaluation) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool {
		name := strings.Fields(line)[1]
		return slices.ContainsFunc(d.Targets, func(t job.Target) bool { return name == t.Name || strings.HasPrefix(name, t.Name+".") })
	})
}

// The timeout of an attribute includes all of its time, and other output of the evaluator does
// not extend it.
func TestTimeoutOfTheWalk(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, work+`{ hydraJobs = {
		a = d "a";
		b = { recurseForDerivations = builtins.seq (fib 60) true; };
		c.names = builtins.listToAttrs [ { name = builtins.seq (fib 60) "x"; value = d "x"; } ];
		e = builtins.foldl' (_: n: builtins.trace "on and on ${toString n}" n) 0 (builtins.genList (n: n) 3000000);
		f = d "x" // { meta.description = builtins.seq (fib 60) "x"; };
		z = d "z";
	}; }`)
	var logged int
	o := with(n, Options{Installables: []string{ref + "#hydraJobs"}, Workers: 2, Timeout: 2 * time.Second})
	o.Log = func(string) { logged++ }
	d, err := Run(t.Context(), n, o)
	if err != nil {
		t.Fatal(err)
	}
	const late = " failed: evaluation took longer than 2s"
	want := []string{"other hydraJobs.a build", "other hydraJobs.b" + late, "other hydraJobs.c.names" + late, "other hydraJobs.e" + late, "other hydraJobs.f build", "other hydraJobs.z build"}
	if diff := cmp.Diff(want, summary(d)); diff != "" || !d.Incomplete {
		t.Errorf("incomplete %v:\n%s", d.Incomplete, diff)
	}
	if logged > maxLogLines+100 {
		t.Errorf("%d lines are logged", logged)
	}
}
