package verdict

import "github.com/org/nix-matrix/pkg/job"

// A Closure is the size of the closure of a target, and of packages in it, as in [job.Output].
type Closure struct {
	Bytes int64
	Parts map[string]int64
}

// ComparePlans returns the difference between two Plans before anything is built. closures has those that are known,
// by the derivation of the target, and needs the numbers of derivations to build for a target, of missing ones for
// all that differ.
func ComparePlans(before, after *job.Plan, closures map[string]Closure, missing int, needs map[string]int) *Change {
	c := &Change{Rebuild: missing}
	targets := func(p *job.Plan) []job.RecordTarget {
		v := Verdict{Targets: make([]Target, len(p.Targets))}
		for i := range p.Targets {
			v.Targets[i].Target = p.Targets[i]
		}
		var all []job.RecordTarget
		for _, t := range v.HostsFirst() {
			size := closures[t.Target.DrvPath]
			all = append(all, job.RecordTarget{Attr: t.Target.Attr, Name: t.Name(), DrvPath: t.Target.DrvPath, Closure: size.Bytes, Parts: size.Parts})
		}
		return all
	}
	for i, t := range c.compare(targets(before), targets(after)) {
		c.Changed[i].Build = needs[t.DrvPath]
	}
	return c
}
