package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/claim"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/text"
)

// units builds the units of the Plan that this job takes, and gets the others from the jobs that took
// them.
type units struct {
	*Worker
	exchange exchange
	docs     *documents.Store // of the claims
	entry    *job.Entry
	result   *job.Result
	build    *realise.Build
	claims   *claim.Worker
	have     []bool                       // by unit: its outputs are valid here
	bytes    map[string]int64             // sent or read, by Unit.ID
	outputs  [][]string                   // by unit: paths, sorted; nil until they are known
	paths    map[string]map[string]string // of outputs of the units that are known, by derivation and name
	named    map[string]bool              // paths that the derivations of this job make or need
	roots    *nix.Daemon                  // keeps paths from the garbage collector; nil until there are some
}

// shares reports whether this job builds units for others, and takes theirs.
func (w *Worker) shares() bool {
	if w.near != nil {
		return true
	}
	if w.Docs == nil || w.Docs.Cache == nil || w.Entry == nil || len(w.Plan.Units) == 0 || w.Env.Remote != "" {
		return false
	}
	if !w.Docs.Trust.AcceptsUnsigned() {
		w.Log.Printf("this job builds what others need too itself: %s", reuse.OnlyProven)
		return false
	}
	return true
}

// takeUnits builds and takes the units that an entry needs, all that a helper can, and returns nil if this
// job does neither: then it builds everything itself. The derivations of the targets are in the store.
func (w *Worker) takeUnits(ctx context.Context, e *job.Entry, build *realise.Build, drvs []string, result *job.Result) *units {
	if !w.shares() {
		return nil
	}
	u := &units{
		Worker: w, exchange: w.Entry, docs: w.Docs, entry: e, result: result, build: build,
		have: make([]bool, len(w.Plan.Units)), outputs: make([][]string, len(w.Plan.Units)), named: map[string]bool{}, bytes: map[string]int64{}, paths: map[string]map[string]string{},
	}
	if w.near != nil {
		u.exchange, u.docs = w.near, w.near.docs
	}
	err := u.find(ctx, drvs)
	u.claims = u.newClaims()
	if err == nil && e.Helper {
		err = u.prepare(ctx, numbers(u.claims.May)...)
	}
	if err != nil {
		u.close()
		if ctx.Err() == nil {
			w.Log.Warn("Cannot share units with other jobs, so this job builds its own", err)
		}
		return nil
	}
	out := u.claims.Run(ctx)
	u.tell(out)
	return u
}

// numbers returns the numbers of the elements that are true.
func numbers(of []bool) []int {
	var all []int
	for n, is := range of {
		if is {
			all = append(all, n)
		}
	}
	return all
}

// tell records in the Result what became of units.
func (u *units) tell(out claim.Outcome) {
	for i := range out.Units {
		out.Units[i].Bytes = u.bytes[out.Units[i].ID]
	}
	u.result.Units = append(u.result.Units, out.Units...)
	u.result.Waited += out.Waited.Seconds()
}

// find finds the units that the targets need, and which of them are here already.
func (u *units) find(ctx context.Context, drvs []string) error {
	if err := u.name(ctx, drvs); err != nil {
		return err
	}
	number := u.number()
	var all []string
	for n := range u.Plan.Units {
		if u.Plan.Units[n].NeededBy(number) {
			if err := u.resolve(ctx, n); err != nil {
				return err
			}
			all = append(all, u.outputs[n]...)
		}
	}
	valid, err := u.Env.Valid(ctx, all...)
	for n := range u.outputs {
		u.have[n] = u.outputs[n] != nil && !slices.ContainsFunc(u.outputs[n], func(path string) bool { return !valid[path] })
	}
	return err
}

// close lets the garbage collector have the paths.
func (u *units) close() {
	if u.roots != nil {
		_ = u.roots.Close()
	}
}

// keep keeps paths from the garbage collector until close. Without that they are only at risk.
func (u *units) keep(ctx context.Context, paths []string) {
	if u.roots == nil {
		var err error
		if u.roots, err = u.Env.Connect(ctx); err != nil {
			return
		}
	}
	_ = u.roots.AddTempRoots(paths...)
}

