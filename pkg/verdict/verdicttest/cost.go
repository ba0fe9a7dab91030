package verdicttest

import (
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// Costly returns a Plan and Results of jobs on several kinds of runners, of which the last left none.
func Costly() (*job.Plan, []*job.Result) {
	p := PlanOf(Host("a", "x86_64-linux"), Host("b", "x86_64-linux"), Host("mac", "aarch64-darwin"), Host("own", "x86_64-linux"), Host("lost", "x86_64-linux"))
	for i, runner := range [][]string{{"ubuntu-latest"}, {"ubuntu-latest"}, {"macos-latest"}, {"self-hosted", "linux"}, {"ubuntu-latest"}} {
		p.Entries[i].Runner = runner
	}
	p.Machine = &job.Machine{OS: "Linux", Arch: "X64", Hosted: true, Cores: 2, Began: Noon.Add(-70 * time.Second)}
	p.Finished = Noon.Add(20 * time.Second)
	p.Saved = &job.Saved{Skipped: 3, SkippedSeconds: 700, SkippedUnknown: 1, ReusedSeconds: 3700}
	results := ResultsOf(p)[:4]
	for i, r := range results {
		r.Machine = &job.Machine{OS: "Linux", Arch: "X64", Hosted: i != 3, Cores: 2, Began: r.Started}
	}
	results[1].Machine.Began = results[1].Started.Add(-25 * time.Second)
	results[2].Machine.OS, results[2].Machine.Arch = "macOS", "ARM64"
	return p, results
}
