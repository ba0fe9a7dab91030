package report

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// A rootCause is one thing that went wrong and the targets that it took along.
type rootCause struct {
	drv     string // the derivation that failed; empty where none did
	targets []*TargetVerdict
}

// rootCauses groups the targets that failed, either those that could not be
// evaluated or the others, by what is to blame: the derivation that failed, else
// the error. What hits hosts comes first, then what hits most.
func (v *Verdict) rootCauses(evaluation bool) []*rootCause {
	byKey := map[[2]string]*rootCause{}
	var causes []*rootCause
	for _, t := range v.hostsFirst(TargetFailed) {
		if t.unevaluated() != evaluation {
			continue
		}
		var drv string
		if t.Result != nil {
			drv = t.Result.Cause
		}
		key := [2]string{drv, ""}
		if drv == "" {
			key[1] = t.Why
		}
		c := byKey[key]
		if c == nil {
			c = &rootCause{drv: drv}
			byKey[key] = c
			causes = append(causes, c)
		}
		c.targets = append(c.targets, t)
	}
	slices.SortStableFunc(causes, func(a, b *rootCause) int {
		return cmp.Or(cmp.Compare(b.hosts(), a.hosts()), cmp.Compare(len(b.targets), len(a.targets)))
	})
	return causes
}

// hosts is 1 if a host is among the targets.
func (c *rootCause) hosts() int {
	if c.targets[0].Target.Kind.IsHost() {
		return 1
	}
	return 0
}

// who names the targets, in one line.
func (c *rootCause) who() string { return oneLine(strings.Join(targetNames(c.targets), ", ")) }

// hasLog gives a target that has the log of the build that failed, or none.
func (c *rootCause) hasLog() *TargetVerdict {
	for _, t := range c.targets {
		if t.Result != nil && len(t.Result.Log) > 0 {
			return t
		}
	}
	return nil
}

// log gives the last lines of the build that failed.
func (c *rootCause) log() []string {
	const most = 100
	t := c.hasLog()
	if t == nil {
		return nil
	}
	all := slices.Clone(t.Result.Log[max(0, len(t.Result.Log)-most):])
	for i := range all {
		all[i] = clip(all[i], maxForeign/most)
	}
	return lines(strings.Join(all, "\n"))
}

// What Nix puts of the log into an error, and how to see all of it on a machine
// that is gone.
var logExcerpt = regexp.MustCompile(`^ *(?:[Ll]ast \d+ log lines?:$|>(?: |$)|For full logs, run|nix log /)`)

// message gives the error, without the log where there is one.
func (c *rootCause) message() []string {
	all := lines(c.targets[0].Why)
	if c.hasLog() == nil {
		return all
	}
	return slices.DeleteFunc(all, logExcerpt.MatchString)
}

// reproduce gives what to type at home, for the first few targets.
func (c *rootCause) reproduce() []string {
	const few = 3
	var all []string
	for _, t := range c.targets[:min(few, len(c.targets))] {
		if command := oneLine(t.reproduce()); command != "" {
			all = append(all, command)
		}
	}
	return all
}
