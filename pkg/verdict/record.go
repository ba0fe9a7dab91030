package verdict

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// Limits of a Record.
const (
	provedDays = 60
	// maxTimes is more than a fleet builds; the longest stay.
	maxTimes = 20_000
	// minSeconds is the least duration in a Record.
	minSeconds = 1
	// maxEntryTimes is more than one matrix has; the newest stay.
	maxEntryTimes = 2_000
)

// Record returns the Record of this run for later runs. about has the fields about the run,
// before is the newest Record so far, or nil. If that is of a later run, which ended before this
// one or before a rerun of its jobs, its targets stay the ones to compare with.
func (v *Verdict) Record(about job.Record, plan *job.Plan, results []*job.Result, before *job.Record) *job.Record {
	r := about
	r.Version = job.Version
	if before == nil {
		before = &job.Record{}
	}
	r.Proved, r.Seconds = map[string]int{}, times(plan, results, before.Seconds)
	today := job.Day(about.Created)
	r.Entries = entryTimes(plan, results, before.Entries, today)
	for hash, day := range before.Proved {
		if day > today-provedDays {
			r.Proved[hash] = day
		}
	}
	known := make(map[string]*job.RecordTarget, len(before.Targets))
	for i := range before.Targets {
		known[before.Targets[i].Key()] = &before.Targets[i]
	}
	for i := range v.Targets {
		t := &v.Targets[i]
		r.Targets = append(r.Targets, t.record(known[t.Target.Key()]))
		if hash := job.DrvHash(t.Target.DrvPath); hash != "" && t.proved() {
			r.Proved[hash] = today
		}
	}
	if before.Run > about.Run {
		r.Run, r.Created, r.Commit, r.Branch, r.URL, r.Targets = before.Run, before.Created, before.Commit, before.Branch, before.URL, before.Targets
	}
	return &r
}

// proved reports whether a target is known to build.
func (t *Target) proved() bool {
	switch t.Status {
	case TargetBuilt, TargetFetched, TargetPresent:
		return true
	case TargetSkipped:
		return t.Target.Available
	default:
		return false
	}
}

func (t *Target) record(was *job.RecordTarget) job.RecordTarget {
	r := job.RecordTarget{
		Flake: t.Target.Flake, Attr: t.Target.Attr, Name: t.Target.Name, Kind: t.Target.Kind, System: t.Target.System, DrvPath: t.Target.DrvPath,
	}
	out := t.Output()
	r.Closure, r.Parts = out.Closure, out.Parts
	if r.Closure == 0 && was != nil && was.DrvPath == r.DrvPath {
		r.Closure, r.Parts = was.Closure, was.Parts
	}
	return r
}

// times returns the durations of derivations, those before and those of the results. A
// derivation's system is assumed to be that of its entry.
func times(plan *job.Plan, results []*job.Result, before map[string]float64) map[string]float64 {
	all := maps.Clone(before)
	if all == nil {
		all = map[string]float64{}
	}
	for _, r := range results {
		entry, ok := plan.EntryByID(r.Entry)
		if !ok {
			continue
		}
		for _, b := range r.Builds {
			if took := Seconds(b.Seconds).Seconds(); !b.Failed && took >= minSeconds {
				all[job.TimeKey(b.DrvPath, entry.System, b.Emulated)] = math.Round(took)
			}
		}
	}
	if len(all) > maxTimes {
		longest := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b)) })
		for _, key := range longest[maxTimes:] {
			delete(all, key)
		}
	}
	return all
}

// entryTimes returns the times of entries that were built, those before and those of the
// results. That of a helper says nothing about the next run.
func entryTimes(plan *job.Plan, results []*job.Result, before map[string]job.EntryTime, today int) map[string]job.EntryTime {
	all := maps.Clone(before)
	if all == nil {
		all = map[string]job.EntryTime{}
	}
	for _, r := range results {
		entry, ok := plan.EntryByID(r.Entry)
		if took := Seconds(r.Finished.Sub(r.Started).Seconds()).Seconds(); ok && !entry.Helper && r.Outcome == job.OutcomeBuilt && took >= minSeconds {
			all[job.EntryKey(entry.Name, entry.System, r.Emulated)] = job.EntryTime{Seconds: math.Round(took), Fetched: max(r.FetchedBytes, 0), Day: today}
		}
	}
	if len(all) > maxEntryTimes {
		newest := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(cmp.Compare(all[b].Day, all[a].Day), cmp.Compare(a, b)) })
		for _, key := range newest[maxEntryTimes:] {
			delete(all, key)
		}
	}
	return all
}
