package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
	"github.com/org/nix-matrix/pkg/verdict/verdicttest"
)

var styleHash = regexp.MustCompile(`sha256-[^']+`)

var update = flag.Bool("update", false, "write the golden files in testdata")

// goldens are verdicts whose reports are in testdata, for people to read.
var goldens = map[string]func() *verdict.Verdict{
	"green": func() *verdict.Verdict {
		p := planOf(pkg("website"), host("notado", "x86_64-linux"), host("pi3", "aarch64-linux"), skipped(pkg("backup"), "cachix:fleet has it"), pkg("notado"))
		p.Notices = []string{"Left out, since only x86_64-linux and aarch64-linux are wanted: darwinConfigurations.mini."}
		p.Took = map[string]job.EntryTime{p.Entries[0].ID: {Seconds: 70}, p.Entries[1].ID: {Seconds: 1}, p.Entries[2].ID: {Seconds: 11}}
		results := resultsOf(p)
		results[0].Targets[1].Outcome = job.OutcomeFetched
		results[1].Outcome = job.OutcomePresent
		results[1].Targets[0].Outcome, results[1].Targets[0].Seconds = job.OutcomePresent, 0
		emulate(results[2])
		for i, r := range results {
			r.Pushes = []job.Push{{Destination: "cachix:fleet", Paths: 100 + i, Seconds: 4}, {Destination: "s3://cache", Paths: 100 + i, Sent: 7 * i, Bytes: int64(i) << 23, Seconds: 2.5}}
			r.Fetched, r.FetchedBytes = 800*i, int64(i)<<30
			r.Restored = &job.Restored{Paths: 40, Read: 30 << 20}
			r.Saved = []job.Pack{{Key: "pack", Paths: i, Size: int64(i) << 20}}
		}
		v := judged(p, planKey, results, needsOf(verdict.Success, verdict.Success))
		v.Origin = &verdict.Origin{
			Repository: "org/fleet", Commit: "0123456789abcdef0123456789abcdef01234567",
			Created: time.Date(2026, 11, 29, 8, 10, 0, 0, time.UTC), Machine: "x86_64-linux", Nix: "2.34.8",
		}
		return v
	},
	"failure": func() *verdict.Verdict {
		p := planOf(
			host("nas", "x86_64-linux"), host("notado", "x86_64-linux"), host("pi3", "aarch64-linux"), host("router", "x86_64-linux"),
			unevaluated(host("old", ""), "error: The option `services.foo' does not exist. Definition values:\n       - In `/nix/store/0123-source/hosts/old': true"),
			unevaluated(host("older", ""), "error: The option `services.foo' does not exist. Definition values:\n       - In `/nix/store/0123-source/hosts/old': true"),
			pkg("a"), pkg("b"), skipped(pkg("c"), "cachix:fleet has it"),
		)
		results := resultsOf(p)
		fail(results[0], 0, drv("openssl-3.0.13"), "checking for perl... no", "", "\x1b[31mconfigure: error:\x1b[0m perl is needed", "make: *** [all] Error 2")
		fail(results[2], 0, drv("openssl-3.0.13"), "checking for perl... no", "make: *** [all] Error 2")
		emulate(results[2])
		fail(results[4], 1, drv("b"), "  indented", "\tby a tab", "10%\r50%\r100%")
		results[0].Failures = []job.Failure{{DrvPath: drv("openssl-3.0.13"), LogFile: "0123-openssl-3.0.13.log", LogArtifact: "nix-matrix.log.1a2b"}}
		results[4].Failures = []job.Failure{{DrvPath: drv("b"), LogFile: "/home/me/.cache/nix-matrix/cache/run/nix-matrix/logs/1a2b/0123-b.log", NixLog: true}}
		results[1].Pushes = []job.Push{{Destination: "cachix:fleet", Paths: 412, Seconds: 31, Error: "401 Unauthorized: the token has expired"}}
		results[1].Error = "push to cachix:fleet: 401 Unauthorized:\nthe token has expired"
		results[3].Plan = otherPlanKey
		return judged(p, planKey, results, verdict.Needs{
			"discover": needsOf(verdict.Success, verdict.Failure)["discover"], "build": {Result: verdict.Failure}, "lint": {Result: verdict.Failure},
		})
	},
	"cancelled": func() *verdict.Verdict {
		p := planOf(host("nas", "x86_64-linux"), host("notado", "x86_64-linux"), host("pi3", "aarch64-linux"))
		results := resultsOf(p)
		results[1].Outcome, results[1].Targets[0].Outcome, results[1].Targets[0].Outputs = job.OutcomeCancelled, job.OutcomeCancelled, nil
		results[1].Error = "the build was stopped"
		return judged(p, planKey, results[:2], needsOf(verdict.Success, verdict.Cancelled))
	},
	// One build failed, others were stopped at the deadline, and steps after the build failed or
	// were skipped.
	"steps": func() *verdict.Verdict {
		p := planOf(
			host("nas", "x86_64-linux"), host("pi3", "aarch64-linux"), host("pi4", "aarch64-linux"), host("router", "x86_64-linux"), host("vault", "x86_64-linux"),
			pkg("nginx"), pkg("website"),
		)
		p.Notices, p.Emulated = []string{"Another one."}, []string{"aarch64-linux"}
		results := resultsOf(p)
		results[0].Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Seconds: 3, Error: "exit status 255", Log: []string{"ssh: connect to host nas port 22: No route to host"}}
		results[0].Outcome = job.OutcomeFailed
		for _, r := range results[1:3] {
			emulate(r)
			r.TimedOut, r.Outcome = true, job.OutcomeCancelled
			r.Error = "5h45m after the start (input timeout)"
			r.Targets[0].Outcome, r.Targets[0].Outputs = job.OutcomeCancelled, nil
		}
		results[3].Targets[0].PostBuild = &job.Step{Outcome: job.StepSkipped, Error: "DEPLOY_KEY is not set, as in a pull request from a fork"}
		results[4].Targets[0].PostBuild = &job.Step{Outcome: job.StepDone, Seconds: 5}
		emulate(results[3])
		fail(results[5], 0, drv("nginx"), "cc -c src/a.c", "src/a.c:12:5: error: expected ';'")
		fail(results[5], 1, drv("nginx"), "cc -c src/a.c", "src/a.c:12:5: error: expected ';'")
		results[5].Targets[0].File, results[5].Targets[0].Line = "src/a.c", 12
		results[4].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "502 Bad Gateway", Optional: true}}
		return judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
	},
	// Jobs ran on several kinds of runners.
	"cost": func() *verdict.Verdict {
		p, results := verdicttest.Costly()
		v := judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
		private := false
		v.Cost.Private, v.Cost.SharedSeconds = &private, 240
		return v
	},
	// One host of four has another derivation now, one cannot be evaluated any more.
	"change": changed,
	// Hosts share units, some of which a helper builds; one of them fails.
	"shared":  sharedWork,
	"no-plan": func() *verdict.Verdict { return judged(nil, "", nil, needsOf(verdict.Failure, verdict.Skipped)) },
	"no-matrix": func() *verdict.Verdict {
		needs := needsOf(verdict.Success, verdict.Skipped)
		delete(needs["discover"].Outputs, "matrix")
		return judged(planOf(host("pi3", "aarch64-linux"), pkg("a")), planKey, nil, needs)
	},
	"other-plan": func() *verdict.Verdict {
		p := planOf(host("pi3", "aarch64-linux"))
		p.Run, p.Attempt = 6, 1
		return judged(p, otherPlanKey, resultsOf(p), needsOf(verdict.Success, verdict.Success))
	},
	"nothing": func() *verdict.Verdict {
		return judged(planOf(skipped(pkg("a"), "cachix:fleet has it")), planKey, nil, needsOf(verdict.Success, verdict.Skipped))
	},
	"many": func() *verdict.Verdict {
		var targets []job.Target
		for i := range 40 {
			targets = append(targets, host(fmt.Sprintf("host%02d", i), "x86_64-linux"))
		}
		p := planOf(targets...)
		results := resultsOf(p)
		for i := range 25 {
			fail(results[i], 0, drv("glibc"), "out of memory")
		}
		for i := 30; i < 33; i++ {
			fail(results[i], 0, drv(fmt.Sprintf("nixos-system-host%02d", i)), "nope")
		}
		return judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
	},
	// Several dependencies of a host failed.
	"causes": severalCauses,
	"hostile": func() *verdict.Verdict {
		return hostile("`|</code></details>\n## ❌ @octocat #1 [x](https://evil.example)\\")
	},
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, verdict := range goldens {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verdict()
			var annotations strings.Builder
			for _, a := range Annotations(v) {
				at := ""
				if a.File != "" {
					at = fmt.Sprintf(" (%s, line %d)", a.File, a.Line)
				}
				fmt.Fprintf(&annotations, "%s: %s%s\n  %s\n", a.Level, a.Title, at, strings.ReplaceAll(a.Message, "\n", "\n  "))
			}
			golden(t, name+".md", Summary(v, SummaryOptions{RunURL: runURL + "/attempts/1"}))
			page := HTML(v, SummaryOptions{RunURL: runURL + "/attempts/1"})
			if again := HTML(verdict(), SummaryOptions{RunURL: runURL + "/attempts/1"}); !bytes.Equal(page, again) {
				t.Error("the same documents give two pages")
			}
			golden(t, name+".html", styleHash.ReplaceAllString(strings.Replace(string(page), pageCSS, "", 1), "sha256-…"))
			golden(t, name+".txt", Text(v)+"\n--- annotations\n"+annotations.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), run go test ./pkg/report -update if that is right:\n%s", file, diff)
	}
}

func TestVerdictIsJSON(t *testing.T) {
	t.Parallel()
	v := goldens["failure"]()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var again verdict.Verdict
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, &again); diff != "" {
		t.Errorf("JSON and back (-want +got):\n%s", diff)
	}
	for _, field := range []string{`"status":"failure"`, `"counts":{"built":`, `"destination":"cachix:fleet"`} {
		if !strings.Contains(string(data), field) {
			t.Errorf("%s is not in %s", field, data)
		}
	}
}
