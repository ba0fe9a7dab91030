package report

import (
	"strings"
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
			Needs{"find": {Result: Success, Outputs: outputs("plan", strings.Replace(planKey, "plan0", "plan2", 1))}, "discover": {Result: Success}},
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
