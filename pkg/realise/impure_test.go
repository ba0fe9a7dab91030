package realise

import (
	"context"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/nix"
)

// The store does not remember the outputs of an impure derivation: it failed if its build did,
// also as a dependency.
func TestImpure(t *testing.T) {
	unknown := func(n int, name string, outputs ...string) Target {
		t := target(n, name)
		t.OutPaths = nil
		t.Outputs = append(t.Outputs, outputs...)
		return t
	}
	impure := map[string]bool{"a": true, "b": true}
	for _, test := range []struct {
		what    string
		store   store
		targets []Target
		want    string
		asked   string
		cause   string // of the first
		failed  string // builds
	}{
		{"built", store{}, []Target{unknown(0, "a")}, "built", "a!*", "", ""},
		{"among others", store{}, []Target{unknown(0, "a"), target(1, "c")}, "built built", "c!out a!*", "", ""},
		{"for two", store{}, []Target{unknown(0, "a", "doc"), unknown(1, "a"), unknown(2, "b")}, "built built built", "a!* b!*", "", ""},
		{"failed", store{fails: map[string]string{"a": failed("a")}}, []Target{unknown(0, "a"), unknown(1, "b")}, "failed built", "a!* b!*", drvPath("a"), "a"},
		{"needs one that fails", store{
			inputs: map[string][]string{"a": {"c"}}, fails: map[string]string{"c": failed("c")},
		}, []Target{unknown(0, "a"), unknown(1, "b")}, "failed built", "a!* b!*", drvPath("c"), "c"},
		{"needed by what is fixed", store{
			inputs: map[string][]string{"c": {"a"}}, fixed: map[string]bool{"c": true}, fails: map[string]string{"d": failed("d")},
		}, []Target{target(0, "d"), target(1, "c")}, "failed built", "d!out c!out", drvPath("d"), "d"},
	} {
		t.Run(test.what, func(t *testing.T) {
			s := &test.store
			s.impure, s.valid = impure, map[string]bool{}
			got, err := Run(t.Context(), s, test.targets, Options{Emit: func(nix.Event) {}})
			if err != nil {
				t.Fatal(err)
			}
			var asked, failed []string
			for _, output := range s.asked {
				drv, names, _ := strings.Cut(output, "!")
				asked = append(asked, nameOf(drv)+"!"+names)
			}
			for _, b := range got.Builds {
				if b.Failed {
					failed = append(failed, nameOf(b.DrvPath))
				}
			}
			first := got.Targets[0]
			if outcomes(got) != test.want || first.Cause != test.cause {
				t.Errorf("%s, by %q: %s", outcomes(got), first.Cause, first.Error)
			}
			if all := strings.Join(asked, " "); all != test.asked {
				t.Errorf("asked for %q, want %q", all, test.asked)
			}
			if all := strings.Join(failed, " "); all != test.failed {
				t.Errorf("builds that failed: %q, want %q", all, test.failed)
			}
			for i, r := range got.Targets {
				if r.Outcome.OK() && len(r.Outputs) != len(test.targets[i].Outputs) {
					t.Errorf("the outputs of %s are %+v", r.Attr, r.Outputs)
				}
			}
		})
	}
}

// An impure derivation whose build was stopped has not failed.
func TestImpureStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, b := target(0, "a"), target(1, "b")
	a.OutPaths, b.OutPaths = nil, nil
	s := &store{impure: map[string]bool{"a": true, "b": true}, valid: map[string]bool{}, stop: "a", cancel: cancel}
	got, _ := Run(ctx, s, []Target{a, b}, Options{Emit: func(nix.Event) {}})
	if outcomes(got) != "cancelled cancelled" || len(s.asked) != 1 {
		t.Errorf("%s, asked for %q", outcomes(got), s.asked)
	}
}
