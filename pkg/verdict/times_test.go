package verdict_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

// Pauses do not count: a rerun may be days later.
func TestWorkOfARerun(t *testing.T) {
	t.Parallel()
	p := planOf(host("a", "x86_64-linux"), host("b", "x86_64-linux"), host("c", "x86_64-linux"))
	results := resultsOf(p)
	for i, at := range []time.Duration{48 * time.Hour, 0, 30 * time.Second} {
		results[i].Started, results[i].Finished = noon.Add(at), noon.Add(at+time.Minute)
	}
	v := judged(p, planKey, results, nil)
	var got []float64
	for _, w := range v.Work {
		got = append(got, w.Start, w.Seconds)
	}
	if diff := cmp.Diff([]float64{90, 60, 0, 60, 30, 60}, got); diff != "" || v.Seconds != 150 {
		t.Errorf("of %v seconds, start and time (-want +got):\n%s", v.Seconds, diff)
	}
}

// The pause before a rerun is no work.
func TestTimes(t *testing.T) {
	t.Parallel()
	p := planOf(host("a", ""), host("b", ""), host("c", ""), host("d", ""))
	results := resultsOf(p)
	at := func(r *job.Result, from, to time.Duration) { r.Started, r.Finished = noon.Add(from), noon.Add(to) }
	at(results[0], 0, time.Minute)
	at(results[1], 30*time.Second, 90*time.Second)
	at(results[2], 24*time.Hour, 24*time.Hour+time.Minute)
	at(results[3], time.Hour, 0)
	v := judged(p, planKey, results, nil)
	if v.Seconds != 150 || v.JobSeconds != 180 {
		t.Errorf("%v s, %v s of jobs; want 150 and 180", v.Seconds, v.JobSeconds)
	}
}
