package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/itchyny/gojq"

	"github.com/org/nix-matrix/pkg/job"
)

func choices() []job.Target {
	drv := func(name string) string { return "/nix/store/00000000000000000000000000000000-" + name + ".drv" }
	return []job.Target{
		{Name: "nixosConfigurations.pi3", Kind: job.NixOS, Host: "pi3", System: "aarch64-linux", DrvPath: drv("nixos-system-pi3-24.11"), State: job.StateBuild},
		{Name: "packages.x86_64-linux.hello", Kind: job.Package, System: "x86_64-linux", DrvPath: drv("hello-2.12"), State: job.StateBuild},
		{Name: "checks.x86_64-linux.lint.fast", Kind: job.Check, System: "x86_64-linux", DrvPath: drv("lint"), State: job.StateBuild},
		{Name: "home", Kind: job.Other, System: "x86_64-linux", DrvPath: drv("home"), State: job.StateBuild},
		{Name: "packages.x86_64-linux.broken", Kind: job.Package, State: job.StateFailed},
	}
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		filter, label string
		want, left    []string
	}{
		{"", "", []string{"nixosConfigurations.pi3", "packages.x86_64-linux.hello", "checks.x86_64-linux.lint.fast", "home"}, nil},
		{`.top_attr == "checks"`, `"\(.attr) [\(.system)]"`, []string{"lint.fast [x86_64-linux]"}, []string{"nixosConfigurations.pi3", "packages.x86_64-linux.hello", "home"}},
		{`.name | startswith("hello-")`, `.name`, []string{"hello-2.12"}, []string{"nixosConfigurations.pi3", "checks.x86_64-linux.lint.fast", "home"}},
		{`.host != null`, `"host \(.host)\n"`, []string{"host pi3"}, []string{"packages.x86_64-linux.hello", "checks.x86_64-linux.lint.fast", "home"}},
		{`.kind == "other" and .attr == "home" and .top_attr == "home" and (.drvPath | endswith("-home.drv"))`, "", []string{"home"}, []string{"nixosConfigurations.pi3", "packages.x86_64-linux.hello", "checks.x86_64-linux.lint.fast"}},
	} {
		c, err := NewChooser(test.filter, test.label)
		if err != nil {
			t.Fatal(err)
		}
		wanted, left, err := c.Choose(t.Context(), choices(), nil)
		if err != nil {
			t.Errorf("%s: %v", test.filter, err)
			continue
		}
		var names []string
		for _, w := range wanted {
			names = append(names, w.Name)
		}
		want := append(test.want, "packages.x86_64-linux.broken")
		if diff := cmp.Diff(want, names) + cmp.Diff(test.left, left); diff != "" {
			t.Errorf("%s:\n%s", test.filter, diff)
		}
	}
}

