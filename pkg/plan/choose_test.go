package plan

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

func choices() []job.Target {
	drv := func(name string) string { return "/nix/store/00000000000000000000000000000000-" + name + ".drv" }
	return []job.Target{
		{Name: "nixosConfigurations.pi3", Kind: job.NixOS, Host: "pi3", System: "aarch64-linux", DrvPath: drv("nixos-system-pi3-24.11"), State: job.Build},
		{Name: "packages.x86_64-linux.hello", Kind: job.Package, System: "x86_64-linux", DrvPath: drv("hello-2.12"), State: job.Build},
		{Name: "checks.x86_64-linux.lint.fast", Kind: job.Check, System: "x86_64-linux", DrvPath: drv("lint"), State: job.Build},
		{Name: "home", Kind: job.Other, System: "x86_64-linux", DrvPath: drv("home"), State: job.Build},
		{Name: "packages.x86_64-linux.broken", Kind: job.Package, State: job.Failed},
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
		{".system", "", `gives "aarch64-linux" for nixosConfigurations.pi3, and should give true or false`},
		{".system + 1", "", "filter_builds, for nixosConfigurations.pi3: cannot add"},
		{"empty", "", "it gives nothing"},
		{"", `""`, "label_builds gives \"\""},
		{"", `"x" * 101`, "at most 100 characters"},
		{"", ".host", "label_builds gives null for packages.x86_64-linux.hello"},
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

// Expressions see what packages say of themselves. The targets have none of it.
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
