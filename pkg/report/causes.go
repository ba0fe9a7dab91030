package report

import (
	"cmp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A rootCause is one failure and the targets that failed because of it.
type rootCause struct {
	drv        string // the derivation that failed; empty if none did
	evaluation bool   // the targets could not be evaluated
	targets    []*verdict.Target
	// alsoBlocked are targets that it kept from being built too, and that name another cause.
	alsoBlocked []*verdict.Target
	// further are the other causes of these targets, which no target names first.
	further []*rootCause
	failure *job.Failure // of the derivation, if known
}

// rootCauses groups the targets that failed, either those that could not be evaluated or the
// others, by their cause: the derivation that failed, else the error. Causes of hosts come first,
// then those of the most targets. If several derivations failed for a target, it is with the one
// that it names first.
func (v view) rootCauses(evaluation bool) []*rootCause {
	failures := map[string]*job.Failure{}
	for i := range v.Failures {
		failures[v.Failures[i].DrvPath] = &v.Failures[i]
	}
	byKey := map[[2]string]*rootCause{}
	var causes []*rootCause
	failed := v.HostsFirst(verdict.TargetFailed)
	failed = slices.DeleteFunc(failed, func(t *verdict.Target) bool { return t.Unevaluated() != evaluation })
	for _, t := range failed {
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
			c = &rootCause{drv: drv, evaluation: evaluation, failure: failures[drv]}
			byKey[key] = c
			causes = append(causes, c)
		}
		c.targets = append(c.targets, t)
	}
	for _, t := range failed {
		if t.Result == nil || t.Result.Cause == "" {
			continue
		}
		own := byKey[[2]string{t.Result.Cause}]
		for _, drv := range t.Result.Causes {
			c := byKey[[2]string{drv}]
			if c == nil {
				c = &rootCause{drv: drv, failure: failures[drv]}
				byKey[[2]string{drv}] = c
				own.further = append(own.further, c)
			}
			if c != own && (len(c.alsoBlocked) == 0 || c.alsoBlocked[len(c.alsoBlocked)-1] != t) {
				c.alsoBlocked = append(c.alsoBlocked, t)
			}
		}
	}
	slices.SortStableFunc(causes, func(a, b *rootCause) int {
		return cmp.Or(cmp.Compare(b.hostRank(), a.hostRank()), cmp.Compare(len(b.targets)+len(b.alsoBlocked), len(a.targets)+len(a.alsoBlocked)))
	})
	return causes
}

// single returns a function that returns a view of one target alone, as if no other had failed.
func (v view) single() func(t *verdict.Target) view {
	failures := map[string]job.Failure{}
	for _, f := range v.Failures {
		failures[f.DrvPath] = f
	}
	return func(t *verdict.Target) view {
		one := &verdict.Verdict{Targets: []verdict.Target{*t}}
		if t.Result == nil {
			return view{one}
		}
		seen := map[string]bool{}
		for _, drv := range append([]string{t.Result.Cause}, t.Result.Causes...) {
			if f, ok := failures[drv]; ok && !seen[drv] {
				seen[drv] = true
				one.Failures = append(one.Failures, f)
			}
		}
		return view{one}
	}
}

// hostRank returns 1 if any of the targets is a host, else 0.
func (c *rootCause) hostRank() int {
	if slices.ContainsFunc(slices.Concat(c.targets, c.alsoBlocked), func(t *verdict.Target) bool { return t.Target.Kind.IsHost() }) {
		return 1
	}
	return 0
}

const postBuildFailed = "post_build failed"

// outcome returns the kind of failure, in few words.
func (c *rootCause) outcome() string {
	if len(c.targets) == 0 {
		return " failed"
	}
	switch first := c.targets[0]; {
	case c.evaluation:
		return " can't be evaluated"
	case first.StepFailed():
		return ": " + postBuildFailed
	case first.TimedOut:
		return " stopped at the deadline"
	default:
		return " failed"
	}
}

// name returns the name of the derivation, else of the only target, else "".
func (c *rootCause) name() string {
	switch {
	case c.drv != "":
		return cmp.Or(text.Line(job.DrvName(c.drv)), text.None)
	case len(c.targets) == 1:
		return cmp.Or(text.Line(c.targets[0].Name()), text.None)
	default:
		return ""
	}
}

