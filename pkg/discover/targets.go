package discover

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/text"
)

// choose returns a Plan of an evaluation whose targets are skipped or to be built.
func (d *Discovery) choose(ctx context.Context, e *evaluation) (*job.Plan, error) {
	p := *e.Plan
	p.Drvs, p.Heads, p.Notices = nil, d.docs.Trust.Heads, slices.Clone(p.Notices)
	p.Created, p.Source = time.Now().UTC().Truncate(time.Second), d.asked()
	if e.unread != "" {
		p.Notices = append(p.Notices, fmt.Sprintf("Cannot evaluate %s, so nothing of it is built: it %s.", d.asked(), e.unread))
	}
	p.Notices = append(p.Notices, d.Env.Notices...)
	p.Targets = slices.Clone(p.Targets)
	d.skipUnread(p.Targets)
	if len(e.Omitted) > 0 {
		p.Notices = append(p.Notices, d.omitted(e.Omitted))
	}
	if len(e.Passed) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Not built, since they are not derivations: %s.", text.Some(e.Passed, 20)))
	}
	var left []string
	var err error
	if p.Targets, left, err = d.Choose.Choose(ctx, p.Targets, e.Meta); err != nil {
		return nil, usage.Wrap(err)
	}
	if len(left) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Left out by filter_builds: %s.", text.Some(left, 20)))
	}
	wanted := evaluated(p.Targets)
	if len(wanted) == 0 && len(left) > 0 && !d.Evaluate.AllowEmpty {
		return nil, usage.Errorf("filter_builds is true for none of %s: %s. Correct the expression, or allow that with --allow-empty (input allow_empty)",
			text.Plural(len(left), "target"), text.Some(left, 20))
	}
	if !d.flakeConfig {
		p.Substituters, p.PublicKeys = nil, nil // also those of an earlier evaluation
	}
	d.Env.Read(p.Substituters, p.PublicKeys)
	d.skipProved(ctx, p.Targets)
	d.log.Doing("asking which outputs are available")
	if e.places, err = d.skip(ctx, p.Targets); err != nil {
		return nil, err
	}
	asked := len(toBuild(&p))
	d.hooks.AskProviso(ctx, d.Proviso, p.Targets)
	if asked > 0 && asked == len(wanted) && len(toBuild(&p)) == 0 && !d.Evaluate.AllowEmpty {
		return nil, usage.Errorf("the proviso leaves out all of %s: %s. Correct the script, or allow that with --allow-empty (input allow_empty)",
			text.Plural(asked, "target"), text.Some(wanted, 20))
	}
	if held := d.heldBack(p.Targets); len(held) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("push_filter holds back %s: %s. Unless the closure of another output has it, each run makes a job for it.", text.Plural(len(held), "target"), text.Some(held, 20)))
	}
	return &p, nil
}

// heldBack returns the names of the targets to build of which an output is not pushed for its own sake, where jobs push.
func (d *Discovery) heldBack(targets []job.Target) (names []string) {
	if d.Local || len(d.Env.Destinations) == 0 {
		return nil
	}
	for i := range targets {
		t := &targets[i]
		for _, output := range t.Outputs {
			if path := t.OutPaths[output]; t.State == job.StateBuild && path != "" && !d.Env.Push.Filter.Selects(path) {
				names = append(names, t.Name)
				break
			}
		}
	}
	return names
}

// omitted returns the notice about attributes that are left out because of their system.
func (d *Discovery) omitted(attrs []string) string {
	if d.buildable {
		return fmt.Sprintf("Left out, because this machine builds only %s: %s. Register an emulator with binfmt_misc or add a remote builder; --systems tries any system.",
			strings.Join(d.Evaluate.Systems, " and "), text.Some(attrs, 20))
	}
	return fmt.Sprintf("Left out, since only %s are wanted: %s. Name more systems with --systems (input systems).", strings.Join(d.Evaluate.Systems, " and "), text.Some(attrs, 20))
}

// evaluated returns the names of the targets that are not failed.
func evaluated(targets []job.Target) []string {
	var names []string
	for i := range targets {
		if targets[i].State != job.StateFailed {
			names = append(names, targets[i].Name)
		}
	}
	return names
}

// skipUnread skips the targets that need a missing secret, if that is wanted.
func (d *Discovery) skipUnread(targets []job.Target) {
	for i := range targets {
		t := &targets[i]
		if d.SkipUnread && t.State == job.StateFailed && t.NeedsSecret != "" {
			t.State = job.StateSkip
			t.Reason, _, _ = strings.Cut(t.Error, "\n")
			t.Error = ""
		}
	}
}