// number returns the number of the entry in the Plan.
func (u *units) number() int {
	return slices.IndexFunc(u.Plan.Entries, func(other job.Entry) bool { return other.ID == u.entry.ID })
}

func (u *units) newClaims() *claim.Worker {
	number := u.number()
	may, needs := make([]bool, len(u.Plan.Units)), make([]bool, len(u.Plan.Units))
	for n := range u.Plan.Units {
		unit := &u.Plan.Units[n]
		needs[n] = slices.Contains(unit.Direct, number)
		may[n] = slices.ContainsFunc(unit.For, func(other int) bool { return u.onRunnerOf(&u.Plan.Entries[other]) })
	}
	return &claim.Worker{
		Docs: u.docs, Near: u.near != nil, FailFast: u.near != nil && u.near.failFast, Units: u.Plan.Units, Entry: u.entry.Name, URL: u.result.URL, Beat: time.Duration(u.Plan.Beat) * time.Second,
		Needs: needs, May: may, Have: u.have, Number: number, Helper: u.entry.Helper, Hands: u, Log: u.Log,
		Blocked: u.block,
	}
}

// onRunnerOf reports whether a machine for another entry is like the one that builds this one.
func (u *units) onRunnerOf(other *job.Entry) bool {
	if u.near != nil {
		return other.System == u.entry.System
	}
	return other.SameRunner(u.entry)
}

// name allows the paths that derivations make or need, and those of the derivations they need. In one store
// nothing comes from elsewhere.
func (u *units) name(ctx context.Context, drvs []string) error {
	if u.near != nil {
		return nil
	}
	closure, err := u.Env.Requisites(ctx, drvs...)
	if err != nil {
		return err
	}
	closure = slices.DeleteFunc(closure, func(path string) bool { return u.named[path] })
	var fresh []string
	for _, path := range closure {
		u.named[path] = true
		if strings.HasSuffix(path, ".drv") {
			fresh = append(fresh, path)
		}
	}
	all, err := u.Env.Derivations(ctx, fresh)
	if err != nil {
		return err
	}
	for _, drv := range all {
		for _, path := range drv.Outputs {
			u.named[path] = path != ""
		}
	}
	return nil
}

// resolve finds the output paths of a unit.
func (u *units) resolve(ctx context.Context, n int) error {
	if u.outputs[n] != nil {
		return nil
	}
	wanted := u.Plan.Units[n].Wanted
	all, err := u.Env.Derivations(ctx, job.DrvPaths(wanted))
	if err != nil {
		return err
	}
	var paths []string
	for i, drv := range all {
		u.paths[wanted[i].DrvPath] = drv.Outputs
		for _, output := range wanted[i].Outputs {
			path := drv.Outputs[output]
			if path == "" {
				return fmt.Errorf("the path of the output %s of %s is not known", output, wanted[i].DrvPath)
			}
			paths = append(paths, path)
		}
	}
	u.outputs[n] = slices.Sorted(slices.Values(paths))
	return nil
}