// headline returns the root cause in a line. quote makes foreign text safe for the format of the
// line.
func (c *rootCause) headline(quote func(string) string) string {
	line := text.Plural(len(c.targets), "target")
	if name := c.name(); name != "" {
		line = quote(name)
	}
	if len(c.targets) == 0 || !c.targets[0].StepFailed() && !c.targets[0].TimedOut { // else that is the reason
		line += c.outcome()
	}
	if reason, _ := c.statement(); reason != "" {
		line += ": " + quote(reason)
	}
	return line
}

// others returns a line for each further cause, with the end of its log.
func (c *rootCause) others(quote func(string) string) []string {
	const longest = 160
	all := make([]string, len(c.further))
	for i, f := range c.further {
		all[i] = f.headline(quote)
		if log := f.log(); len(log) > 0 {
			all[i] += "; " + quote(text.Clip(strings.TrimSpace(log[len(log)-1]), longest))
		}
	}
	return all
}

// othersTitle returns the title of the lines of others.
func (c *rootCause) othersTitle() string {
	return text.Plural(len(c.further), "more derivation failed", "more derivations failed")
}

// An affected is a group of targets that failed because of a root cause.
type affected struct {
	label       string // empty if the headline names them
	targets     []*verdict.Target
	alsoBlocked []*verdict.Target // named with another cause too
}

func (a *affected) all() []*verdict.Target { return slices.Concat(a.targets, a.alsoBlocked) }

const blockedByIt = "blocked by it"

// affectedTargets returns the affected targets, first those that failed themselves.
func (c *rootCause) affectedTargets() []affected {
	switch {
	case c.drv == "" && len(c.targets) == 1:
		return []affected{{label: "", targets: c.targets}}
	case c.drv == "":
		return []affected{{label: "targets", targets: c.targets}}
	}
	var itself, blocked []*verdict.Target
	for _, t := range c.targets {
		if t.BlockedBy() == "" {
			itself = append(itself, t)
		} else {
			blocked = append(blocked, t)
		}
	}
	var all []affected
	if len(itself) > 0 {
		all = append(all, affected{label: "target", targets: itself})
	}
	if len(blocked)+len(c.alsoBlocked) > 0 {
		all = append(all, affected{blockedByIt, blocked, c.alsoBlocked})
	}
	return all
}

// hasLog returns a target that has the log of the build that failed, or nil.
func (c *rootCause) hasLog() *verdict.Target {
	for _, t := range c.targets {
		if len(t.Log()) > 0 {
			return t
		}
	}
	return nil
}

// location returns the position in the repository that the log names.
func (c *rootCause) location() (file string, line int) {
	for _, t := range c.targets {
		if t.Result == nil || t.StepFailed() {
			continue
		}
		if file := text.Line(t.Result.File); file != "" {
			return file, max(0, t.Result.Line)
		}
	}
	return "", 0
}

// maxLogLines is the most lines of a log that a report shows.
const maxLogLines = 100

// log returns the last lines of the build that failed.
func (c *rootCause) log() []string {
	const (
		most   = maxLogLines
		maxLog = 256 << 10 // bytes
	)
	var log []string
	if t := c.hasLog(); t != nil {
		log = t.Log()
	} else if c.failure != nil {
		log = c.failure.Log
	}
	all := slices.Clone(log[max(0, len(log)-most):])
	for i := range all {
		all[i] = text.Clip(all[i], maxLog/most)
	}
	return text.Lines(strings.Join(all, "\n"))
}

// silent reports whether the failed builder or command printed nothing.
func (c *rootCause) silent() bool {
	failed := c.failure != nil && c.failure.Silent || len(c.targets) > 0 && c.targets[0].StepFailed()
	return failed && len(c.log()) == 0
}

const printedNothing = "It printed nothing."

