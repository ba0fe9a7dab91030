package verdict_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
	"github.com/org/nix-matrix/pkg/verdict/verdicttest"
)

// A run costs the time of each job on its runner, rounded up, from when the runner began it.
func TestCost(t *testing.T) {
	p, results := verdicttest.Costly()
	v := verdicttest.Judged(p, verdicttest.PlanKey, results, verdicttest.NeedsOf(verdict.Success, verdict.Success))
	v.AddReport(&job.Machine{OS: "Linux", Arch: "X64", Hosted: true, Cores: 2, Began: verdicttest.Noon}, verdicttest.Noon.Add(20*time.Second))
	want := &verdict.Cost{
		Bill: billing.Bill{
			Lines: []billing.Line{
				{Runner: "Linux", Jobs: 4, Minutes: 2 + 2 + 2 + 1, Factor: 1, Billed: 7}, // 90 s of discovery, 72 s and 97 s, 20 s
				{Runner: "macOS", Jobs: 1, Minutes: 2, Factor: 10, Billed: 20},
				{Runner: "self-hosted", Jobs: 1, Minutes: 2},
			},
			Billed: 27,
		},
		Untimed: 1, Saved: job.Saved{Skipped: 3, SkippedSeconds: 700, SkippedUnknown: 1, ReusedSeconds: 3700},
	}
	if diff := cmp.Diff(want, v.Cost); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Times that cannot be are not believed, and outside of GitHub Actions nothing costs.
func TestOddCosts(t *testing.T) {
	cost := func(change func(p *job.Plan, results []*job.Result)) *verdict.Cost {
		p, results := verdicttest.Costly()
		change(p, results)
		return verdicttest.Judged(p, verdicttest.PlanKey, results, verdicttest.NeedsOf(verdict.Success, verdict.Success)).Cost
	}
	if got := cost(func(p *job.Plan, _ []*job.Result) { p.Machine = nil }); got != nil {
		t.Errorf("a run without runners costs %+v", got)
	}
	minutes := func(change func(p *job.Plan, results []*job.Result)) int {
		n := 0
		for _, l := range cost(change).Lines {
			n += l.Minutes
		}
		return n
	}
	honest := minutes(func(*job.Plan, []*job.Result) {})
	for name, change := range map[string]func(p *job.Plan, results []*job.Result){
		"begun later": func(_ *job.Plan, results []*job.Result) { results[0].Machine.Began = results[0].Finished },
		"begun a year before": func(_ *job.Plan, results []*job.Result) {
			results[0].Machine.Began = results[0].Started.AddDate(-1, 0, 0)
		},
		"begun at no time":     func(_ *job.Plan, results []*job.Result) { results[0].Machine.Began = time.Time{} },
		"discovery of no time": func(p *job.Plan, _ []*job.Result) { p.Machine.Began = p.Created.Add(-time.Second) },
	} {
		if got := minutes(change); got > honest || got < honest-1 {
			t.Errorf("%s: %d minutes, not %d", name, got, honest)
		}
	}
}

// A unit that a job takes from another saves the time of its build, but not to a helper, and not the waiting.
func TestSharingSaves(t *testing.T) {
	p := verdicttest.PlanOf(verdicttest.Host("a", "x86_64-linux"), verdicttest.Host("b", "x86_64-linux"), verdicttest.Host("c", "x86_64-linux"))
	p.Machine = &job.Machine{OS: "Linux"}
	p.Entries = append(p.Entries, job.Entry{Name: "helper 1 x86_64-linux", ID: job.NewEntryID("helper"), Helper: true})
	id := job.NewUnitID([]job.Wanted{{DrvPath: verdicttest.Drv("glibc"), Outputs: []string{"out"}}})
	p.Units = []job.Unit{{ID: id, Name: "glibc", Drvs: []string{verdicttest.Drv("glibc")}, For: []int{0, 1, 2}}}
	results := verdicttest.ResultsOf(p)
	for i, r := range results {
		r.Machine = &job.Machine{OS: "Linux"}
		r.Units = []job.UnitResult{{ID: id, How: job.UnitTaken}}
		if i == 0 {
			r.Units[0] = job.UnitResult{ID: id, How: job.UnitBuilt, Seconds: 100}
		}
	}
	results[1].Waited = 30
	v := verdicttest.Judged(p, verdicttest.PlanKey, results, verdicttest.NeedsOf(verdict.Success, verdict.Success))
	if got := v.Cost.SharedSeconds; got != 2*100-30 {
		t.Errorf("sharing saves %v s", got)
	}
}