// skipProved skips the targets that the default branch has built, in a proposal that pushes nothing, such as
// a pull request from a fork.
func (d *Discovery) skipProved(ctx context.Context, targets []job.Target) {
	pushes := slices.ContainsFunc(d.Env.Destinations, func(to push.Destination) bool { return to.Lacks(d.Env.Push.Secrets) == nil })
	if !d.docs.Trust.SkipsProved() || !d.SkipProved || d.Local || pushes {
		return
	}
	if record := d.record(ctx); record != nil {
		markProved(targets, record)
	}
}

// markProved skips the targets in a record.
func markProved(targets []job.Target, r *job.Record) {
	for i := range targets {
		t := &targets[i]
		if _, proved := r.Proved[job.DrvHash(t.DrvPath)]; proved && t.State == job.StateBuild {
			t.State, t.Proved, t.Reason = job.StateSkip, true, "built by "+cmp.Or(r.Branch, "the default branch")+" already"
		}
	}
}

// skip skips the targets whose outputs are available, and returns the places that were asked.
func (d *Discovery) skip(ctx context.Context, targets []job.Target) ([]*available.Place, error) {
	var paths []string
	for _, t := range targets {
		if t.State == job.StateBuild {
			paths = slices.AppendSeq(paths, maps.Values(t.OutPaths))
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	var places []*available.Place
	switch {
	case len(d.Env.Destinations) > 0:
		for i := range d.Env.Destinations {
			places = append(places, d.destination(ctx, &d.Env.Destinations[i], paths))
		}
	case d.Local:
	default:
		places = append(places, d.finder.Substituted(ctx, paths))
	}
	if d.Local {
		valid, err := d.Env.Store.Valid(ctx, paths...)
		if err != nil {
			return nil, err
		}
		places = append(places, &available.Place{Name: "in the store", Has: valid})
	}
	for i := range targets {
		t := &targets[i]
		if t.State == job.StateBuild && everywhere(t, places) {
			t.State, t.Available = job.StateSkip, true
			t.Reason = places[0].Name
		}
	}
	return places, nil
}

// destination asks a binary cache that is pushed to. Without known public keys, signatures do not count.
func (d *Discovery) destination(ctx context.Context, to *push.Destination, paths []string) *available.Place {
	address := to.Substituter
	if to.Missing() { // Open has warned of it
		address = ""
	}
	return d.finder.Destination(ctx, to.Name, address, len(to.PublicKeys) > 0, paths)
}

// everywhere reports whether each place has all outputs of a target. A target without known paths is
// nowhere.
func everywhere(t *job.Target, places []*available.Place) bool {
	if !t.HasPaths() || len(places) == 0 {
		return false
	}
	for _, output := range t.Outputs {
		for _, p := range places {
			if !p.Has[t.OutPaths[output]] {
				return false
			}
		}
	}
	return true
}

// group makes the entries.
func (d *Discovery) group(ctx context.Context, e *evaluation, p *job.Plan) (err error) {
	var saved job.Saved
	if d.Planning.Missing, err = d.missing(ctx, e, p, &saved); err != nil {
		return err
	}
	if !d.Local {
		saved.AddSkipped(p.Targets, d.record(ctx), d.Planning.Emulates)
	}
	if saved != (job.Saved{}) {
		p.Saved = &saved
	}
	for _, t := range p.Targets {
		here := d.Local && !plan.HasRunner(t.System) // this machine needs none
		if (here || d.Env.Remotely(t.System)) && len(d.Planning.Runners[t.System]) == 0 {
			d.Planning.Runners[t.System] = plan.AnyRunner
		}
	}
	took := func(entry *job.Entry) job.EntryTime {
		record := d.record(ctx)
		if record == nil {
			return job.EntryTime{}
		}
		return record.Entries[job.EntryKey(entry.Name, entry.System, entry.QEMU)]
	}
	d.Planning.Took = func(entry *job.Entry) float64 { return took(entry).Seconds }
	if p.Entries, err = plan.Entries(p.Targets, d.Planning); err != nil {
		return usage.Wrap(err)
	}
	p.Took = map[string]job.EntryTime{}
	for i := range p.Entries {
		if t := took(&p.Entries[i]); t.Seconds > 0 {
			p.Took[p.Entries[i].ID] = t
		}
	}
	d.share(ctx, p)
	if refused := d.Planning.Runners.Refused(p.Targets); refused != "" && !d.Local {
		p.Notices = append(p.Notices, refused)
	}
	if unused := d.Planning.Runners.Unused(p.Targets); unused != "" && !d.Local {
		p.Notices = append(p.Notices, unused)
	}
	for i := range p.Entries {
		if e := &p.Entries[i]; e.QEMU && !d.Local && !slices.Contains(p.Emulated, e.System) {
			p.Emulated = append(p.Emulated, e.System)
		}
	}
	return nil
}

// missing returns which derivations the entries have to build. A path that cannot be asked for, or a
// derivation that cannot be read, only makes the entries less even. saved gets the time of builds that the
// entries do without.
func (d *Discovery) missing(ctx context.Context, e *evaluation, p *job.Plan, saved *job.Saved) (*plan.Missing, error) {
	targets := p.Targets
	var outputs []string // of the targets themselves
	build := false
	for i := range targets {
		if targets[i].State == job.StateBuild {
			build = true
			outputs = slices.AppendSeq(outputs, maps.Values(targets[i].OutPaths))
		}
	}
	if !build {
		return nil, nil //nolint:nilnil // nothing is missing
	}
	from := &available.Sources{Finder: d.finder, Own: outputs, Saved: d.saved(ctx, targets)}
	switch {
	case d.Local:
		from.Store = d.Env.Store
		fallthrough
	case len(d.Env.Destinations) > 0: // skip has asked them, and no substituter
		from.Signed = d.finder.Substituted(ctx, outputs).Has
	case len(e.places) > 0:
		from.Signed = e.places[0].Has
	}
	missing, err := plan.FindMissing(ctx, targets, plan.Source{
		Derivations: func(ctx context.Context, drvs []string) ([]nix.Derivation, error) { return e.derivations(ctx, d, drvs) },
		Offered:     from.Offered,
	})
	if missing == nil {
		return nil, err
	}
	if err == nil {
		p.Missing = missing.Count()
	} else {
		d.log.Warn("Cannot find all missing derivations, so the entries may take less equal times", err)
	}
	if record := d.record(ctx); record != nil {
		took := func(drv, system string) float64 {
			return record.Seconds[job.TimeKey(drv, system, d.Planning.Emulates(system))]
		}
		missing.Weigh(took)
		saved.ReusedSeconds = missing.Reused(took)
	}
	count := missing.Count()
	d.log.Printf("  %s to build, as far as is known", text.Plural(count, "derivation"))
	return missing, nil
}

// saved returns the indexes of the packs of earlier runs that the entries can restore.
func (d *Discovery) saved(ctx context.Context, targets []job.Target) []available.Saved {
	if d.docs.Cache == nil || d.Local || d.Env.Remote != "" {
		return nil
	}
	systems := map[string]bool{}
	for i := range targets {
		if targets[i].State == job.StateBuild {
			systems[targets[i].System] = true
		}
	}
	from := &reuse.Cache{Docs: d.docs, Log: d.log}
	accept := from.Accepts(d.Env.Nix, d.Access.PublicKeys)
	var all []available.Saved
	for _, system := range slices.Sorted(maps.Keys(systems)) {
		all = append(all, from.Saved(ctx, system, accept))
	}
	return all
}

// record returns the record of the default branch's last run, nil if it is not known. The cache is
// asked once.
func (d *Discovery) record(ctx context.Context) *job.Record {
	if d.baseAsked || d.Local {
		return d.base
	}
	d.baseAsked = true
	var err error
	if d.base, err = d.docs.Record(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("Cannot read the record of the default branch's last run", err)
	}
	return d.base
}

// share cuts what is missing into units, which need a cache or one store, and adds helpers. A remote store
// builds nothing twice. What is in no unit is saved by one of the entries.
func (d *Discovery) share(ctx context.Context, p *job.Plan) {
	entries := p.Entries
	if d.Local {
		if d.Env.Remote == "" {
			p.Units = plan.ShareStore(entries, d.Planning.Missing, d.Jobs, d.Env.OneSlot())
		}
		if len(p.Units) > 0 {
			p.Beat = plan.Beat(len(entries))
		}
		return
	}
	if d.docs.Cache != nil && d.Env.Remote == "" && !d.Alone {
		planning := d.Planning
		free := planning.Helpers == plan.HelpersByRepository
		if free && d.Public(ctx) {
			planning.Helpers = plan.HelpersAuto
		}
		var helpers []job.Entry
		p.Units, helpers = plan.Share(entries, planning)
		p.Entries = append(entries, helpers...)
		if len(p.Units) > 0 {
			p.Beat = plan.Beat(len(p.Entries))
		}
		if asked := planning.Helpers; len(p.Units) > 0 && len(helpers) < asked && planning.MaxParallel < len(entries)+asked {
			p.Notices = append(p.Notices, fmt.Sprintf("With %s in place of %d: no more than %d jobs run at the same time (input max_parallel), of which %d build targets.", text.Plural(len(helpers), "helper"), asked, planning.MaxParallel, len(entries)))
		}
		if free && len(helpers) > 0 {
			p.Notices = append(p.Notices, fmt.Sprintf("With %s that build parts for the entries, since runners cost nothing in a public repository. For none, set the input helpers to 0.", text.Plural(len(helpers), "helper")))
		}
	}
	p.Savers = d.Planning.Missing.Savers(entries, p.Units)
}
