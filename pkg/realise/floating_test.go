package realise

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// Output paths may be known only after the build.
func TestFloating(t *testing.T) {
	unknown := func(n int, name string) Target {
		t := target(n, name)
		t.OutPaths = nil
		return t
	}
	known := func(names ...string) map[string]bool {
		valid := map[string]bool{}
		for _, name := range names {
			valid[outPath(name)] = true
		}
		return valid
	}
	floating := func(names ...string) map[string]bool {
		all := map[string]bool{}
		for _, name := range names {
			all[name] = true
		}
		return all
	}
	for _, test := range []struct {
		what    string
		store   store
		targets []Target
		want    string
		cause   string
	}{
		{"built", store{floating: floating("a")}, []Target{unknown(0, "a")}, "built", ""},
		{"there", store{floating: floating("a"), valid: known("a")}, []Target{unknown(0, "a")}, "present", ""},
		{"fetched", store{floating: floating("a"), fetched: map[string]bool{"a": true}}, []Target{unknown(0, "a")}, "fetched", ""},
		{"failed", store{floating: floating("a"), fails: map[string]string{"a": failed("a")}}, []Target{unknown(0, "a")}, "failed", drvPath("a")},
		{"among others", store{floating: floating("b"), valid: known("c")}, []Target{target(0, "a"), unknown(1, "b"), target(2, "c")}, "built built present", ""},
		// In place of b, a derivation is built that has the path of a filled in.
		{
			"resolved", store{floating: floating("a", "b"), inputs: map[string][]string{"b": {"a"}}},
			[]Target{unknown(0, "b")}, "built", "",
		},
		{
			"resolved, and fetched", store{floating: floating("a", "b"), inputs: map[string][]string{"b": {"a"}}, fetched: map[string]bool{"b": true}},
			[]Target{unknown(0, "b")}, "fetched", "",
		},
		{
			"resolved, and failed", store{floating: floating("a", "b"), inputs: map[string][]string{"b": {"a"}}, fails: map[string]string{"b": "no good: " + asResolved("b")}},
			[]Target{unknown(0, "b"), unknown(1, "a")}, "failed built", asResolved("b"),
		},
		{
			"what needs one that was resolved", store{
				floating: floating("a", "b", "c"), inputs: map[string][]string{"b": {"a"}, "c": {"b"}},
				fails: map[string]string{"b": "no good: " + asResolved("b")},
			},
			[]Target{unknown(0, "c"), unknown(1, "a")}, "failed built", asResolved("b"),
		},
	} {
		s := &test.store
		if s.valid == nil {
			s.valid = map[string]bool{}
		}
		got, err := Run(t.Context(), s, test.targets, Options{Emit: func(nix.Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		if outcomes(got) != test.want || got.Targets[0].Cause != test.cause {
			t.Errorf("%s: %s, by %q: %s", test.what, outcomes(got), got.Targets[0].Cause, got.Targets[0].Error)
		}
		if test.cause != "" && len(got.Targets[0].Log) != logLines {
			t.Errorf("%s: the log is %q", test.what, got.Targets[0].Log)
		}
		for i, r := range got.Targets {
			name := nameOf(test.targets[i].DrvPath)
			if r.Outcome.OK() && (len(r.Outputs) != 1 || r.Outputs[0].Path != outPath(name) || r.Outputs[0].Size != 100) {
				t.Errorf("%s: the outputs of %s are %+v", test.what, name, r.Outputs)
			}
		}
	}
}

// A dependency of a target does not stand for another derivation of the same name.
func TestResolvedByName(t *testing.T) {
	g := newGraph(&store{inputs: map[string][]string{"host": {"lib"}}})
	g.needs(drvPath("host"))
	g.needs(drvPath("other"))
	other := "/nix/store/33333333333333333333333333333333-lib.drv"
	needs := map[string]bool{other: true, drvPath("host"): true}
	for drv, want := range map[string][]string{drvPath("lib"): nil, asResolved("lib"): {other}, drvPath("host"): {drvPath("host")}} {
		if diff := cmp.Diff(want, g.matching(needs, drv)); diff != "" {
			t.Errorf("%s among what is needed:\n%s", drv, diff)
		}
	}
	if got := g.matching(map[string]bool{drvPath("host"): true}, asResolved("lib")); got != nil {
		t.Errorf("what is not needed is: %s", got)
	}
}

// parts is a store of one derivation with two outputs, of which doc floats.
type parts struct {
	store
	asked []string // for the outputs of
}

func (p *parts) Outputs(_ context.Context, drvs ...string) (map[string]map[string]string, error) {
	outputs := map[string]map[string]string{}
	for _, drv := range drvs {
		p.asked = append(p.asked, nameOf(drv))
		outputs[drv] = map[string]string{"out": outPath("many"), "doc": "", "more": outPath("many-more")}
		if p.valid[outPath("many")] {
			outputs[drv]["doc"] = outPath("many-doc")
		}
	}
	return outputs, nil
}

func (p *parts) ValidOutputs(ctx context.Context, drvs ...string) (map[string]nix.ValidOutputs, error) {
	return validOutputs(ctx, p, drvs)
}

func (p *parts) Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error {
	err := p.store.Realise(ctx, outputs, emit)
	p.valid[outPath("many-doc")] = p.valid[outPath("many")]
	return err
}

// Some output paths may be known before the build.
func TestPartlyKnown(t *testing.T) {
	for what, outPaths := range map[string]map[string]string{
		"one": {"out": outPath("many")}, "none": nil, "empty": {},
	} {
		p := &parts{store: store{valid: map[string]bool{}}}
		many := target(0, "many")
		many.Outputs = []string{"out", "doc"}
		many.OutPaths = maps.Clone(outPaths)
		got, err := Run(t.Context(), p, []Target{many}, Options{Emit: func(nix.Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		want := []job.Output{{Name: "out", Path: outPath("many"), Size: 100, Closure: 100}, {Name: "doc", Path: outPath("many-doc"), Size: 100, Closure: 100}}
		if diff := cmp.Diff(want, got.Targets[0].Outputs); diff != "" || outcomes(got) != "built" {
			t.Errorf("%s: %s\n%s", what, outcomes(got), diff)
		}
		if diff := cmp.Diff(outPaths, many.OutPaths); diff != "" {
			t.Errorf("%s: the target was changed:\n%s", what, diff)
		}
		// With one output valid and the other unknown, the target is not present.
		p = &parts{store: store{valid: map[string]bool{outPath("many-more"): true}}}
		if got, err = Run(t.Context(), p, []Target{many}, Options{Emit: func(nix.Event) {}}); err != nil || outcomes(got) != "built" {
			t.Errorf("%s: %s, %v", what, outcomes(got), err)
		}
		if got, err = Run(t.Context(), p, []Target{many}, Options{Emit: func(nix.Event) {}}); err != nil || outcomes(got) != "present" {
			t.Errorf("%s: %s, %v", what, outcomes(got), err)
		}
	}
	// Known output paths are not queried.
	p := &parts{store: store{valid: map[string]bool{}}}
	many := target(0, "many")
	if got, err := Run(t.Context(), p, []Target{many}, Options{Emit: func(nix.Event) {}}); err != nil || outcomes(got) != "built" || len(p.asked) > 0 {
		t.Errorf("%s, %v, it asked for %s", outcomes(got), err, strings.Join(p.asked, " "))
	}
}
