// Package plan groups targets into the entries of a job matrix. It is pure.
package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/org/nix-matrix/pkg/job"
)

// MaxEntries is GitHub's limit of jobs in a matrix.
const MaxEntries = 256

// AnyRunner has the labels of the cheapest runner, for builds on a remote machine.
var AnyRunner = []string{"ubuntu-latest"}

// defaultRunners build a system natively, or, for aarch64-linux, emulate it, because a job with a
// label that a user's GitHub plan lacks would queue for a day.
var defaultRunners = map[string]struct {
	labels []string
	qemu   bool
}{
	"x86_64-linux":   {labels: []string{"ubuntu-latest"}},
	"i686-linux":     {labels: []string{"ubuntu-latest"}},
	"aarch64-linux":  {labels: []string{"ubuntu-latest"}, qemu: true},
	"aarch64-darwin": {labels: []string{"macos-latest"}},
	"x86_64-darwin":  {labels: []string{"macos-15-intel"}},
}

// HasRunner reports whether a system has a default runner.
func HasRunner(system string) bool { return len(defaultRunners[system].labels) > 0 }

// nativeRunners are GitHub's runners for systems that are emulated by default.
var nativeRunners = map[string]string{"aarch64-linux": "ubuntu-24.04-arm"}

// QEMU says when a system is emulated.
type QEMU string

// When aarch64-linux is emulated: if no runner is named for it, even if one is, or never.
const (
	QEMUAuto   QEMU = "auto"
	QEMUAlways QEMU = "always"
	QEMUNever  QEMU = "never"
)

// Options say how to group. The zero value is the default.
type Options struct {
	Runners    Runners
	QEMU       QEMU // empty is QEMUAuto
	MaxEntries int  // 0 is MaxEntries
	// MaxParallel is how many jobs run at the same time at most; 0 is no limit. A helper that begins when an
	// entry has ended would do what that entry goes on to do itself, so there are none of these.
	MaxParallel int
	// JobsPerSystem is the most entries for the targets of a system and runner that are no
	// hosts; 0 is 16, of which only those are used that shorten the run.
	JobsPerSystem int
	// Helpers is how many helpers a system gets if it has units, or HelpersAuto. HelpersByRepository
	// counts as none.
	Helpers int
	// Missing has the derivations to build for a target; nil is its own derivation alone.
	Missing *Missing
	// Took returns the duration of an earlier build of an entry, in seconds; 0 is unknown. It
	// counts if Missing has no durations. It may be nil.
	Took func(e *job.Entry) float64
}

