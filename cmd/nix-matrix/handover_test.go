package main

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

func inRun(t *testing.T, run, attempt string, seal *pack.Key) *app {
	env := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": run, "GITHUB_RUN_ATTEMPT": attempt}
	a := newApp(streams{out: io.Discard, err: io.Discard}, func(name string) string { return env[name] })
	t.Cleanup(a.show.Close)
	a.id, a.seal = job.DefaultID, seal
	return a
}

// The report takes from the cache what the latest attempt of each entry has saved, in this run.
func TestCachedResults(t *testing.T) {
	key, err := pack.NewKey("a secret for the tests")
	if err != nil {
		t.Fatal(err)
	}
	for name, seal := range map[string]*pack.Key{"in clear": nil, "sealed": key} {
		t.Run(name, func(t *testing.T) {
			c, err := dir.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			entries := []job.Entry{{ID: "0000000001"}, {ID: "0000000002"}, {ID: "0000000003"}}
			plan := &job.Plan{Entries: entries}
			save := func(run, attempt, entry string, outcome job.Outcome) {
				a := inRun(t, run, attempt, seal)
				r := a.newResult(&job.Entry{ID: entry, Name: entry}, "key")
				r.Outcome, r.Error = outcome, ""
				a.saveResult(t.Context(), c, r)
			}
			save("7", "1", "0000000001", job.OutcomeFailed)
			save("7", "1", "0000000002", job.OutcomeBuilt)
			save("8", "1", "0000000003", job.OutcomeBuilt) // in another run
			save("7", "2", "0000000001", job.OutcomeBuilt)
			report := &reporter{app: inRun(t, "7", "2", seal), results: t.TempDir()}
			results, complete := report.readResults(t.Context(), c, plan)
			if complete || len(results) != 2 || results[0].Entry != "0000000001" || results[0].Outcome != job.OutcomeBuilt || results[1].Entry != "0000000002" {
				t.Errorf("complete is %t, %d results: %+v", complete, len(results), results)
			}
			save("7", "2", "0000000003", job.OutcomeCancelled)
			if results, complete := report.readResults(t.Context(), c, plan); !complete || len(results) != 3 {
				t.Errorf("complete is %t, %d results", complete, len(results))
			}
		})
	}
}

// What is no Result of the entry is none at all, and does not hide the others.
func TestCachedResultsThatLie(t *testing.T) {
	key, err := pack.NewKey("a secret for the tests")
	if err != nil {
		t.Fatal(err)
	}
	a := inRun(t, "7", "1", key)
	entry := &job.Entry{ID: "0000000002", Name: "two"}
	good, err := a.newResult(entry, "key").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"about another entry": string(key.Seal(resultDocument, good)),
		"in clear":            strings.ReplaceAll(string(good), "0000000002", "0000000001"),
		"another document":    string(key.Seal(planDocument, []byte(strings.ReplaceAll(string(good), "0000000002", "0000000001")))),
		"cut off":             string(key.Seal(resultDocument, good))[:20],
		"no JSON":             string(key.Seal(resultDocument, []byte("{"))),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dir.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			a.saveResult(t.Context(), c, a.newResult(entry, "key"))
			if err := c.Save(t.Context(), a.resultPrefix("0000000001")+"1-0", strings.NewReader(data), int64(len(data))); err != nil {
				t.Fatal(err)
			}
			r := &reporter{app: a, results: t.TempDir()}
			results, complete := r.readResults(t.Context(), c, &job.Plan{Entries: []job.Entry{{ID: "0000000001"}, *entry}})
			if complete || len(results) != 1 || results[0].Entry != entry.ID {
				t.Errorf("complete is %t, results %+v", complete, results)
			}
		})
	}
}

// Many jobs that end together do not all create cache entries in the same minute; few do not wait.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		spread(t.Context(), 100)
		if took := time.Since(start); took != 0 {
			t.Errorf("a hundred entries wait %v", took)
		}
		longest := time.Duration(0)
		for range 100 {
			start := time.Now()
			spread(t.Context(), 256)
			longest = max(longest, time.Since(start))
		}
		if longest < 30*time.Second || longest > 94*time.Second {
			t.Errorf("of 256 entries, one waits %v", longest)
		}
	})
}
