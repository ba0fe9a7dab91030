package conclude

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

// inRun returns the conclusion of an attempt of a run, with a cache.
func inRun(t *testing.T, c cache.Cache, run int64, attempt int, seal *pack.Key) *Conclusion {
	return &Conclusion{
		Docs:    &documents.Store{Cache: c, ID: job.DefaultID, Seal: seal, Run: run, Attempt: attempt},
		Results: t.TempDir(),
		Log:     quiet{},
	}
}

// quiet is a log that nobody reads.
type quiet struct{}

func (quiet) Doing(string, ...any)  {}
func (quiet) Printf(string, ...any) {}
func (quiet) Warn(string, error)    {}

// save saves a Result that a job of the same attempt has made.
func (c *Conclusion) save(t *testing.T, result *job.Result) {
	t.Helper()
	if err := c.Docs.SaveResult(t.Context(), result); err != nil {
		t.Fatal(err)
	}
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
			save := func(run int64, attempt int, entry string, outcome job.Outcome) {
				in := inRun(t, c, run, attempt, seal)
				r := build.NewResult(&job.Entry{ID: entry, Name: entry}, "key", "", "")
				r.Outcome, r.Error = outcome, ""
				in.save(t, r)
			}
			save(7, 1, "0000000001", job.OutcomeFailed)
			save(7, 1, "0000000002", job.OutcomeBuilt)
			save(8, 1, "0000000003", job.OutcomeBuilt) // in another run
			save(7, 2, "0000000001", job.OutcomeBuilt)
			report := inRun(t, c, 7, 2, seal)
			results, complete := report.readResults(t.Context(), plan)
			if complete || len(results) != 2 || results[0].Entry != "0000000001" || results[0].Outcome != job.OutcomeBuilt || results[1].Entry != "0000000002" {
				t.Errorf("complete is %t, %d results: %+v", complete, len(results), results)
			}
			save(7, 2, "0000000003", job.OutcomeCancelled)
			if results, complete := report.readResults(t.Context(), plan); !complete || len(results) != 3 {
				t.Errorf("complete is %t, %d results", complete, len(results))
			}
		})
	}
}

// A document that is no Result of its entry does not count, and hides no other Result.
func TestCachedResultsThatLie(t *testing.T) {
	key, err := pack.NewKey("a secret for the tests")
	if err != nil {
		t.Fatal(err)
	}
	entry := &job.Entry{ID: "0000000002", Name: "two"}
	good, err := build.NewResult(entry, "key", "", "").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"about another entry": string(key.Seal("result", good)),
		"in clear":            strings.ReplaceAll(string(good), "0000000002", "0000000001"),
		"another document":    string(key.Seal("plan", []byte(strings.ReplaceAll(string(good), "0000000002", "0000000001")))),
		"cut off":             string(key.Seal("result", good))[:20],
		"no JSON":             string(key.Seal("result", []byte("{"))),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dir.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			r := inRun(t, c, 7, 1, key)
			r.save(t, build.NewResult(entry, "key", "", ""))
			if err := c.Save(t.Context(), job.ResultKey(job.DefaultID, 7, "0000000001", 1)(0), strings.NewReader(data), int64(len(data))); err != nil {
				t.Fatal(err)
			}
			results, complete := r.readResults(t.Context(), &job.Plan{Entries: []job.Entry{{ID: "0000000001"}, *entry}})
			if complete || len(results) != 1 || results[0].Entry != entry.ID {
				t.Errorf("complete is %t, results %+v", complete, results)
			}
		})
	}
}
