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

// log gives the last lines of the build that failed.
func (c *rootCause) log() []string {
	for _, t := range c.targets {
		if t.Result != nil && len(t.Result.Log) > 0 {
			return lines(strings.Join(t.Result.Log, "\n"))
		}
	}
	return nil
}

var logExcerpt = regexp.MustCompile(`^ *(?:[Ll]ast \d+ log lines?:$|>( |$))`)

// message gives the error. The lines of the log that Nix puts into it go, where
// there is a log.
func (c *rootCause) message() []string {
	all := lines(c.targets[0].Why)
	if len(c.log()) == 0 {
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
