package verdict_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// Proved derivations stay for a while; sizes and times are kept.
func TestRecord(t *testing.T) {
	t.Parallel()
	first := mainRun()
	if len(first.Proved) != 1 { // the fixture's derivations have one hash
		t.Errorf("proved are %v", first.Proved)
	}
	p := planOf(
		skipped(host("notado", "x86_64-linux"), "at cachix:fleet"), host("pi3", "aarch64-linux"), host("nas", "x86_64-linux"),
		skipped(pkg("proviso"), "no need"), pkg("new"), unevaluated(pkg("broken"), "error: no"),
	)
	hash := func(n int) string { return strings.Repeat(string("0123456789abcdf"[n]), 32) }
	for n := range p.Targets {
		if p.Targets[n].DrvPath != "" {
			p.Targets[n].DrvPath = "/nix/store/" + hash(n) + "-" + job.DrvName(p.Targets[n].DrvPath) + ".drv"
		}
	}
	p.Targets[0].Available = true
	for i := range p.Entries {
		for j := range p.Entries[i].Targets {
			p.Entries[i].Targets[j].DrvPath = p.Targets[p.Entries[i].Targets[j].N].DrvPath
		}
	}
	results := resultsOf(p)
	fail(results[0], 0, p.Targets[1].DrvPath, "no")
	for _, r := range results {
		r.Builds = nil
	}
	results[0].Builds = []job.DrvBuild{{DrvPath: drv("gcc-1"), Seconds: 90.4, Emulated: true}, {DrvPath: p.Targets[1].DrvPath, Seconds: 5, Failed: true}}
	results[1].Builds = []job.DrvBuild{{DrvPath: drv("gcc-2"), Seconds: 30}, {DrvPath: drv("quick-1"), Seconds: 0.2}, {DrvPath: drv("odd"), Seconds: math.NaN()}}
	v := judged(p, planKey, results, nil)

	first.Targets[1].DrvPath = p.Targets[0].DrvPath // it has not changed
	first.Seconds = map[string]float64{"gcc x86_64-linux": 3, "clang x86_64-linux": 7}
	today := job.Day(noon)
	results[1].FetchedBytes = 7
	key := job.EntryKey(p.Entries[1].Name, p.Entries[1].System, false)
	first.Entries = map[string]job.EntryTime{key: {Seconds: 1}, "gone x86_64-linux": {Seconds: 5, Day: today - 1}}
	first.Proved = map[string]int{"old": today - verdict.ProvedDays, "recent": today - verdict.ProvedDays + 1, hash(2): today - 3}
	second := v.Record(job.Record{ID: job.DefaultID, Created: noon}, p, results, first)

	if diff := cmp.Diff(map[string]int{"recent": today - verdict.ProvedDays + 1, hash(0): today, hash(2): today, hash(4): today}, second.Proved); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]float64{"gcc x86_64-linux": 30, "clang x86_64-linux": 7, "gcc aarch64-linux emulated": 90}, second.Seconds); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]job.EntryTime{key: {Seconds: 72, Fetched: 7, Day: today}, "x86_64-linux 1/1 x86_64-linux": {Seconds: 72, Day: today}, "gone x86_64-linux": {Seconds: 5, Day: today - 1}}, second.Entries); diff != "" {
		t.Error(diff)
	}
	if got := second.Targets[0]; got.Closure != 3<<29 || got.Parts["linux"] != 100<<20 {
		t.Errorf("the size of what was skipped is %+v", got)
	}
	if got := second.Targets[1]; got.Closure != 0 {
		t.Errorf("what failed has the size %d", got.Closure)
	}
	// After the rerun of an earlier run, the later run stays the one to compare with.
	first.Run, first.Commit = 9, "later"
	again := v.Record(job.Record{ID: job.DefaultID, Run: 7, Commit: "earlier", Created: noon}, p, results, first)
	if again.Run != 9 || again.Commit != "later" || again.Targets[0].Attr != first.Targets[0].Attr || len(again.Targets) != len(first.Targets) || len(again.Proved) != len(second.Proved) {
		t.Errorf("run 7 after run 9 leaves %+v", again)
	}
	if first.Created = noon.Add(time.Hour); slices.ContainsFunc(second.Targets, func(t job.RecordTarget) bool { return t.Attr == "packages.x86_64-linux.gone" }) {
		t.Error("what is gone is still there")
	}
}

func TestRecordOfManyTimes(t *testing.T) {
	t.Parallel()
	before := map[string]float64{}
	for i := range verdict.MaxTimes + 10 {
		before[strings.Repeat("a", i%7)+string(rune('a'+i%26))+time.Duration(i).String()] = float64(i)
	}
	after := verdict.Times(planOf(), nil, before)
	if len(after) != verdict.MaxTimes || slices.Contains(slices.Collect(maps.Values(after)), 9) {
		t.Errorf("%d are kept", len(after))
	}
	entries := map[string]job.EntryTime{}
	for i := range verdict.MaxEntryTimes + 10 {
		entries[time.Duration(i).String()] = job.EntryTime{Seconds: 1, Day: i}
	}
	if after := verdict.EntryTimes(planOf(), nil, entries, 9999); len(after) != verdict.MaxEntryTimes || after[time.Duration(9).String()].Day != 0 || after[time.Duration(10).String()].Day != 10 {
		t.Errorf("%d are kept", len(after))
	}
}

// Whatever the times of a Result are, the next run can read the record.
func TestRecordOfOddTimes(t *testing.T) {
	t.Parallel()
	p := planOf(host("nas", "x86_64-linux"))
	results := resultsOf(p)
	results[0].Started, results[0].Finished = time.Time{}, time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	results[0].Builds = []job.DrvBuild{{DrvPath: p.Targets[0].DrvPath, Seconds: 1e300}}
	r := job.Record{Version: job.Version, ID: job.DefaultID, Seconds: verdict.Times(p, results, nil), Entries: verdict.EntryTimes(p, results, nil, 1)}
	data, err := r.Marshal()
	if err == nil {
		_, err = job.ParseRecord(data)
	}
	if err != nil || len(r.Entries) == 0 || len(r.Seconds) == 0 {
		t.Errorf("%+v: %v", r, err)
	}
}
