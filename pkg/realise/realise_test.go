package realise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// store is a Nix store without Nix: derivations with one output each, some of which fail. The
// scripts for whole commands test a real store.
type store struct {
	inputs   map[string][]string // of each derivation, by name
	valid    map[string]bool     // output paths
	fetched  map[string]bool     // by name: a substituter has it
	fails    map[string]string   // by name: with this message
	lines    map[string][]string // by name: of its log, if not the usual ones
	fixed    map[string]bool     // by name: the hash of its output is known
	succeeds map[string]int      // by name: it fails until the try of that number
	refused  map[string]bool     // by name: it fails before it is begun
	floating map[string]bool     // by name: where its output is is known once it is there
	impure   map[string]bool     // by name: only who builds it learns where its output is
	gone     map[string]bool     // by name: the derivation can't be read
	broken   map[string]error    // by method
	stop     string              // this one is being built when the context ends
	cancel   func()
	running  func(nix.Event) // tells of something else, while it realises
	asked    []string
	tries    map[string]int // of the builds of each, by name
	now      time.Time
}

func drvPath(name string) string {
	return "/nix/store/00000000000000000000000000000000-" + name + ".drv"
}
func outPath(name string) string { return "/nix/store/11111111111111111111111111111111-" + name }

func nameOf(path string) string {
	return strings.TrimSuffix(path[strings.IndexByte(path, '-')+1:], ".drv")
}

// asResolved returns the derivation that is built in place of one with floating inputs.
func asResolved(name string) string {
	return "/nix/store/22222222222222222222222222222222-" + name + ".drv"
}

func (s *store) Valid(_ context.Context, paths ...string) (map[string]bool, error) {
	if err := s.broken["Valid"]; err != nil {
		return nil, err
	}
	valid := map[string]bool{}
	for _, p := range paths {
		if s.valid[p] {
			valid[p] = true
		}
	}
	return valid, nil
}

