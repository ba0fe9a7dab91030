package job_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

func newResult() *job.Result {
	start := time.Date(2026, 9, 1, 12, 0, 0, 5, time.UTC)
	built := func() []job.DrvBuild {
		return []job.DrvBuild{{DrvPath: other, Started: start, Seconds: 0.5, Failed: true}}
	}
	return &job.Result{
		Version: job.Version,
		Plan:    "nix-matrix-plan0-0",
		Entry:   "7f3a", Name: "nixosConfigurations.pi3",
		Outcome: job.OutcomeFailed, Error: "error: boom",
		Started: start, Finished: start.Add(time.Minute), Emulated: true, TimedOut: true,
		Runner: "GitHub Actions 3", URL: "https://github.com/org/repo/actions/runs/1",
		Targets: []job.TargetResult{
			{
				N: 0, Attr: "nixosConfigurations.pi3", DrvPath: drv, Outcome: job.OutcomeBuilt, Seconds: 2,
				Outputs:   []job.Output{{Name: "out", Path: outPath, Size: 1, Closure: 2}},
				PostBuild: &job.Step{Outcome: job.StepFailed, Seconds: 1, Error: "exit status 2", Log: []string{"no route to host"}},
			},
			{
				N: 1, Attr: "a", DrvPath: other, Outcome: job.OutcomeFailed, Error: "boom", Cause: other, Causes: []string{other, drv}, Log: []string{"::error::x"}, Reproduce: "nix build",
				File: "pkgs/a/it's.c", Line: 12,
			},
		},
		Failures: []job.Failure{{DrvPath: other, Error: "boom", Log: []string{"::error::x"}, File: "a.c", Line: 1}, {DrvPath: drv, Error: "too"}},
		Builds:   built(),
		Pushes:   []job.Push{{Destination: "cachix:my-fleet", Paths: 1, Seconds: 1, Error: "refused", Reason: job.PushRefused, Status: 403, Optional: true, Withheld: true}},
		Imported: 20, Downloaded: 1 << 40,
	}
}

