package verdict_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// helped returns a Plan of two hosts that share a unit, with a helper, and good Results.
func helped() (*job.Plan, []*job.Result) {
	p := planOf(host("nas", "x86_64-linux"), host("vault", "x86_64-linux"))
	wanted := []job.Wanted{{DrvPath: drv("linux"), Outputs: []string{"out"}}}
	p.Beat = 60
	p.Units = []job.Unit{{ID: job.NewUnitID(wanted), Name: "linux", System: "x86_64-linux", Drvs: []string{drv("linux")}, Wanted: wanted, For: []int{0, 1}}}
	const helper = "helper 1 x86_64-linux"
	p.Entries = append(p.Entries, job.Entry{Name: helper, ID: job.NewEntryID(helper), Helper: true, System: "x86_64-linux", Platform: "x86_64-linux", Targets: []job.Ref{}})
	results := resultsOf(p)
	results[2].Units = []job.UnitResult{{ID: p.Units[0].ID, How: job.UnitBuilt, Seconds: 100}}
	for _, r := range results[:2] {
		r.Units = []job.UnitResult{{ID: p.Units[0].ID, How: job.UnitTaken, From: helper, Bytes: 10}}
	}
	return p, results
}

// No target needs a helper's Result: what it built is in the others', or they are red themselves.
// Only its push is its own.
func TestHelper(t *testing.T) {
	for name, test := range map[string]struct {
		change func(r []*job.Result) []*job.Result
		build  verdict.Status
		lint   verdict.Status
		want   verdict.Status
		notice bool
	}{
		"good":           {want: verdict.Success},
		"killed at once": {change: func(r []*job.Result) []*job.Result { return r[:2] }, build: verdict.Failure, want: verdict.Success, notice: true},
		"killed":         {change: func(r []*job.Result) []*job.Result { unstarted(r[2]); return r }, build: verdict.Failure, want: verdict.Success, notice: true},
		"unit failed": {change: func(r []*job.Result) []*job.Result {
			r[2].Outcome, r[2].Error = job.OutcomeFailed, "linux failed"
			return r
		}, build: verdict.Failure, want: verdict.Success},
		"deadline":            {change: func(r []*job.Result) []*job.Result { r[2].Outcome, r[2].TimedOut = job.OutcomeFailed, true; return r }, build: verdict.Failure, want: verdict.Success},
		"push":                {change: func(r []*job.Result) []*job.Result { pushFails(r[2]); return r }, build: verdict.Failure, want: verdict.Failure},
		"not the helper":      {build: verdict.Failure, want: verdict.Failure},
		"and a host":          {change: func(r []*job.Result) []*job.Result { return r[1:2] }, build: verdict.Failure, want: verdict.Failure, notice: true},
		"another job failed":  {change: func(r []*job.Result) []*job.Result { return r[:2] }, build: verdict.Failure, lint: verdict.Failure, want: verdict.Failure, notice: true},
		"another job is good": {change: func(r []*job.Result) []*job.Result { return r[:2] }, build: verdict.Failure, lint: verdict.Success, want: verdict.Failure, notice: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, results := helped()
			if test.change != nil {
				results = test.change(results)
			}
			build := test.build
			if build == "" {
				build = verdict.Success
			}
			needs := needsOf(verdict.Success, build)
			if test.lint != "" {
				needs["lint"] = verdict.Need{Result: test.lint}
			}
			v := judged(p, planKey, results, needs)
			if v.Status != test.want {
				t.Errorf("%s: %s", v.Status, v.Reason)
			}
			if got := len(v.Notices) > 0 && strings.Contains(v.Notices[0], "helper 1"); got != test.notice {
				t.Errorf("notices: %q", v.Notices)
			}
		})
	}
}

func unstarted(r *job.Result) {
	r.Outcome, r.Error, r.Targets, r.Finished = job.OutcomeFailed, "the worker ended before it could say anything", nil, r.Started
}

func pushFails(r *job.Result) {
	r.Outcome = job.OutcomeFailed
	r.Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401 Unauthorized"}}
}

func TestShared(t *testing.T) {
	p, results := helped()
	results[0].Builds = append(results[0].Builds, job.DrvBuild{DrvPath: drv("linux"), Seconds: 120})
	results[2].Builds = []job.DrvBuild{{DrvPath: drv("linux"), Seconds: 100}}
	results[1].Waited = 30
	s := judged(p, planKey, results, nil).Shared
	if s == nil || len(s.Units) != 1 {
		t.Fatal(s)
	}
	if u := s.Units[0]; u.Name != "linux" || len(u.By) != 1 || len(u.Taken) != 2 || u.Bytes != 20 || u.Seconds != 100 || u.Failed {
		t.Errorf("%+v", u)
	}
	if over := s.BuildSeconds - s.UniqueSeconds; over != 120 || s.Waited != 30 {
		t.Errorf("%v more than once, %v waited", over, s.Waited)
	}
}

// The chain is that of the units that took longest one after another, whatever the Plan expected.
func TestChain(t *testing.T) {
	p, results := helped()
	for n, after := range [][]int{nil, {0}, {0}, {1}} {
		u := p.Units[0]
		u.Name = string(rune('a' + n))
		u.ID, u.After = fmt.Sprintf("%016x", n), after
		if n == 0 {
			p.Units = nil
		}
		p.Units = append(p.Units, u)
		results[2].Units = append(results[2].Units, job.UnitResult{ID: u.ID, How: job.UnitBuilt, Seconds: []float64{10, 5, 50, 20}[n]})
	}
	s := judged(p, planKey, results, nil).Shared
	if got := strings.Join(s.Chain, " "); got != "a c" || s.ChainSeconds != 60 {
		t.Errorf("%q in %v s", got, s.ChainSeconds)
	}
}