func TestChooseRefuses(t *testing.T) {
	for _, test := range []struct{ filter, label, want string }{
		{".system ==", "", "filter_builds: line 1, column 11"},
		{".a and\n  .b ]", "", "line 2, column 6"},
		{"nosuch", "", "filter_builds: function not defined: nosuch/0"},
		{".system", "", `invalid result "aarch64-linux" of filter_builds for nixosConfigurations.pi3: must be true or false`},
		{".system + 1", "", "filter_builds, for nixosConfigurations.pi3: cannot add"},
		{"empty", "", "the expression has no result"},
		{"", `""`, "invalid result \"\" of label_builds"},
		{"", `"x" * 101`, "at most 100 characters"},
		{"", ".host", "invalid result null of label_builds for packages.x86_64-linux.hello"},
		{`$ENV.HOME == null and (env | length == 0) and input`, "", "filter_builds"},
	} {
		c, err := NewChooser(test.filter, test.label)
		if err == nil {
			_, _, err = c.Choose(t.Context(), choices(), nil)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %s: %v, want %s", test.filter, test.label, err, test.want)
		}
	}
	c, err := NewChooser("def f: f; f", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := c.Choose(ctx, choices(), nil); err == nil {
		t.Error("what never ends has ended")
	}
}

// In jq, an unknown field is null. In a target's object, it is an error.
func TestChooseKnowsFields(t *testing.T) {
	const list = "A target has attr, description, drvPath, flake, host, kind, meta, name, requiredSystemFeatures, system, top_attr"
	meta := json.RawMessage(`{"license": {"free": true}, "name": "hello"}`)
	for _, test := range []struct {
		filter  string
		unknown string // empty: there is none
	}{
		{`.hots == "x86_64-linux"`, "hots"},
		{`.system == "x86_64-linux" and .hots == null`, "hots"},
		{`.hots | startswith("x")`, "hots"}, // which is worth more than what startswith says
		{`.["hots"] == "x"`, "hots"},
		{`."hots" == "x"`, "hots"},
		{`. as $t | $t.hots == "x"`, "hots"},
		{`(.).hots == "x"`, "hots"},
		{`[.] | .[0].hots == "x"`, "hots"},
		{`[.] | map(.hots) | any`, "hots"},
		{`[.] | .[] | .hots == null`, "hots"},
		{`def f: .hots; f == "x"`, "hots"},
		{`def f(g): g == "x"; f(.hots)`, "hots"},
		{`if .hots then true else false end`, "hots"},
		{`if true then .hots == "x" else false end`, "hots"},
		{`try (.hots == "x") catch false`, "hots"},
		{`"\(.hots)" == "x"`, "hots"},
		{`{hots} == {}`, "hots"},
		{`{"hots"} == {}`, "hots"},
		{`{(.hots // "a"): 1} | has("a")`, "hots"},
		{`reduce .hots as $x (true; .)`, "hots"},
		{`[foreach .hots as $x (true; .)] | any`, "hots"},
		{`[.hots, .system] | any`, "hots"},
		{`-(.hots // 1) == 1`, "hots"},
		{`.hots.free == null`, "hots"},
		{`.hots[0] == null`, "hots"},
		{`.hots // true`, "hots"},
		{`path(.hots) == ["hots"]`, "hots"},
		{`label $out | .hots == "x"`, "hots"},
		{`(.hots | not) or true`, "hots"},
		{`.license == null`, "license"}, // which is in meta

		{`.system == "x86_64-linux"`, ""},
		{`.meta.nosuch == null`, ""},
		{`.meta.nosuch.deeper == null`, ""},
		{`.meta | .nosuch == null`, ""},
		{`.meta as $m | $m.nosuch == null`, ""},
		{`(.meta // {}).nosuch == null`, ""},
		{`.meta["nosuch"] == null`, ""},
		{`[.meta.license // empty | .. | .free? // empty] | any`, ""},
		{`[.. | .nosuch? // empty] | any`, ""}, // which asks whether it is there
		{`.nosuch? == null`, ""},
		{`{a: .name} | .a == "x" and .b == null`, ""},
		{`has("nosuch")`, ""},
		{`. + {extra: true} | .extra`, ""},
		{`.name |= "x" | .name == "x"`, ""},
		{`del(.meta) | .meta == null`, ""},
		{`path(.meta.x) == ["meta", "x"]`, ""},
		{`[paths(type == "boolean")] == [["meta", "license", "free"]]`, ""},
		{`to_entries | map(select(.key == "name")) | length == 1`, ""},
		{`.meta.license | to_entries[0] | .value`, ""},
		{`.requiredSystemFeatures | index("kvm") == null`, ""},
		{`"nosuch" | . as $k | true`, ""},
		{`[1, 2] | .[0] == 1`, ""},
		{`{"a": {"b": 1}} | .a.b == 1 and .a.c == null`, ""},
		{`[.name | test("^HEL"; "i")] | any`, ""},
		{`@text "\(.name)" == "x" | not`, ""},
		{`.name[0:3] == "hel"`, ""},
		{`. as {name: $n} | $n == "x"`, ""},
		{`limit(1; .name, .attr) == "x"`, ""},
	} {
		t.Run(test.filter, func(t *testing.T) {
			c, err := NewChooser(test.filter, "")
			if err != nil {
				t.Fatal(err)
			}
			targets := choices()[1:2]
			wanted, left, err := c.Choose(t.Context(), targets, []json.RawMessage{meta})
			if test.unknown != "" {
				if want := fmt.Sprintf("filter_builds, for packages.x86_64-linux.hello: there is no field %q. %s", test.unknown, list); err == nil || err.Error() != want {
					t.Fatalf("%v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// Instrumentation does not change the result.
			if got, want := len(wanted) == 1, plainly(t, test.filter, targets[0], meta); got != want || len(wanted)+len(left) != 1 {
				t.Errorf("it is %t, and without watching %t", got, want)
			}
		})
	}
	c, err := NewChooser("", `"\(.nam)"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Choose(t.Context(), choices(), nil); err == nil || !strings.Contains(err.Error(), `label_builds, for nixosConfigurations.pi3: there is no field "nam"`) {
		t.Error(err)
	}
}

// plainly evaluates an expression without instrumentation.
func plainly(t *testing.T, text string, target job.Target, meta json.RawMessage) bool {
	t.Helper()
	query, err := gojq.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var about map[string]any
	if err := json.Unmarshal(meta, &about); err != nil {
		t.Fatal(err)
	}
	value, _ := query.Run(fields(&target, about)).Next()
	keep, ok := value.(bool)
	if !ok {
		t.Fatalf("it is %v", value)
	}
	return keep
}

// Expressions see the meta of packages, which the targets do not have.
func TestChooseByMeta(t *testing.T) {
	metas := []json.RawMessage{nil, json.RawMessage(`{"license": [{"free": true}, {"free": false}], "description": "hello", "tier": 1}`), json.RawMessage(`{}`)}
	for _, test := range []struct {
		filter, label string
		want          []string
	}{
		{".meta.tier == 1", "", []string{"packages.x86_64-linux.hello"}},
		{"[.meta.license // empty | .. | .free? // empty] | any", `"tier \(.meta.tier)"`, []string{"tier 1"}},
		{`.meta | has("tier") | not`, "", []string{"nixosConfigurations.pi3", "checks.x86_64-linux.lint.fast", "home"}},
		{". | tostring | contains(\"tier\")", "", []string{"packages.x86_64-linux.hello"}},
	} {
		c, err := NewChooser(test.filter, test.label)
		if err != nil {
			t.Fatal(err)
		}
		wanted, _, err := c.Choose(t.Context(), choices(), metas)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, w := range wanted {
			names = append(names, w.Name)
			if data, err := json.Marshal(w); err != nil || strings.Contains(string(data), "tier\":") {
				t.Errorf("the target is %s, %v", data, err)
			}
		}
		if diff := cmp.Diff(append(test.want, "packages.x86_64-linux.broken"), names); diff != "" {
			t.Errorf("%s:\n%s", test.filter, diff)
		}
	}
	c, err := NewChooser("true", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Choose(t.Context(), choices(), []json.RawMessage{json.RawMessage("[]")}); err == nil || !strings.Contains(err.Error(), "meta of nixosConfigurations.pi3") {
		t.Errorf("a list is no meta: %v", err)
	}
}