func resultJSON(t *testing.T, r *job.Result) []byte {
	t.Helper()
	data, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestResultRoundTrip(t *testing.T) {
	want := newResult()
	got, err := job.ParseResult(resultJSON(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a result comes back as another one:\n%s", diff)
	}
}

// A worker that was killed leaves a Result without targets.
func TestParseResultWithoutTargets(t *testing.T) {
	r := newResult()
	r.Targets, r.Builds, r.Pushes = []job.TargetResult{}, nil, nil
	if _, err := job.ParseResult(resultJSON(t, r)); err != nil {
		t.Error(err)
	}
}

// badFiles are not in a repository, or look like other files.
var badFiles = []string{
	"/etc/passwd", "..", "../a", "a/../b", "a/..", ".", "./a", "a//b", "a/", "a\nb", "a\rb", "a\x00b", "a\x1b[2Jb",
	"a\u202eb", "a\u2028b", strings.Repeat("a/", 2048) + "a",
}

func TestParseResultRefuses(t *testing.T) {
	refuse := func(what string, change func(*job.Result)) {
		t.Helper()
		r := newResult()
		change(r)
		if _, err := job.ParseResult(resultJSON(t, r)); err == nil {
			t.Errorf("a result with %s passes", what)
		}
	}
	refuse("another version", func(r *job.Result) { r.Version++ })
	refuse("a negative target", func(r *job.Result) { r.Targets[0].N = -1 })
	for _, bad := range []job.Outcome{"", "OK", "success", "built "} {
		refuse("the outcome "+string(bad), func(r *job.Result) { r.Outcome = bad })
		refuse("a target's outcome "+string(bad), func(r *job.Result) { r.Targets[1].Outcome = bad })
	}
	for _, bad := range badIDs {
		refuse("the entry "+bad, func(r *job.Result) { r.Entry = bad })
	}
	for _, bad := range badDrvs {
		refuse("the derivation "+bad, func(r *job.Result) { r.Targets[0].DrvPath = bad })
		refuse("the cause "+bad, func(r *job.Result) { r.Targets[1].Cause = bad })
		refuse("the further cause "+bad, func(r *job.Result) { r.Targets[1].Causes[1] = bad })
		refuse("the failure "+bad, func(r *job.Result) { r.Failures[1].DrvPath = bad })
		refuse("the build "+bad, func(r *job.Result) { r.Builds[0].DrvPath = bad })
	}
	for _, bad := range badOutputs {
		refuse("the output "+bad, func(r *job.Result) { r.Targets[0].Outputs[0].Name = bad })
	}
	for what, push := range map[string]job.Push{
		"no known reason":             {Error: "no", Reason: "because"},
		"a reason and no error":       {Reason: job.PushRefused},
		"no reason to withhold":       {Error: "no", Withheld: true, Optional: true},
		"withheld secrets, but a red": {Error: "no", Withheld: true, Reason: job.PushNoSecret},
	} {
		refuse("a push with "+what, func(r *job.Result) { r.Pushes[0] = push })
	}
	refuse("a negative line", func(r *job.Result) { r.Targets[1].Line = -1 })
	refuse("a negative line of a failure", func(r *job.Result) { r.Failures[0].Line = -1 })
	refuse("causes without end", func(r *job.Result) { r.Targets[1].Causes = slices.Repeat(r.Targets[1].Causes, 10_000) })
	refuse("failures without end", func(r *job.Result) { r.Failures = slices.Repeat(r.Failures, 10_000) })
	for _, bad := range badFiles {
		refuse("the file of a failure "+bad, func(r *job.Result) { r.Failures[0].File = bad })
		refuse("the file "+bad, func(r *job.Result) { r.Targets[1].File = bad })
	}
	for _, bad := range []string{"", "built", "Done", "done\n"} {
		refuse("the step "+bad, func(r *job.Result) { r.Targets[0].PostBuild.Outcome = bad })
	}
	for _, bad := range []string{"", "/etc/passwd", outPath + "/bin"} {
		refuse("the output path "+bad, func(r *job.Result) { r.Targets[0].Outputs[0].Path = bad })
	}
}

func TestOutcomeOK(t *testing.T) {
	for outcome, want := range map[job.Outcome]bool{
		job.OutcomeBuilt: true, job.OutcomeFetched: true, job.OutcomePresent: true,
		job.OutcomeFailed: false, job.OutcomeCancelled: false, "": false, "success": false,
	} {
		if outcome.OK() != want {
			t.Errorf("%q is OK: %t", outcome, !want)
		}
	}
}

// FuzzParseResult: a Result that passes is safe and can be written again.
func FuzzParseResult(f *testing.F) {
	data, _ := newResult().Marshal()
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"version":1,"entry":"a","outcome":"built","targets":[],"pushes":[{"seconds":1e308}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := job.ParseResult(data)
		if err != nil {
			return
		}
		safeID(t, r.Entry)
		for _, target := range r.Targets {
			safePath(t, target.DrvPath, ".drv")
			for _, o := range target.Outputs {
				safeOutput(t, o.Name)
				safePath(t, o.Path, "")
			}
			if strings.ContainsAny(target.File, "\n\r\x00\x1b") || target.File != "" && !filepath.IsLocal(target.File) {
				t.Errorf("the file %q passes", target.File)
			}
		}
		once := resultJSON(t, r)
		again, err := job.ParseResult(once)
		if err != nil {
			t.Fatalf("what passed once does not pass again: %v\n%s", err, once)
		}
		if diff := cmp.Diff(string(once), string(resultJSON(t, again))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestConclude(t *testing.T) {
	const present, fetched, built, cancelled, failed = job.OutcomePresent, job.OutcomeFetched, job.OutcomeBuilt, job.OutcomeCancelled, job.OutcomeFailed
	for name, test := range map[string]struct {
		targets []job.Outcome
		result  job.Result
		stopped bool
		want    job.Outcome
	}{
		"nothing":                    {nil, job.Result{}, false, present},
		"the worst":                  {[]job.Outcome{present, built, fetched}, job.Result{}, false, built},
		"one failed":                 {[]job.Outcome{built, failed, cancelled}, job.Result{}, false, failed},
		"one failed, then stopped":   {[]job.Outcome{failed, cancelled}, job.Result{}, true, failed},
		"stopped":                    {[]job.Outcome{built, cancelled}, job.Result{}, true, cancelled},
		"stopped when all was built": {[]job.Outcome{built}, job.Result{}, true, built},
		"an error of its own":        {[]job.Outcome{built}, job.Result{Error: "x"}, false, failed},
		"an error since it stopped":  {[]job.Outcome{built}, job.Result{Error: "x"}, true, cancelled},
		"a push failed":              {[]job.Outcome{built}, job.Result{Pushes: []job.Push{{}, {Error: "x"}}}, false, failed},
		"an optional push failed":    {[]job.Outcome{built}, job.Result{Pushes: []job.Push{{Error: "x", Optional: true}}}, false, built},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.result
			for _, outcome := range test.targets {
				r.Targets = append(r.Targets, job.TargetResult{Outcome: outcome})
			}
			if r.Conclude(test.stopped); r.Outcome != test.want {
				t.Errorf("it is %s, want %s", r.Outcome, test.want)
			}
		})
	}
}
