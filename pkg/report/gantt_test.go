package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestGanttShowsTheLongest(t *testing.T) {
	t.Parallel()
	v := &verdict.Verdict{Seconds: 5000}
	for i := range 1000 {
		v.Work = append(v.Work, verdict.Work{Entry: fmt.Sprintf("e%d", i), Outcome: job.OutcomeBuilt, Start: float64(1000 - i), Seconds: float64(i)})
	}
	for limit, bars := range map[int]int{64 << 10: 30, 1800: 10, 100: 0} {
		got := (view{v}).gantt(limit)
		if n := strings.Count(got, "✓"); n != bars || len(got) > limit {
			t.Errorf("%d bars in %d bytes of %d:\n%s", n, len(got), limit, got)
		}
		first, last := strings.Index(got, "e999,"), strings.Index(got, fmt.Sprintf("e%d,", 1000-bars))
		if bars > 0 && (first < 0 || last < first || !strings.Contains(got, fmt.Sprintf("And %d entries that took less.", 999-bars))) {
			t.Errorf("not the longest, by their start:\n%s", got)
		}
	}
	if got := (view{&verdict.Verdict{Work: v.Work[500:501]}}).gantt(1 << 20); got != "" {
		t.Errorf("one alone gives\n%s", got)
	}
}

// A Result is foreign: it links to a job of this run, or to nothing.
func TestJobLinks(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		runURL + "/job/4":                   true,
		runURL + "0/job/4":                  false,
		runURL:                              false,
		runURL + "/job/4)":                  false,
		runURL + "/job/4/../../../../../..": false,
		runURL + "/../8/job/4":              false,
		"http://github.com/org/fleet/actions/runs/7/job/4":       false,
		"https://github.com/org/other/actions/runs/7/job/4":      false,
		"https://github.com.evil/org/fleet/actions/runs/7/job/4": false,
		"https://x@github.com/org/fleet/actions/runs/7/job/4":    false,
		"https://evil.example/org/fleet/actions/runs/7/job/4":    false,
		"javascript:alert(1)": false,
		"":                    false,
	} {
		p := planOf(host("a", "x86_64-linux"))
		results := resultsOf(p)
		fail(results[0], 0, drv("a"), "no")
		results[0].URL = address
		v := judged(p, planKey, results, nil)
		if got := strings.Count(Summary(v, SummaryOptions{RunURL: runURL + "/attempts/2"}), "]("+address+")"); (got == 2) != want || !want && address != runURL && got > 0 {
			t.Errorf("%q: %d links", address, got)
		}
		// Without RunURL, no server and repository is ours.
		if got := Summary(v, SummaryOptions{}); address != "" && strings.Contains(got, "]("+address) {
			t.Errorf("%q is linked to, whatever it is", address)
		}
	}
}

// A record is foreign too: it links to a run of this repository, or to nothing.
func TestChangeLinks(t *testing.T) {
	t.Parallel()
	const repository = "https://github.com/org/fleet"
	for address, want := range map[string]bool{
		repository + "/actions/runs/5":                  true,
		repository + "/actions/runs/5/attempts/2":       true,
		repository + "/actions/runs/5/../../../../evil": false,
		repository + "/issues/5":                        false,
		repository + "2/actions/runs/5":                 false,
		"https://evil.example/org/fleet/actions/runs/5": false,
		"javascript:alert(1)":                           false,
	} {
		v := changed()
		v.Change.URL = address
		for run, want := range map[string]bool{runURL: want, "": false, "https://elsewhere.example/org/fleet/actions/runs/7": false, repository: false} {
			if got := Summary(v, SummaryOptions{RunURL: run}); strings.Contains(got, "]("+address+")") != want {
				t.Errorf("%q, in %q: a link is %t", address, run, !want)
			}
		}
	}
}
