package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// sharedWork is a run of three hosts with a helper. The kernel is built by the first and taken by
// the others; the helper builds nginx, which fails, so that router and vault have no build.
func sharedWork() *verdict.Verdict {
	p := planOf(host("nas", "x86_64-linux"), host("router", "x86_64-linux"), host("vault", "x86_64-linux"))
	p.Beat = 60
	for n, name := range []string{"linux-6.12.57 and 4 more", "nginx-1.28.0", "never-taken"} {
		wanted := []job.Wanted{{DrvPath: drv(name), Outputs: []string{"out"}}}
		p.Units = append(p.Units, job.Unit{
			ID: job.NewUnitID(wanted), Name: name, System: "x86_64-linux", Drvs: []string{drv(name)}, Wanted: wanted,
			For: []int{0, 1, 2}[min(n, 1):], Seconds: 300, Tail: 400,
		})
	}
	p.Units[1].After = []int{0}
	const helper = "helper 1 x86_64-linux"
	p.Entries = append(p.Entries, job.Entry{Name: helper, ID: job.NewEntryID(helper), Helper: true, System: "x86_64-linux", Platform: "x86_64-linux", Targets: []job.Ref{}})
	results := resultsOf(p)
	unit := func(r, n int, how job.UnitWay, from string) {
		results[r].Units = append(results[r].Units, job.UnitResult{ID: p.Units[n].ID, How: how, From: from, Seconds: 312, Bytes: 40 << 20})
	}
	unit(0, 0, job.UnitBuilt, "")
	for r := 1; r <= 2; r++ {
		unit(r, 0, job.UnitTaken, p.Entries[0].Name)
		unit(r, 1, job.UnitBlocked, helper)
		fail(results[r], 0, drv("nginx-1.28.0"))
		results[r].Targets[0].Log = nil
		results[r].Failures = []job.Failure{{DrvPath: drv("nginx-1.28.0"), Error: "builder failed", Entry: helper, URL: results[3].URL}}
		results[r].Waited = 75
	}
	unit(3, 1, job.UnitFailed, "")
	results[3].Outcome, results[3].Error = job.OutcomeFailed, "nginx-1.28.0 failed"
	results[3].Failures = []job.Failure{{
		DrvPath: drv("nginx-1.28.0"), Error: "builder failed", Log: []string{"cc -c src/a.c", "src/a.c:12:5: error: expected ';'"},
		LogFile: "0123-nginx-1.28.0.log", LogArtifact: "nix-matrix.log." + p.Entries[3].ID,
	}}
	return judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
}

// A failure is told once, with the log of the job that had it and a link to it.
func TestSharedFailure(t *testing.T) {
	t.Parallel()
	v := sharedWork()
	md := Summary(v, SummaryOptions{RunURL: runURL})
	for text, times := range map[string]int{"expected ';'": 1, "#### `nginx-1.28.0` failed": 1, "[`helper 1 x86_64-linux`](": 1, "Errors outside of targets": 0} {
		if got := strings.Count(md, text); got != times {
			t.Errorf("%q is there %d times, not %d", text, got, times)
		}
	}
	if v.Status != verdict.Failure || v.Counts.Failed != 2 || v.Counts.Built != 1 {
		t.Error(v.Status, v.Counts)
	}
}

// The names of units are foreign, and there may be many.
func TestSharedHostile(t *testing.T) {
	t.Parallel()
	v := sharedWork()
	for n := range 4000 {
		v.Shared.Units = append(v.Shared.Units, verdict.SharedUnit{Name: fmt.Sprintf("`|</code></details>\n## %d", n), By: []string{"a|b"}})
	}
	md := Summary(v, SummaryOptions{RunURL: runURL})
	if len(md) > MaxSummary || strings.Contains(md, "</code></details>\n## 1") || !strings.Contains(md, "more units are left out") {
		t.Errorf("%d bytes", len(md))
	}
}
