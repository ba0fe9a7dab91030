package verdict_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func reversed(results []*job.Result) []*job.Result {
	results = slices.Clone(results)
	slices.Reverse(results)
	return results
}

func TestOfTwoResultsAtATimeTheWorseCounts(t *testing.T) {
	t.Parallel()
	p := planOf(host("pi3", "aarch64-linux"))
	for _, spoil := range []func(*job.Result){
		func(r *job.Result) { fail(r, 0, drv("openssl")) },
		func(r *job.Result) { r.Error = "push failed" },
	} {
		results := append(resultsOf(p), resultsOf(p)...)
		spoil(results[1])
		for _, results := range [][]*job.Result{results, reversed(results)} {
			if v := judged(p, planKey, results, nil); v.Status != verdict.Failure {
				t.Errorf("the better one counts: %s", v.Reason)
			}
		}
	}
}

func TestIgnoredResultsAreNamed(t *testing.T) {
	t.Parallel()
	p := planOf(host("pi3", "aarch64-linux"))
	results := append(resultsOf(p), resultsOf(p)...)
	results = append(results, resultsOf(p)...)
	results[1].Plan = otherPlanKey
	results[2].Entry, results[2].Name = "stray", "stray one"
	v := judged(p, planKey, results, needsOf(verdict.Success, verdict.Success))
	want := []verdict.Ignored{
		{Entry: p.Entries[0].ID, Name: "nixosConfigurations.pi3", Why: verdict.OfOtherPlan},
		{Entry: "stray", Name: "stray one", Why: verdict.OfUnknownEntry},
	}
	if diff := cmp.Diff(want, v.Ignored); diff != "" {
		t.Error(diff)
	}
}
