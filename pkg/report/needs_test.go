package report

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
		Result Status
		Matrix bool
	}
	for name, tt := range map[string]struct {
		needs Needs
		want  found
	}{
		"none": {Needs{"build": {Result: Success}}, found{}},
		"by its plan, among two uses in a workflow": {
			Needs{
				"discover": {Result: Failure, Outputs: outputs("matrix", "{}", "count", "1", "plan", otherPlanKey)},
				"second":   {Result: Success, Outputs: outputs("plan", planKey)},
			},
			found{IDs: []string{"second"}, Result: Success},
		},
		"by its plan, stored at another try": {
			Needs{"find": {Result: Success, Outputs: outputs("plan", "nix-matrix-plan2-5f0c")}, "discover": {Result: Success}},
			found{IDs: []string{"find"}, Result: Success},
		},
		"by two outputs, before an id": {
			Needs{"discover": {Result: Failure}, "find": {Result: Success, Outputs: outputs("matrix", "{}", "count", "1")}},
			found{IDs: []string{"find"}, Result: Success, Matrix: true},
		},
		"by its id, before one output": {
			Needs{"discover": {Result: Success}, "terraform": {Result: Success, Outputs: outputs("plan", "2 to add")}},
			found{IDs: []string{"discover"}, Result: Success},
		},
		"by its only output": {
			Needs{"find": {Result: Success, Outputs: outputs("matrix", "{}")}, "build": {Result: Failure, Outputs: outputs("log", "x")}},
			found{IDs: []string{"find"}, Result: Success, Matrix: true},
		},
		"several, the worst counts": {
			Needs{
				"a": {Result: Success, Outputs: outputs("matrix", "{}", "count", "1")},
				"b": {Result: Cancelled, Outputs: outputs("matrix", "", "count", "1")},
				"c": {Result: Skipped, Outputs: outputs("matrix", "", "count", "1")},
				"d": {Result: Success, Outputs: outputs("count", "1", "plan", "x")},
			},
			found{IDs: []string{"a", "b", "c", "d"}, Result: Cancelled, Matrix: true},
		},
		"a result of the future": {Needs{"discover": {Result: "paused"}}, found{IDs: []string{"discover"}, Result: Failure}},
	} {
		d := tt.needs.discovery(planKey)
		if diff := cmp.Diff(tt.want, found{IDs: d.ids, Result: d.result, Matrix: d.matrix}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The digest that action.yml makes leads to the same verdict as all of needs.
func TestDigest(t *testing.T) {
	for name, test := range map[string]struct {
		digest string
		want   Needs
	}{
		"good": {
			`{"results":["success","success"],"discover":"success","plans":["k",null],"matrix":true}`,
			Needs{"discover": {Result: Success, Outputs: map[string]string{"matrix": "present", "plan": "k"}}, "(1)": {Result: Success}},
		},
		"crashed": {
			`{"results":["skipped","failure"],"discover":"failure","plans":[],"matrix":false}`,
			Needs{"discover": {Result: Failure, Outputs: map[string]string{}}, "(1)": {Result: Skipped}},
		},
		"another name": {
			`{"results":["failure","success"],"discover":null,"plans":["k"],"matrix":true}`,
			Needs{
				"discover": {Result: Success, Outputs: map[string]string{"matrix": "present", "plan": "k"}},
				"(1)":      {Result: Failure}, "(2)": {Result: Success},
			},
		},
		"no discovery": {
			`{"results":["cancelled"],"discover":"","plans":[null],"matrix":false}`,
			Needs{"(1)": {Result: Cancelled}},
		},
	} {
		got, err := ParseNeeds([]byte(test.digest))
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for _, bad := range []string{`{"results":[]}`, `{"results":["done"]}`, `{"results":"success"}`} {
		if got, err := ParseNeeds([]byte(bad)); err == nil {
			t.Errorf("%s is taken for %v", bad, got)
		}
	}
}
