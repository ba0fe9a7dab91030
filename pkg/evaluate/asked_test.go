package evaluate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// The fields of meta.nixMatrix, with all kinds of values: an invalid one is named and ignored, and a target
// that is skipped is not evaluated.
func TestAsked(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			asks = name: nixMatrix: d name // { meta = { inherit nixMatrix; }; };
			dead = { drvPath = throw "it was evaluated"; outPath = throw "it was evaluated"; };
		in {
			packages.x86_64-linux = {
				all = asks "all" { group = "slow tests"; timeout = "1h30m"; priority = 7; skip = false; runner = [ "a" "b" ]; nightly = true; };
				bad = asks "bad" { group = "../x"; timeout = "soon"; priority = 1001; skip = 1; runner = [ "a" 1 ]; };
				lists = asks "lists" { group = [ ]; timeout = [ 1 ]; priority = 1.5; skip = x: x; runner = { }; };
				nulls = asks "nulls" { group = null; timeout = null; priority = null; skip = null; runner = null; };
				seconds = asks "seconds" { timeout = 90; priority = -1000; };
				set = asks "set" "fast";
				skip-reason = asks "skip-reason" { skip = "needs a\n::error::GPU"; } // dead;
				skip-true = asks "skip-true" { skip = true; } // dead;
				throws = asks "throws" { group = throw "x"; timeout = throw "x"; priority = assert false; 1; skip = throw "x"; runner = [ (throw "x") ]; };
				too-long = asks "too-long" { timeout = "169h"; group = "${builtins.concatStringsSep "" (builtins.genList (_: "g") 65)}"; };
			};
			nixosConfigurations = {
				a = host "a" // { meta.nixMatrix = { group = "fleet"; priority = 1; }; };
				b = { config = throw "it was evaluated"; meta.nixMatrix.skip = "retired"; };
			};
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		for i := range got {
			target := d.Targets[i]
			got[i] = strings.Replace(got[i], "package packages.x86_64-linux.", "", 1)
			got[i] += fmt.Sprintf(" [%s %d %d %s]", target.Group, target.Timeout, target.Priority, strings.Join(target.Runner, ","))
		}
		want := []string{
			"nixos nixosConfigurations.a build [fleet 0 1 ]",
			"nixos nixosConfigurations.b skip because of meta.nixMatrix.skip: retired [ 0 0 ]",
			"all build [slow tests 5400 7 a,b]",
			"bad build [ 0 0 a]",
			"lists build [ 0 0 ]",
			"nulls build [ 0 0 ]",
			"seconds build [ 90 -1000 ]",
			"set build [ 0 0 ]",
			"skip-reason skip because of meta.nixMatrix.skip: needs a ::error::GPU [ 0 0 ]",
			"skip-true skip because of meta.nixMatrix.skip [ 0 0 ]",
			"throws build [ 0 0 ]",
			"too-long build [ 0 0 ]",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		var odd []string
		for _, text := range d.Odd {
			odd = append(odd, strings.Replace(text, "packages.x86_64-linux.", "", 1))
		}
		group, priority, runner, skip, timeout := fields[0].must, fields[1].must, fields[2].must, fields[3].must, fields[4].must
		wantOdd := []string{
			`meta.nixMatrix.group of bad ("../x", not ` + group + ")",
			`meta.nixMatrix.priority of bad (1001, not ` + priority + ")",
			`meta.nixMatrix.runner of bad (a list, not ` + runner + ")",
			`meta.nixMatrix.skip of bad (1, not ` + skip + ")",
			`meta.nixMatrix.timeout of bad ("soon", not ` + timeout + ")",
			`meta.nixMatrix.group of lists (a list, not ` + group + ")",
			`meta.nixMatrix.priority of lists (a float, not ` + priority + ")",
			`meta.nixMatrix.runner of lists (a set, not ` + runner + ")",
			`meta.nixMatrix.skip of lists (a function, not ` + skip + ")",
			`meta.nixMatrix.timeout of lists (a list, not ` + timeout + ")",
			`meta.nixMatrix.group of throws (a value that throws, not ` + group + ")",
			`meta.nixMatrix.priority of throws (a value that throws, not ` + priority + ")",
			`meta.nixMatrix.runner of throws (a list, not ` + runner + ")",
			`meta.nixMatrix.skip of throws (a value that throws, not ` + skip + ")",
			`meta.nixMatrix.timeout of throws (a value that throws, not ` + timeout + ")",
			`meta.nixMatrix.group of too-long ("` + strings.Repeat("g", 36) + `…, not ` + group + ")",
			`meta.nixMatrix.timeout of too-long ("169h", not ` + timeout + ")",
		}
		if diff := cmp.Diff(wantOdd, odd); diff != "" {
			t.Error(diff)
		}
		checkPlan(t, d)
	})
}

// No value that an evaluator may report gets into a Plan unless it is one that the field may have.
func TestAskedGate(t *testing.T) {
	values := []string{"null", "0", "-1", "9223372036854775807", "-9223372036854775808", "1e400", "1.5", "true", "[]", "{}", `""`, `"0s"`, `"-5m"`, `"2562047h"`, `"1ns"`, "", "x"}
	for _, s := range hostile {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, string(data))
	}
	for _, f := range fields {
		for _, value := range values {
			for _, asked := range []askedField{{Value: json.RawMessage(value)}, {Kind: value}} {
				target := job.Target{Name: "a", Kind: job.Other, State: job.StateBuild, System: "x86_64-linux", DrvPath: storeX + ".drv", Outputs: []string{"out"}}
				odd := (&aboutEvent{Asked: map[string]askedField{f.name: asked}}).ask(&target)
				if err := target.Check(); err != nil {
					t.Errorf("%s = %.50s: %v", f.name, value, err)
				}
				if len(odd) > 1 || len(odd) == 1 && valid.Line(odd[0], 400) != nil {
					t.Errorf("%s = %.50s: %.500q", f.name, value, odd)
				}
			}
		}
	}
}