// prepare brings the derivations of units, which a job without a target that needs them lacks.
func (u *units) prepare(ctx context.Context, units ...int) error {
	var drvs []string
	for _, n := range units {
		if u.outputs[n] == nil {
			drvs = append(drvs, job.DrvPaths(u.Plan.Units[n].Wanted)...)
		}
	}
	if len(drvs) == 0 {
		return nil
	}
	u.keep(ctx, drvs)
	if u.Restore != nil {
		if err := u.Restore(ctx, drvs, u.result); err != nil {
			return err
		}
	}
	if err := u.name(ctx, drvs); err != nil {
		return err
	}
	for _, n := range units {
		if err := u.resolve(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// hold keeps the outputs of units from the garbage collector.
func (u *units) hold(ctx context.Context, units ...int) {
	var paths []string
	for _, n := range units {
		paths = append(paths, u.outputs[n]...)
	}
	u.keep(ctx, paths)
}

// Build implements [claim.Hands].
func (u *units) Build(ctx context.Context, n int) *job.Done {
	unit := &u.Plan.Units[n]
	start := time.Now()
	u.Log.Printf("building %s for all %s", unit.Name, map[bool]string{false: "jobs of the run", true: "entries"}[u.near != nil])
	done := &job.Done{Outcome: job.OutcomeCancelled}
	fail := func(err error) *job.Done {
		if ctx.Err() == nil {
			u.Log.Warnf("cannot hand %s over: %v", unit.Name, err)
		}
		return done
	}
	if err := u.prepare(ctx, n); err != nil {
		return fail(err)
	}
	u.hold(ctx, n)
	built, failures, err := u.build.Part(ctx, unit.Wanted, u.paths)
	done.Seconds = time.Since(start).Seconds()
	switch {
	case err != nil:
		return fail(err)
	case len(failures) > 0:
		done.Outcome, done.Failures = job.OutcomeFailed, failures
		return done
	case !built:
		return fail(errors.New("it is not built here"))
	}
	u.have[n] = true
	u.Log.Doing("handing %s over", unit.Name)
	size, err := u.exchange.Give(ctx, u.Env.Nix, u.outputs[n], done)
	if err != nil {
		return fail(err)
	}
	done.Outcome = job.OutcomeBuilt
	u.bytes[unit.ID] = size
	if u.near != nil {
		u.Log.Printf("built %s for all entries in %s", unit.Name, text.Duration(time.Since(start)))
		return done
	}
	u.Log.Printf("handed %s over: %s, after %s", unit.Name, text.Size(size), text.Duration(time.Since(start)))
	return done
}

// Take implements [claim.Hands].
func (u *units) Take(ctx context.Context, units []int, done []*job.Done) []error {
	errs := make([]error, len(units))
	all := make([]reuse.Handover, 0, len(units))
	var taken []int // indexes
	for i, n := range units {
		if errs[i] = u.prepare(ctx, n); errs[i] == nil {
			all, taken = append(all, reuse.Handover{Done: done[i], Outputs: u.outputs[n]}), append(taken, i)
		}
	}
	u.hold(ctx, units...)
	err := u.exchange.Take(ctx, u.Env.Nix, all, func(path string) bool { return u.named[path] }, u.result)
	for j, i := range taken {
		unit := &u.Plan.Units[units[i]]
		if errs[i] = cmp.Or(err, all[j].Err); errs[i] != nil {
			continue
		}
		u.have[units[i]], u.bytes[unit.ID] = true, all[j].Bytes
		u.Log.Printf("took %s, which %s has built in %s", unit.Name, done[i].Entry, text.Duration(time.Duration(done[i].Seconds*float64(time.Second))))
	}
	return errs
}

// Rest implements [claim.Hands].
func (u *units) Rest(ctx context.Context, open []bool) bool {
	if len(u.entry.Targets) == 0 {
		return false
	}
	without := map[string]bool{}
	for n, is := range open {
		if is {
			for _, drv := range u.Plan.Units[n].Drvs {
				without[drv] = true
			}
		}
	}
	u.Log.Doing("building what needs none of the units of other jobs")
	built, err := u.build.Rest(ctx, without)
	if err != nil && ctx.Err() == nil {
		u.Log.Warnf("cannot build a part of the targets before the rest: %v", err)
	}
	return built && err == nil
}

// block passes the failures of a unit in another job on to the build of the targets.
func (u *units) block(done *job.Done) {
	for _, f := range done.Failures {
		if f.Entry == "" {
			f.Entry, f.URL = done.Entry, done.URL
		}
		f.Log, f.LogFile, f.LogArtifact, f.NixLog = nil, "", "", false
		u.build.Block(f)
	}
}

// help builds units for other jobs, once the targets are done.
func (u *units) help(ctx context.Context, options realise.Options) {
	options.KeepLogs = true
	u.build = realise.Start(ctx, u.store(u.entry), nil, options)
	u.build.Block(slices.Clone(u.result.Failures)...)
	u.tell(u.claims.Help(ctx))
	more, err := u.build.Finish(ctx)
	if err != nil && ctx.Err() == nil {
		u.Log.Warnf("cannot tell all that was built for other jobs: %v", err)
	}
	more.Failures = slices.DeleteFunc(more.Failures, func(f job.Failure) bool {
		return slices.ContainsFunc(u.result.Failures, func(known job.Failure) bool { return known.DrvPath == f.DrvPath })
	})
	u.add(u.entry, more, u.result)
}
