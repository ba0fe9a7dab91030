package verdict_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/verdict"
)

func TestDiscovery(t *testing.T) {
	t.Parallel()
	outputs := func(values ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(values); i += 2 {
			m[values[i]] = values[i+1]
		}
		return m
	}
	type found struct {
		IDs    []string
		Result verdict.Status
		Matrix bool
	}
	for name, tt := range map[string]struct {
		needs verdict.Needs
		want  found
	}{
		"none": {verdict.Needs{"build": {Result: verdict.Success}}, found{}},
		"by its plan, among two uses in a workflow": {
			verdict.Needs{
				"discover": {Result: verdict.Failure, Outputs: outputs("matrix", "{}", "count", "1", "plan", otherPlanKey)},
				"second":   {Result: verdict.Success, Outputs: outputs("plan", planKey)},
			},
			found{IDs: []string{"second"}, Result: verdict.Success},
		},
		"by its plan, stored at another try": {
			verdict.Needs{"find": {Result: verdict.Success, Outputs: outputs("plan", strings.Replace(planKey, "plan0", "plan2", 1))}, "discover": {Result: verdict.Success}},
			found{IDs: []string{"find"}, Result: verdict.Success},
		},
		"by two outputs, before an id": {
			verdict.Needs{"discover": {Result: verdict.Failure}, "find": {Result: verdict.Success, Outputs: outputs("matrix", "{}", "count", "1")}},
			found{IDs: []string{"find"}, Result: verdict.Success, Matrix: true},
		},
		"by its id, before one output": {
			verdict.Needs{"discover": {Result: verdict.Success}, "terraform": {Result: verdict.Success, Outputs: outputs("plan", "2 to add")}},
			found{IDs: []string{"discover"}, Result: verdict.Success},
		},
		"by its only output": {
			verdict.Needs{"find": {Result: verdict.Success, Outputs: outputs("matrix", "{}")}, "build": {Result: verdict.Failure, Outputs: outputs("log", "x")}},
			found{IDs: []string{"find"}, Result: verdict.Success, Matrix: true},
		},
		"several, the worst counts": {
			verdict.Needs{
				"a": {Result: verdict.Success, Outputs: outputs("matrix", "{}", "count", "1")},
				"b": {Result: verdict.Cancelled, Outputs: outputs("matrix", "", "count", "1")},
				"c": {Result: verdict.Skipped, Outputs: outputs("matrix", "", "count", "1")},
				"d": {Result: verdict.Success, Outputs: outputs("count", "1", "plan", "x")},
			},
			found{IDs: []string{"a", "b", "c", "d"}, Result: verdict.Cancelled, Matrix: true},
		},
		"a result of the future": {verdict.Needs{"discover": {Result: "paused"}}, found{IDs: []string{"discover"}, Result: verdict.Failure}},
	} {
		var got found
		got.IDs, got.Result, got.Matrix = tt.needs.Discovery(planKey)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseNeeds(t *testing.T) {
	t.Parallel()
	for _, nothing := range []string{"", " \n", "null", "{}"} {
		if needs, err := verdict.ParseNeeds([]byte(nothing)); err != nil || len(needs) != 0 {
			t.Errorf("%q: %v, %v", nothing, needs, err)
		}
	}
	needs, err := verdict.ParseNeeds([]byte(`{
	  "discover": {"result": "success", "outputs": {"matrix": "{}", "count": "0"}},
	  "build": {"result": "skipped", "outputs": {}},
	  "act": {"result": "cancelled", "outputs": null}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := verdict.Needs{
		"discover": {Result: verdict.Success, Outputs: map[string]string{"matrix": "{}", "count": "0"}},
		"build":    {Result: verdict.Skipped, Outputs: map[string]string{}},
		"act":      {Result: verdict.Cancelled},
	}
	if diff := cmp.Diff(want, needs); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`[]`, `{"a": {}}`, `{"a": {"result": "great"}}`, `{"a": {"result": "success", "outputs": {"x": 1}}}`, `{`} {
		if needs, err := verdict.ParseNeeds([]byte(bad)); err == nil || !strings.Contains(err.Error(), "toJSON(needs)") {
			t.Errorf("%s: %v, %v", bad, needs, err)
		}
	}
}
