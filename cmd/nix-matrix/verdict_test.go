package main

import (
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A gate is a run of a workflow at its end: what the report finds, as files, and what
// is true. Its jobs and GitHub are honest; then an adversary changes one thing.
type gate struct {
	random  *rand.Rand
	key     *pack.Key // nil in clear
	run     int64
	attempt int // of the report; that of discovery may be an earlier one
	plan    *job.Plan
	needs   verdict.Needs
	files   map[string][]byte // by name, "plan.json" and "results/…", as they arrive
	good    bool              // all is done
	faults  int               // how many things may go wrong yet
	// lenient says that the build jobs succeed whatever their result is, as with
	// continue-on-error.
	lenient bool
	links   map[string]string // symlinks, by name
	dir     string            // for the files
}

// How GitHub and the encryption key protect a run.
type protection struct{ sealed, lenient bool }

var protections = map[string]protection{
	"in clear":                          {},
	"in clear, whose jobs always pass":  {lenient: true},
	"sealed, whose jobs always succeed": {sealed: true, lenient: true},
}

const randomRuns = 600

// seeds are those of runs that attacks made green while a check of the gate was missing,
// beside the first few: of the plan that a Result is of, of an entry's outcome where its
// targets are well, of a push that failed.
var seeds = map[string][]uint64{
	"add a result of another run":             {11},
	"replace a result by that of another run": {11},
	"change what a result says of success":    {238, 764},
}

func storePath(random *rand.Rand, name string) string {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	hash := make([]byte, 32)
	for i := range hash {
		hash[i] = digits[random.IntN(len(digits))]
	}
	return "/nix/store/" + string(hash) + "-" + name
}

// newGate makes a run in which so many targets and entries may fail at most.
func newGate(random *rand.Rand, p protection, key *pack.Key, faults int) *gate {
	g := &gate{random: random, run: 7, attempt: 1 + random.IntN(2), lenient: p.lenient, good: true, faults: faults}
	if p.sealed {
		g.key = key
	}
	g.plan = &job.Plan{Version: job.Version, ID: job.DefaultID, Source: ".", Run: g.run, Attempt: 1 + random.IntN(g.attempt), Targets: []job.Target{}, Entries: []job.Entry{}}
	idle := random.IntN(4) == 0 // there is nothing to build
	for n := range random.IntN(6) {
		g.plan.Targets = append(g.plan.Targets, g.target(n, idle))
	}
	g.group()
	g.finish()
	return g
}

// another is another run in which all is good, of the same commit or of another one.
func (g *gate) another() *gate {
	other := newGate(g.random, protection{g.key != nil, g.lenient}, g.key, 0)
	if g.random.IntN(2) == 0 {
		other.plan.Targets, other.plan.Entries = g.plan.Targets, g.plan.Entries
	}
	other.run = 6
	other.plan.Run = other.run
	other.finish()
	return other
}

// finish has the jobs leave their documents.
func (g *gate) finish() {
	g.files, g.links = map[string][]byte{}, map[string]string{}
	data, err := g.plan.Marshal()
	must(err)
	g.files["plan.json"] = g.key.Seal("plan", data)
	planKey := job.PlanKey(g.plan.ID, g.key.Fingerprint(), data)(g.random.IntN(2))
	built := verdict.Success
	for i := range g.plan.Entries {
		if result := g.result(&g.plan.Entries[i], planKey); result != verdict.Success && !g.lenient {
			built = result
		}
	}
	if len(g.plan.Entries) == 0 {
		built = verdict.Skipped
	}
	matrix, err := json.Marshal(g.plan.Matrix(planKey))
	must(err)
	outputs := map[string]string{"plan": planKey, "matrix": string(matrix), "count": strconv.Itoa(len(g.plan.Entries))}
	if len(g.plan.Entries) > 0 && g.random.IntN(3) == 0 {
		delete(outputs, "plan") // the rows name it too
	}
	g.needs = verdict.Needs{"discover": {Result: verdict.Success, Outputs: outputs}, "build": {Result: built, Outputs: map[string]string{}}}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (g *gate) target(n int, idle bool) job.Target {
	name := fmt.Sprintf("t%d", n)
	t := job.Target{Attr: "packages.x86_64-linux." + name, Name: name, Kind: job.Package, System: "x86_64-linux", State: job.StateBuild, DrvPath: storePath(g.random, name) + ".drv", OutPaths: map[string]string{}}
	t.Outputs = [][]string{{"out"}, {"out", "dev"}, {"bin", "out", "man"}}[g.random.IntN(3)]
	for _, output := range t.Outputs {
		if g.random.IntN(5) > 0 {
			t.OutPaths[output] = storePath(g.random, name+"-"+output)
		}
	}
	kinds := 8
	if idle {
		kinds = 3
	}
	switch g.random.IntN(kinds) {
	case 0:
		t.State, t.Reason = job.StateSkip, "built by main already"
		if t.HasPaths() && g.random.IntN(2) == 0 {
			t.Available, t.Reason = true, "at cachix:fleet"
		}
	case 1, 2:
		if g.fault() {
			t = job.Target{Attr: t.Attr, Name: t.Name, Kind: t.Kind, State: job.StateFailed, Error: "error: undefined variable 'x'"}
		} else if idle {
			t.State, t.Reason = job.StateSkip, "proviso: nothing to do"
		}
	}
	return t
}

// fault reports whether something goes wrong.
func (g *gate) fault() bool {
	if g.faults == 0 {
		return false
	}
	g.faults--
	g.good = false
	return true
}

// group makes entries of what is to be built.
func (g *gate) group() {
	for n, t := range g.plan.Targets {
		if t.State != job.StateBuild {
			continue
		}
		ref := job.Ref{N: n, Attr: t.Attr, DrvPath: t.DrvPath}
		if last := len(g.plan.Entries) - 1; last >= 0 && g.random.IntN(2) == 0 {
			g.plan.Entries[last].Targets = append(g.plan.Entries[last].Targets, ref)
			continue
		}
		g.plan.Entries = append(g.plan.Entries, job.Entry{
			Name: t.Name, ID: job.NewEntryID(t.Name), System: t.System, Platform: t.System, Attr: t.Attr, DrvPath: t.DrvPath, Outputs: t.Outputs,
			Runner: []string{"ubuntu-latest"}, Targets: []job.Ref{ref},
		})
	}
}

// done is the Result of an entry of which all targets are done, as a worker makes it.
func (g *gate) done(e *job.Entry, planKey string) *job.Result {
	start := time.Date(2026, 9, 1, 12, g.random.IntN(60), 0, 0, time.UTC)
	r := &job.Result{Version: job.Version, Plan: planKey, Entry: e.ID, Name: e.Name, Outcome: job.OutcomeBuilt, Started: start, Finished: start.Add(time.Minute), Targets: []job.TargetResult{}}
	for _, ref := range e.Targets {
		t := job.TargetResult{N: ref.N, Attr: ref.Attr, DrvPath: ref.DrvPath, Outcome: []job.Outcome{job.OutcomeBuilt, job.OutcomeFetched, job.OutcomePresent}[g.random.IntN(3)]}
		for _, output := range g.plan.Targets[ref.N].Outputs {
			path := g.plan.Targets[ref.N].OutPaths[output]
			if path == "" {
				path = storePath(g.random, "floating")
			}
			t.Outputs = append(t.Outputs, job.Output{Name: output, Path: path, Size: 100, Closure: 1000})
		}
		r.Targets = append(r.Targets, t)
	}
	r.Pushes = []job.Push{{Destination: "cachix:fleet", Paths: 3}}
	return r
}

// result leaves the Result of an entry, and says how its job ends.
func (g *gate) result(e *job.Entry, planKey string) verdict.Status {
	r := g.done(e, planKey)
	how, status := g.random.IntN(16), verdict.Failure
	if how < 9 && !g.fault() {
		how = 9
	}
	at := &r.Targets[g.random.IntN(len(r.Targets))]
	switch how {
	case 0, 1:
		at.Outcome, at.Outputs, at.Cause, at.Error, r.Outcome = job.OutcomeFailed, nil, at.DrvPath, "builder failed with exit code 1", job.OutcomeFailed
	case 2:
		at.Outcome, at.Outputs, at.Error, r.Outcome, r.Error = job.OutcomeCancelled, nil, "the build was stopped", job.OutcomeCancelled, "the build was stopped"
		status = verdict.Cancelled
	case 3: // the worker was killed
		r.Outcome, r.Error, r.Finished, r.Targets, r.Pushes = job.OutcomeFailed, "the worker ended before it could say anything", r.Started, nil, nil
	case 4:
		r.Pushes[0].Error, r.Outcome = "401 Unauthorized", job.OutcomeFailed
	case 5:
		at.PostBuild = &job.Step{Outcome: job.StepFailed, Error: "exit status 1"}
		at.Outcome, at.Error, r.Outcome = job.OutcomeFailed, at.PostBuild.Error, job.OutcomeFailed
	case 6:
		at.Outcome, at.Outputs, at.Error, r.Outcome, r.TimedOut, r.Error = job.OutcomeCancelled, nil, "the build was stopped", job.OutcomeFailed, true, "the deadline came"
	case 7: // the machine was lost
		return verdict.Failure
	case 8: // the deadline came while it pushed
		r.TimedOut, r.Outcome, r.Error = true, job.OutcomeFailed, "the deadline came"
	default:
		status = verdict.Success
	}
	if status == verdict.Success && g.random.IntN(6) == 0 { // it was run again, and had failed at first
		first := *g.done(e, planKey)
		first.Started, first.Finished = first.Started.Add(-2*time.Hour), first.Finished.Add(-2*time.Hour)
		first.Outcome, first.Error, first.Targets = job.OutcomeFailed, "the hand-over failed", nil
		g.write("results/first-"+e.ID+".json", &first)
	}
	g.write("results/"+e.ID+".json", r)
	return status
}

func (g *gate) write(name string, r *job.Result) {
	data, err := r.Marshal()
	must(err)
	g.files[name] = g.key.Seal("result", data)
}

// names are those of the files, or of the Results alone, in order.
func (g *gate) names(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(g.files)), func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// judge has the command read what is there, and returns its verdict.
func (g *gate) judge(t *testing.T) *verdict.Verdict {
	t.Helper()
	dir := filepath.Join(g.dir, crand.Text())
	must(os.Mkdir(dir, 0o700))
	must(os.Mkdir(filepath.Join(dir, "results"), 0o700))
	needs, err := json.Marshal(g.needs)
	must(err)
	must(os.WriteFile(filepath.Join(dir, "needs.json"), needs, 0o600))
	for name, data := range g.files {
		must(os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	for name, data := range g.links {
		target := filepath.Join(dir, filepath.Base(name)+".elsewhere")
		must(os.WriteFile(target, []byte(data), 0o600))
		must(errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(target, filepath.Join(dir, name))))
	}
	env := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": strconv.FormatInt(g.run, 10), "GITHUB_RUN_ATTEMPT": strconv.Itoa(g.attempt)}
	a := newApp(streams{out: io.Discard, err: io.Discard}, func(name string) string { return env[name] })
	defer a.log.Close()
	a.id = job.DefaultID
	docs, err := a.documents()
	must(err)
	docs.Seal = g.key
	r := &reporter{app: a, docs: docs, plan: filepath.Join(dir, "plan.json"), results: filepath.Join(dir, "results"), needs: "@" + filepath.Join(dir, "needs.json")}
	v, _, err := r.conclusion().Judge(t.Context())
	var wrong *usage.Error
	if errors.As(err, &wrong) {
		return &verdict.Verdict{Status: verdict.Failure, Reason: err.Error()}
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// evidence checks that a green verdict is on what the run was to do, and has evidence of
// each target.
func (g *gate) evidence(t *testing.T, v *verdict.Verdict) {
	t.Helper()
	if v.Status != verdict.Success {
		return
	}
	if len(v.Targets) != len(g.plan.Targets) {
		t.Errorf("green on %d targets, and there are %d", len(v.Targets), len(g.plan.Targets))
		return
	}
	for i, got := range v.Targets {
		want := g.plan.Targets[i]
		switch {
		case got.Target.Attr != want.Attr || got.Target.DrvPath != want.DrvPath:
			t.Errorf("%s is taken for %s", got.Target.Attr, want.Attr)
		case want.State == job.StateSkip && got.Status == verdict.TargetSkipped:
			if want.Available && !want.HasPaths() {
				t.Errorf("%s is there already, and nobody knows where", want.Attr)
			}
		case want.State != job.StateBuild || got.Result == nil || !got.Result.Outcome.OK():
			t.Errorf("%s is %s, and green: %+v", want.Attr, want.State, got)
		default:
			var names []string
			for _, o := range got.Result.Outputs {
				names = append(names, o.Name)
				if known := want.OutPaths[o.Name]; o.Path == "" || known != "" && known != o.Path {
					t.Errorf("%s has the output %s at %s, not at %s", want.Attr, o.Name, o.Path, known)
				}
			}
			if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(want.Outputs))) {
				t.Errorf("%s has the outputs %q of %q", want.Attr, names, want.Outputs)
			}
		}
	}
}

// clone is a run whose parts can be changed.
func (g *gate) clone() *gate {
	c := *g
	c.files, c.needs, c.links = maps.Clone(g.files), maps.Clone(g.needs), maps.Clone(g.links)
	for id, need := range c.needs {
		need.Outputs = maps.Clone(need.Outputs)
		c.needs[id] = need
	}
	return &c
}

// TestVerdictHolds is the property of the gate: one change by an adversary, whatever it
// is, makes no run green that was not, and what is green has evidence.
func TestVerdictHolds(t *testing.T) {
	t.Parallel()
	key, err := pack.NewKey("sixteen characters and more")
	must(err)
	random, dir := testbench.Random(t), t.TempDir()
	names := slices.Sorted(maps.Keys(attacks))
	seen := map[string]int{}
	try := func(t *testing.T, random *rand.Rand, p protection, attack string) {
		g := newGate(random, p, key, random.IntN(3))
		g.dir = dir
		before := g.judge(t)
		if green := before.Status == verdict.Success; green != g.good {
			t.Fatalf("the run is good: %t, and the verdict is %s: %s", g.good, before.Status, before.Reason)
		}
		g.evidence(t, before)
		other := g.another()
		changed := g.clone()
		if !attacks[attack](changed, other) {
			return
		}
		after := changed.judge(t)
		if after.Status == verdict.Success && !g.good {
			t.Errorf("%s makes a run green whose verdict was %s: %s", attack, before.Status, before.Reason)
		}
		changed.evidence(t, after)
		seen[fmt.Sprintf("%t to %t", g.good, after.Status == verdict.Success)]++
		seen[attack]++
	}
	for name, p := range protections {
		t.Run("corpus/"+name, func(t *testing.T) {
			for _, attack := range names {
				for _, seed := range append([]uint64{0, 1, 2}, seeds[attack]...) {
					if try(t, rand.New(rand.NewPCG(seed, 1)), p, attack); t.Failed() {
						t.Fatalf("%s, seed %d", attack, seed)
					}
				}
			}
		})
	}
	kinds := slices.Sorted(maps.Keys(protections))
	for i := 0; i < randomRuns && !t.Failed(); i++ {
		kind, attack := kinds[random.IntN(len(kinds))], names[random.IntN(len(names))]
		if try(t, random, protections[kind], attack); t.Failed() {
			t.Errorf("%s, %s", kind, attack)
		}
	}
	t.Logf("%v", seen)
	for _, what := range append(names, "false to false", "true to false", "true to true") {
		if seen[what] == 0 {
			t.Errorf("%q was never tried", what)
		}
	}
}
