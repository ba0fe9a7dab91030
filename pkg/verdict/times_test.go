package verdict_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The clock stands still while nothing is worked on: a rerun is days later.
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
