package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// severalCauses returns a verdict on five hosts that some of 24 derivations kept from being built.
// Each host names another one first.
func severalCauses() *verdict.Verdict {
	p := planOf(host("a", "x86_64-linux"), host("b", "x86_64-linux"), host("c", "x86_64-linux"), host("d", "x86_64-linux"), host("e", "x86_64-linux"), pkg("part00"))
	results := resultsOf(p)
	failure := func(n int) job.Failure {
		return job.Failure{
			DrvPath: drv(fmt.Sprintf("part%02d", n)), Error: fmt.Sprintf("builder for '%s' failed with exit code %d", drv(fmt.Sprintf("part%02d", n)), n),
			Log: []string{fmt.Sprintf("part %d: no good", n)},
		}
	}
	causes := [][]int{nil, {1, 0, 2, 3}, {0, 1}, {1}, {5, 0}, {0}}
	for n := range 24 {
		causes[0] = append(causes[0], n)
	}
	for i, numbers := range causes {
		fail(results[i], 0, drv(fmt.Sprintf("part%02d", numbers[0])), "the log of part", "its end")
		for _, n := range numbers {
			results[i].Targets[0].Causes = append(results[i].Targets[0].Causes, failure(n).DrvPath)
			results[i].Failures = append(results[i].Failures, failure(n))
		}
	}
	return judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
}

// All derivations that failed are named, with all targets that they block.
func TestAllCauses(t *testing.T) {
	t.Parallel()
	v := severalCauses()
	page := HTML(v, SummaryOptions{})
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	short, err := v.Output(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"summary": Summary(v, SummaryOptions{}), "text": Text(v), "page": string(page), "JSON": string(data), "output": string(short)} {
		for n := range 24 {
			if name := fmt.Sprintf("part%02d", n); !strings.Contains(text, name) {
				t.Errorf("%s: %s is not named", what, name)
			}
		}
		if !strings.Contains(text, "exit code 23") {
			t.Errorf("%s: the reason of the last is not said", what)
		}
	}
	if strings.Contains(string(short), "no good") {
		t.Error("there are logs in the output")
	}
	for _, c := range (view{v}).rootCauses(false) {
		var hit []string
		for _, group := range c.affectedTargets() {
			hit = append(hit, targetNames(group.all())...)
		}
		want := map[string]string{
			"part00": "packages.x86_64-linux.part00 nixosConfigurations.a nixosConfigurations.c nixosConfigurations.b nixosConfigurations.e",
			"part01": "nixosConfigurations.b nixosConfigurations.d nixosConfigurations.a nixosConfigurations.c",
			"part05": "nixosConfigurations.e nixosConfigurations.a",
		}[c.name()]
		if got := strings.Join(hit, " "); got != want {
			t.Errorf("%s hits %s, want %s", c.name(), got, want)
		}
	}
}

// With little room, each target is named once before any is named again.
func TestNamesOfManyCauses(t *testing.T) {
	t.Parallel()
	var targets []job.Target
	for i := range 60 {
		targets = append(targets, host(fmt.Sprintf("host%02d", i), "x86_64-linux"))
	}
	p := planOf(targets...)
	results := resultsOf(p)
	for i, r := range results {
		fail(r, 0, drv(fmt.Sprintf("own%02d", i)), "no good")
		r.Targets[0].Causes = []string{drv(fmt.Sprintf("own%02d", i))}
		for n := range results {
			r.Targets[0].Causes = append(r.Targets[0].Causes, drv(fmt.Sprintf("own%02d", n)))
		}
	}
	summary := Summary(judged(p, planKey, results, nil), SummaryOptions{MaxBytes: 16 << 10})
	if len(summary) > 16<<10 {
		t.Errorf("the summary has %d bytes", len(summary))
	}
	for i := range 60 {
		if name := fmt.Sprintf("nixosConfigurations.host%02d", i); !strings.Contains(summary, name) {
			t.Errorf("%s is not named", name)
		}
	}
}

// Without a log, the builder has printed nothing, or was never started.
func TestSilent(t *testing.T) {
	for what, test := range map[string]struct {
		set  func(*job.Result)
		want int
	}{
		"a build":   {func(r *job.Result) { r.Failures[0].Silent = true }, 1},
		"not begun": {func(*job.Result) {}, 0},
		"a step": {func(r *job.Result) {
			r.Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Error: "exit status 1"}
		}, 1},
		"a step's log":  {func(r *job.Result) { r.Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Log: []string{"no"}} }, 0},
		"another's log": {func(r *job.Result) { r.Failures[0].Silent, r.Failures[0].Log = true, []string{"no"} }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			p := planOf(pkg("a"))
			results := resultsOf(p)
			fail(results[0], 0, drv("a"))
			results[0].Failures = []job.Failure{{DrvPath: drv("a")}}
			test.set(results[0])
			v := judged(p, planKey, results, nil)
			page := HTML(v, SummaryOptions{})
			for form, text := range map[string]string{"text": Text(v), "summary": Summary(v, SummaryOptions{}), "page": string(page), "annotation": Annotations(v)[0].Message} {
				if got := strings.Count(strings.ToLower(text), "it printed nothing"); got != test.want {
					t.Errorf("%s: %d times, want %d:\n%s", form, got, test.want, text)
				}
			}
		})
	}
}