func (s *store) Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error {
	s.asked = append(s.asked, outputs...)
	s.running = emit
	failed := false
	for _, o := range outputs {
		drv, _, _ := strings.Cut(o, "!")
		failed = !s.realise(nameOf(drv), emit) || failed
		if s.impure[nameOf(drv)] {
			emit(nix.Event{Kind: nix.ErrorMessage, Text: "cannot operate on output 'out' of the unbuilt derivation '" + drv + "'"})
			failed = true
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if failed {
		return errors.New("some failed")
	}
	return nil
}

func (s *store) RealiseImpure(ctx context.Context, drv string, emit func(nix.Event)) (map[string]string, error) {
	s.asked = append(s.asked, drv+"!*")
	if !s.realise(nameOf(drv), emit) || ctx.Err() != nil {
		return nil, errors.New("it failed")
	}
	return map[string]string{"out": outPath(nameOf(drv)), "doc": outPath(nameOf(drv))}, nil
}

// ToBuild returns the derivations that Realise would build if none failed.
func (s *store) ToBuild(_ context.Context, outputs []string) ([]string, error) {
	if err := s.broken["ToBuild"]; err != nil {
		return nil, err
	}
	todo := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if s.valid[outPath(name)] || s.fetched[name] || todo[drvPath(name)] {
			return
		}
		todo[drvPath(name)] = true
		for _, input := range s.inputs[name] {
			visit(input)
		}
	}
	for _, o := range outputs {
		drv, _, _ := strings.Cut(o, "!")
		visit(nameOf(drv))
	}
	return slices.Sorted(maps.Keys(todo)), nil
}

func (s *store) realise(name string, emit func(nix.Event)) bool {
	out := outPath(name)
	if s.valid[out] {
		return true
	}
	at := func(kind nix.EventKind, path, text string) {
		s.now = s.now.Add(time.Second)
		emit(nix.Event{Kind: kind, Path: path, Text: text, Time: s.now})
	}
	if s.fetched[name] {
		at(nix.FetchStarted, out, "")
		s.valid[out] = true
		at(nix.FetchStopped, out, "")
		return true
	}
	drv, failed := drvPath(name), 0
	for _, input := range s.inputs[name] {
		if !s.realise(input, emit) {
			failed++
		}
		if s.floating[input] {
			drv = asResolved(name)
		}
	}
	if failed > 0 {
		at(nix.ErrorMessage, "", fmt.Sprintf("%d dependencies of derivation '%s' failed to build", failed, drvPath(name)))
		return false
	}
	message, fails := s.fails[name]
	if s.refused[name] {
		at(nix.ErrorMessage, "", message)
		return false
	}
	if s.tries == nil {
		s.tries = map[string]int{}
	}
	s.tries[name]++
	at(nix.BuildStarted, drv, "")
	lines, ok := s.lines[name]
	for i := 0; i < 30 && !ok; i++ {
		lines = append(lines, fmt.Sprintf("line %d of %s", i, name))
	}
	for _, line := range lines {
		at(nix.BuildLine, drv, line)
	}
	if name == s.stop && s.tries[name] > s.succeeds[name]-1 {
		s.cancel()
		at(nix.BuildStopped, drv, "")
		return false
	}
	at(nix.BuildStopped, drv, "")
	if fails && (s.succeeds[name] == 0 || s.tries[name] < s.succeeds[name]) {
		at(nix.ErrorMessage, "", message)
		return false
	}
	s.valid[out] = true
	return true
}

func (s *store) Closure(_ context.Context, paths ...string) (map[string]nix.PathInfo, error) {
	if err := s.broken["Closure"]; err != nil {
		return nil, err
	}
	closure := map[string]nix.PathInfo{}
	for _, p := range paths {
		info := nix.PathInfo{Path: p, NarSize: 100}
		for _, input := range s.inputs[nameOf(p)] {
			info.References = append(info.References, outPath(input))
			closure[outPath(input)] = nix.PathInfo{Path: outPath(input), NarSize: 100}
		}
		closure[p] = info
	}
	return closure, nil
}

func (s *store) Outputs(_ context.Context, drvs ...string) (map[string]map[string]string, error) {
	outputs := map[string]map[string]string{}
	if err := s.broken["Outputs"]; err != nil {
		return nil, err
	}
	for _, drv := range drvs {
		out := outPath(nameOf(drv))
		if s.impure[nameOf(drv)] || s.floating[nameOf(drv)] && !s.valid[out] {
			out = ""
		}
		outputs[drv] = map[string]string{"out": out}
	}
	return outputs, nil
}

func (s *store) ValidOutputs(ctx context.Context, drvs ...string) (map[string]nix.ValidOutputs, error) {
	return validOutputs(ctx, s, drvs)
}

func validOutputs(ctx context.Context, s Store, drvs []string) (map[string]nix.ValidOutputs, error) {
	outputs, err := s.Outputs(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	all := map[string]nix.ValidOutputs{}
	for drv, byName := range outputs {
		valid, err := s.Valid(ctx, slices.Collect(maps.Values(byName))...)
		if err != nil {
			return nil, err
		}
		all[drv] = nix.ValidOutputs{Paths: slices.Sorted(maps.Keys(valid)), All: len(valid) == len(byName)}
	}
	return all, nil
}

func (s *store) Derivation(path string) (*derivation.Derivation, error) {
	if s.gone[nameOf(path)] {
		return nil, fs.ErrNotExist
	}
	d := &derivation.Derivation{
		Outputs:          map[string]*derivation.Output{"out": {Path: outPath(nameOf(path))}},
		InputDerivations: map[string][]string{},
	}
	if s.fixed[nameOf(path)] {
		d.Outputs["out"].HashAlgorithm, d.Outputs["out"].Hash = "sha256", "00"
	}
	if s.impure[nameOf(path)] {
		d.Outputs["out"] = &derivation.Output{HashAlgorithm: "r:sha256", Hash: "impure"}
	}
	for _, input := range s.inputs[nameOf(path)] {
		d.InputDerivations[drvPath(input)] = []string{"out"}
	}
	return d, nil
}

func target(n int, name string) Target {
	return Target{N: n, Target: job.Target{
		Attr: name, DrvPath: drvPath(name), Outputs: []string{"out"}, OutPaths: map[string]string{"out": outPath(name)},
		Reproduce: "nix build .#" + name,
	}}
}

func TestOutcomes(t *testing.T) {
	s := &store{
		inputs:  map[string][]string{"host": {"base", "service"}, "other": {"base"}, "nginx-user": {"nginx"}, "second": {"nginx"}},
		valid:   map[string]bool{outPath("there"): true},
		fetched: map[string]bool{"offered": true},
		fails:   map[string]string{"nginx": "builder for '" + drvPath("nginx") + "' failed with exit code 2"},
	}
	names := []string{"host", "other", "there", "offered", "nginx-user", "second", "nginx"}
	var targets []Target
	for i, name := range names {
		targets = append(targets, target(i, name))
	}
	got, err := Run(t.Context(), s, targets, Options{Emit: func(nix.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	var lastLines []string
	for i := 5; i < 30; i++ {
		lastLines = append(lastLines, fmt.Sprintf("line %d of nginx", i))
	}
	failed := func(n int, name string) job.TargetResult {
		return job.TargetResult{
			N: n, Attr: name, Outcome: job.OutcomeFailed, Cause: drvPath("nginx"), Causes: []string{drvPath("nginx")}, Error: s.fails["nginx"], Log: lastLines,
		}
	}
	good := func(n int, name string, outcome job.Outcome, closure int64) job.TargetResult {
		return job.TargetResult{
			N: n, Attr: name, Outcome: outcome, Outputs: []job.Output{{Name: "out", Path: outPath(name), Size: 100, Closure: closure}},
		}
	}
	want := []job.TargetResult{
		good(0, "host", job.OutcomeBuilt, 300), good(1, "other", job.OutcomeBuilt, 200), good(2, "there", job.OutcomePresent, 100),
		good(3, "offered", job.OutcomeFetched, 100), failed(4, "nginx-user"), failed(5, "second"), failed(6, "nginx"),
	}
	if diff := cmp.Diff(want, got.Targets, cmpopts.IgnoreFields(job.TargetResult{}, "DrvPath", "Seconds", "Reproduce")); diff != "" {
		t.Error(diff)
	}
	var built []string
	for _, b := range got.Builds {
		built = append(built, nameOf(b.DrvPath)+map[bool]string{true: " failed"}[b.Failed])
	}
	// The stand-in tries nginx once for each derivation that needs it.
	if diff := cmp.Diff([]string{"base", "service", "host", "other", "nginx failed", "nginx failed", "nginx failed"}, built); diff != "" {
		t.Error(diff)
	}
	if s.asked[0] != drvPath("host")+"!out" {
		t.Errorf("asked for %s", s.asked[0])
	}
}

// A target without wanted outputs is neither present nor done.
func TestNothingWanted(t *testing.T) {
	s := &store{valid: map[string]bool{}}
	nothing := target(0, "nothing")
	nothing.Outputs, nothing.OutPaths = nil, nil
	got, err := Run(t.Context(), s, []Target{nothing, target(1, "other")}, Options{Emit: func(nix.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	if r := got.Targets[0]; r.Outcome.OK() || len(r.Outputs) > 0 {
		t.Errorf("it is %s: %+v", r.Outcome, r)
	}
	if r := got.Targets[1]; r.Outcome != job.OutcomeBuilt {
		t.Errorf("the other is %s", r.Outcome)
	}
}

func TestSeveralOutputs(t *testing.T) {
	many := target(0, "many")
	many.Outputs = []string{"bin", "doc"}
	many.OutPaths = map[string]string{"bin": outPath("many"), "doc": outPath("many-doc")}
	s := &store{valid: map[string]bool{}}
	got, err := Run(t.Context(), s, []Target{many}, Options{Emit: func(nix.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	if want := drvPath("many") + "!bin,doc"; s.asked[0] != want {
		t.Errorf("asked for %s, want %s", s.asked[0], want)
	}
	// Nix reports success, but one output is missing.
	if r := got.Targets[0]; r.Outcome != job.OutcomeFailed || !strings.Contains(r.Error, "not in the store") {
		t.Errorf("got %+v", r)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &store{valid: map[string]bool{}, stop: "slow", cancel: cancel, fails: map[string]string{"bad": "no good: " + drvPath("bad")}}
	got, err := Run(ctx, s, []Target{target(0, "quick"), target(1, "bad"), target(2, "slow")}, Options{Emit: func(nix.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := []job.Outcome{got.Targets[0].Outcome, got.Targets[1].Outcome, got.Targets[2].Outcome}
	if diff := cmp.Diff([]job.Outcome{job.OutcomeBuilt, job.OutcomeFailed, job.OutcomeCancelled}, outcomes); diff != "" {
		t.Error(diff)
	}
	if got.Targets[1].Cause != drvPath("bad") || len(got.Targets[1].Log) == 0 || got.Builds[2].Failed {
		t.Errorf("what failed before: %+v; builds: %+v", got.Targets[1], got.Builds)
	}
}

// A line of a log may be of any length.
func TestLongLines(t *testing.T) {
	w := newWatch()
	w.see(nix.Event{Kind: nix.BuildStarted, Path: drvPath("x")}, false)
	w.see(nix.Event{Kind: nix.BuildLine, Path: drvPath("x"), Text: strings.Repeat("ä", lineBytes)}, false)
	if line := w.log[drvPath("x")][0]; len(line) > lineBytes+4 || !strings.HasSuffix(line, "ä…") {
		t.Errorf("kept %d bytes", len(line))
	}
}