// WholeLog returns the commands and files that show the whole log of a failure.
func WholeLog(f *job.Failure) []string {
	var all []string
	if f.NixLog {
		all = append(all, "nix log "+text.Line(f.DrvPath))
	}
	switch file := text.Line(f.LogFile); {
	case file == "":
	case f.LogArtifact != "":
		all = append(all, file+" in the artifact "+text.Line(f.LogArtifact))
	default:
		all = append(all, file)
	}
	return all
}

// wholeLog returns WholeLog of the root cause.
func (c *rootCause) wholeLog() []string {
	if c.failure == nil || c.evaluation {
		return nil
	}
	return WholeLog(c.failure)
}

// logExcerpt matches the lines of a log that Nix adds to an error, and its hint how to see the
// whole log, which is on another machine.
var logExcerpt = lazyregexp.New(`^ *(?:[Ll]ast \d+ log lines?:$|>(?: |$)|For full logs, run|nix log /)`)

// message returns the error, without the excerpt of the log if there is a log.
func (c *rootCause) message() []string {
	var all []string
	switch {
	case len(c.targets) > 0:
		all = text.Lines(c.targets[0].Why)
	case c.failure != nil:
		all = text.Lines(c.failure.Error)
	}
	if len(c.log()) == 0 {
		return all
	}
	return slices.DeleteFunc(all, logExcerpt().MatchString)
}

// Nix's phrases around the statement of an error.
var (
	cannotBuild = lazyregexp.New(`^Cannot build '(.*)'\.$`)
	outputPaths = lazyregexp.New(`^ *(?:Output paths:|/nix/store/\S+)$`)
	itself      = lazyregexp.New(`(?:: | (?:for |of |in )?(?:fixed-output derivation )?)?['"]?\x00['"]?`) // NUL is the derivation
)

// statement returns the first statement of the error, in a line and without the name of the
// derivation, and the rest of the error.
func (c *rootCause) statement() (reason string, detail []string) {
	const longest = 300
	all := c.message()
	for len(all) > 1 && (all[0] == "" || all[0] == "error:") {
		all = all[1:]
	}
	if len(all) == 0 {
		return "", nil
	}
	reason, detail = text.Line(all[0]), slices.DeleteFunc(slices.Clone(all[1:]), outputPaths().MatchString)
	if c.evaluation && strings.HasSuffix(reason, ":") && len(detail) > 0 { // such as "Failed assertions:"
		reason += " " + strings.TrimPrefix(text.Line(detail[0]), "- ")
	}
	if rest, ok := strings.CutPrefix(reason, "error: "); ok && reason != text.Line(c.drv) {
		reason = rest
	}
	if m := cannotBuild().FindStringSubmatch(reason); m != nil && len(detail) > 0 && strings.HasPrefix(text.Line(detail[0]), "Reason: ") {
		reason, detail = strings.TrimPrefix(text.Line(detail[0]), "Reason: "), detail[1:]
		if c.evaluation { // an import from that derivation
			reason = job.DrvName(m[1]) + ": " + reason
		}
	}
	if drv := text.Line(c.drv); drv != "" {
		reason = itself().ReplaceAllLiteralString(strings.ReplaceAll(reason, drv, "\x00"), "")
	}
	if short := strings.TrimRight(reason, " ;:."); short != "" {
		reason = short
	}
	if reason == "" || len(reason) > longest || c.evaluation && len(detail) > 0 {
		detail = all // else the message would be in pieces
	}
	return text.Clip(reason, longest), text.Lines(strings.Join(detail, "\n"))
}

// entries returns the names of the entry that has the log, and of the entries of the targets, each
// once.
func (c *rootCause) entries() []string {
	var all []string
	if c.failure != nil && c.failure.Entry != "" {
		all = append(all, c.failure.Entry)
	}
	for _, t := range c.targets {
		if !slices.Contains(all, t.Entry) {
			all = append(all, t.Entry)
		}
	}
	return all
}

// reproduce returns the commands that reproduce the failure locally, for the first few
// targets.
func (c *rootCause) reproduce() []string {
	const few = 3
	var all []string
	for _, t := range c.targets[:min(few, len(c.targets))] {
		if command := text.Line(t.Reproduce()); command != "" {
			all = append(all, command)
		}
	}
	return all
}
