package plan_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// A run of two entries and a helper, computed by hand: u0 of 100 s is needed by both, u1 of 50 s by the
// first and after u0, u2 of 30 s by the second.
func TestSimulate(t *testing.T) {
	runner := []string{"ubuntu-latest"}
	entries := []job.Entry{{System: "x86_64-linux", Runner: runner}, {System: "x86_64-linux", Runner: runner}, {System: "x86_64-linux", Runner: runner, Helper: true}}
	units := []job.Unit{
		{For: []int{0, 1}, Direct: []int{0, 1}, Seconds: 100, Tail: 160},
		{For: []int{0}, Direct: []int{0}, After: []int{0}, Seconds: 50, Tail: 60},
		{For: []int{1}, Direct: []int{1}, Seconds: 30, Tail: 50},
	}
	rests := []plan.Rest{{Before: 20, After: 10}, {After: 20}}
	costs := plan.Costs{Start: 40, Claim: 1, Give: 2, Notice: 4, Take: 3}
	for _, test := range []struct {
		what    string
		helpers int
		atOnce  int
		runner  []string // of the second entry
		want    plan.Run
	}{
		// The first entry builds u0 until 143 and u1 until 196, its rest until 226. The second one builds u2
		// until 73, sees u0 at 147, takes it until 150, and is ready at 170.
		{"two", 0, 0, runner, plan.Run{Makespan: 226, Worked: 230, Waited: 74, Billed: 226 + 170, Jobs: []float64{226, 170}, Takes: []int{1, 0, 0}}},
		// The helper has nothing to do until 147, since u1 is taken by then.
		{"with a helper", 1, 0, runner, plan.Run{Makespan: 226, Worked: 230, Waited: 74 + 107, Billed: 226 + 170 + 147, Jobs: []float64{226, 170, 147}, Takes: []int{1, 0, 0}}},
		// The second one begins when the first one ends: that has built u2 too, until 229, when all needed is
		// done, and takes 20 s longer; the second one takes both.
		{"one at once", 0, 1, runner, plan.Run{Makespan: 325, Worked: 230, Billed: 259 + 66, Jobs: []float64{259, 66}, Takes: []int{1, 0, 1}}},
		// On another runner, nobody else builds u2, and u0 may be built on either.
		{"two runners", 0, 0, []string{"large"}, plan.Run{Makespan: 226, Worked: 230, Waited: 74, Billed: 226 + 170, Jobs: []float64{226, 170}, Takes: []int{1, 0, 0}}},
	} {
		entries[1].Runner = test.runner
		run := plan.Simulate(entries[:2+test.helpers], units, rests, costs, test.atOnce, 0)
		// A claim and a document each, and a pack for u0, which is not small.
		if len(run.Created) != 7 || len(run.Busiest()) > 7 {
			t.Errorf("%s: created %v", test.what, run.Created)
		}
		run.Created = nil
		if diff := cmp.Diff(&test.want, run); diff != "" {
			t.Errorf("%s: %s", test.what, diff)
		}
	}
	// Renewals of 25 s: three for u0, one for u1 and for u2. The busiest minute has the claims of u0 and u2.
	entries[1].Runner = runner
	run := plan.Simulate(entries[:2], units, rests, costs, 0, 25)
	if len(run.Created) != 7+5 || len(run.Busiest()) != 6 {
		t.Errorf("created %v, in the busiest minute %v", run.Created, run.Busiest())
	}
}

// A job builds for others when its own targets are done, and leaves as soon as nothing is ready. A helper
// waits, but not for ever.
func TestSimulateLeaving(t *testing.T) {
	entries := []job.Entry{{System: "x86_64-linux"}, {System: "x86_64-linux"}, {System: "x86_64-linux", Helper: true}}
	costs := plan.Costs{Start: 40}
	parts := func(first float64) []job.Unit {
		return []job.Unit{
			{For: []int{0}, Direct: []int{0}, Seconds: first, Tail: 300},
			{For: []int{0}, Direct: []int{0}, After: []int{0}, Seconds: 50, Tail: 60},
			{For: []int{0}, Direct: []int{0}, After: []int{0}, Seconds: 50, Tail: 50},
			{For: []int{1}, Direct: []int{1}, Seconds: 10, Tail: 10},
		}
	}
	for _, test := range []struct {
		what    string
		first   float64
		helpers int
		want    plan.Run
	}{
		// The second one has nothing to build for others when it is done, at 60.
		{"too early", 100, 0, plan.Run{Makespan: 240, Worked: 220, Billed: 240 + 60, Jobs: []float64{240, 60}}},
		// It builds u2 from 60 to 110, while the first one builds u1 until 100.
		{"in time", 10, 0, plan.Run{Makespan: 110, Worked: 130, Waited: 10, Billed: 110 + 110, Jobs: []float64{110, 110}}},
		// The helper waits for u0 until 140.
		{"a helper", 100, 1, plan.Run{Makespan: 190, Worked: 220, Waited: 100, Billed: 190 + 60 + 190, Jobs: []float64{190, 60, 190}}},
		// It leaves at 340, before u0 is done.
		{"a helper that leaves", 400, 1, plan.Run{Makespan: 540, Worked: 520, Waited: 300, Billed: 540 + 60 + 340, Jobs: []float64{540, 60, 340}}},
	} {
		rests := []plan.Rest{{}, {After: 10}}
		run := plan.Simulate(entries[:2+test.helpers], parts(test.first), rests, costs, 0, 0)
		run.Takes, run.Created = nil, nil
		if diff := cmp.Diff(&test.want, run); diff != "" {
			t.Errorf("%s: %s", test.what, diff)
		}
	}
}