// Entries groups the targets that are to be built: each host is an entry of its own, all others
// share entries per system (and runner that is named for them). Targets with the same derivation
// are in the same entry, targets that share missing derivations preferably too.
//
// The cost of an entry is the number of derivations that it has to build. There are as few
// entries as keep the longest at or below the cost of the longest host. If that is impossible,
// or there are no hosts, a further entry must pay: it has to shorten the longest by no less than
// it adds to the work of all, which is the start of a runner and the derivations that are then
// built twice. Little work is not split at all, and no system has more entries than
// JobsPerSystem. If there would be more entries than MaxEntries, the systems have fewer, and
// finally hosts share entries too. Targets of the same Group are one entry for each system and
// runner, and a target with a Timeout of its own is one without a Group too. If durations are
// known, the longest entries come first, because not all may run at once, and those with a
// higher Priority before them.
func Entries(targets []job.Target, o Options) ([]job.Entry, error) {
	hosts, others, whole := groupTargets(targets, o.Runners)
	most := cmp.Or(o.MaxEntries, MaxEntries)
	bound := 0
	for _, g := range hosts {
		bound = max(bound, longest(o.Missing, g.drvs))
	}
	shares := make([]*shared, len(others))
	for i, g := range others {
		shares[i] = share(g, o.Missing, bound, cmp.Or(o.JobsPerSystem, defaultJobs))
	}
	if least := len(hosts) + len(others) + len(whole); least > most {
		return nil, fmt.Errorf("the plan needs %d entries, one for each system and runner, for hosts of them, and for each group and timeout in meta.nixMatrix, but at most %d are allowed (input max_entries; GitHub allows %d jobs in a matrix). Select fewer targets with include, exclude or filter_builds", least, most, MaxEntries)
	}
	packed := pack(hosts, o.Missing, most-len(shares)-len(whole))
	limitEntries(shares, most-len(packed)-len(whole))

	var entries []job.Entry
	add := func(name string, numbers []int) error {
		entry, err := newEntry(name, targets, numbers, o)
		entries = append(entries, entry)
		return err
	}
	for _, numbers := range packed {
		if err := add(groupName(targets, numbers, 0, 1), numbers); err != nil {
			return nil, err
		}
	}
	for _, s := range shares {
		parts := s.parts()
		for i, numbers := range parts {
			if err := add(groupName(targets, numbers, i, len(parts)), numbers); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range whole {
		numbers := m.numbers()
		name := groupName(targets, numbers, 0, 1)
		if m.name != "" {
			name = m.name + " " + targets[numbers[0]].System
		}
		if err := add(name, numbers); err != nil {
			return nil, err
		}
	}
	if err := makeUnique(entries); err != nil {
		return nil, err
	}
	if !o.Missing.longestFirst(entries) && o.Took != nil {
		slices.SortStableFunc(entries, func(a, b job.Entry) int { return cmp.Compare(o.Took(&b), o.Took(&a)) })
	}
	sortByPriority(entries, targets)
	return entries, nil
}

// hostKey returns the same text for targets that are for the same host.
func hostKey(t *job.Target) string { return cmp.Or(t.Node, t.DrvPath) }

// sameHost reports whether all targets are for the first one's host.
func sameHost(targets []job.Target, numbers []int) bool {
	first := &targets[numbers[0]]
	own := map[string]bool{}
	for _, n := range numbers {
		if t := &targets[n]; hostKey(t) == hostKey(first) {
			own[t.DrvPath] = true
		}
	}
	return first.Kind.IsHost() && !slices.ContainsFunc(numbers, func(n int) bool { return !own[targets[n].DrvPath] })
}

// groupName returns the name of a group: "packages and checks x86_64-linux 1/2".
func groupName(targets []job.Target, group []int, i, count int) string {
	first := &targets[group[0]]
	switch {
	case sameHost(targets, group) && first.Node != "":
		return first.Node
	case len(group) == 1 || sameHost(targets, group):
		return first.Name
	}
	var tops []string
	for _, n := range group {
		top, _, _ := strings.Cut(targets[n].Attr, ".")
		if !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	const most = 3
	if more := len(tops) - most; more > 0 {
		tops = append(tops[:most], fmt.Sprintf("%d more", more))
	}
	name := strings.Join(tops, " and ") + " " + targets[group[0]].System
	if count > 1 {
		name += fmt.Sprintf(" %d/%d", i+1, count)
	}
	return name
}

func ref(targets []job.Target, n int) job.Ref {
	return job.Ref{N: n, Attr: targets[n].Attr, DrvPath: targets[n].DrvPath}
}

func newEntry(name string, targets []job.Target, numbers []int, o Options) (job.Entry, error) {
	first := &targets[numbers[0]]
	name = jobName(name)
	e := job.Entry{
		Name:     name,
		ID:       job.NewEntryID(name),
		Platform: first.System,
		System:   first.System,
		Attr:     first.Attr,
		DrvPath:  first.DrvPath,
		Outputs:  first.Outputs,
	}
	if sameHost(targets, numbers) {
		e.Host = &first.Host
	}
	for _, n := range numbers {
		e.Targets = append(e.Targets, ref(targets, n))
	}
	e.Timeout = timeout(targets, numbers)
	known, ok := defaultRunners[e.System]
	named := o.Runners.named(first)
	if named == nil {
		named = o.Runners[e.System]
	}
	e.QEMU = o.EmulatesTarget(first)
	switch {
	case len(named) > 0:
		e.Runner = named
	case !ok:
		return e, fmt.Errorf("%s is for %s, which has no default runner. Name one in the input runners, as a line %s=label", first.Name, e.System, e.System)
	case known.qemu && o.QEMU == QEMUNever:
		return e, fmt.Errorf("%s is for %s, which is not emulated (qemu: never). Name a runner in the input runners, as a line %s=%s", first.Name, e.System, e.System, nativeRunners[e.System])
	default:
		e.Runner = known.labels
	}
	return e, nil
}

// Emulates reports whether a system is emulated on its runner.
func (o Options) Emulates(system string) bool { return o.emulates(system, len(o.Runners[system]) > 0) }

// EmulatesTarget reports whether a target is built emulated.
func (o Options) EmulatesTarget(t *job.Target) bool {
	return o.emulates(t.System, len(o.Runners.named(t)) > 0 || len(o.Runners[t.System]) > 0)
}

func (o Options) emulates(system string, named bool) bool {
	return defaultRunners[system].qemu && (!named || o.QEMU == QEMUAlways)
}

// makeUnique makes the names of entries unique, and returns an error if ids are not.
func makeUnique(entries []job.Entry) error {
	names, ids := map[string]bool{}, map[string]string{}
	for i := range entries {
		e := &entries[i]
		name := e.Name
		for n := 2; names[e.Name]; n++ {
			e.Name = fmt.Sprintf("%s (%d)", name, n)
			e.ID = job.NewEntryID(e.Name)
		}
		names[e.Name] = true
		if other, taken := ids[e.ID]; taken {
			return fmt.Errorf("the names %q and %q have the same id %s. Rename one", other, e.Name, e.ID)
		}
		ids[e.ID] = e.Name
	}
	return nil
}

// maxRowBytes is the most bytes of a complete row. With the blanks that toJSON adds, a row
// becomes an environment variable, for which Linux has a limit of 128 KiB.
const maxRowBytes = 48 << 10

// Matrix returns the JSON of the Plan's matrix, small enough for a job output: if it is too
// large, rows have only the numbers of their targets, and if that is not enough, no attribute
// path. A worker reads the rest from the Plan.
func Matrix(p *job.Plan, plan string) ([]byte, error) {
	m := p.Matrix(plan)
	for i := range m.Include {
		row, err := json.Marshal(m.Include[i])
		if err != nil {
			return nil, fmt.Errorf("cannot write the matrix: %w", err)
		}
		if len(row) > maxRowBytes {
			shorten(&m.Include[i])
		}
	}
	shorter := []func(*job.Entry){shorten, func(e *job.Entry) { e.Attr = "" }}
	for step := 0; ; step++ {
		data, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("cannot write the matrix: %w", err)
		}
		n := utf16Len(data)
		if n <= job.MaxMatrix {
			return data, nil
		}
		if step == len(shorter) {
			return nil, fmt.Errorf("the matrix has %d characters, more than the %d that fit into a job's outputs. Name fewer installables", n, job.MaxMatrix)
		}
		for i := range m.Include {
			shorter[step](&m.Include[i])
		}
	}
}

// shorten removes all but the numbers from the targets of an entry.
func shorten(e *job.Entry) {
	refs := slices.Clone(e.Targets)
	for i := range refs {
		refs[i] = job.Ref{N: refs[i].N}
	}
	e.Targets = refs
}

func utf16Len(data []byte) int {
	n := 0
	for _, r := range string(data) {
		n += utf16.RuneLen(r)
	}
	return n
}
