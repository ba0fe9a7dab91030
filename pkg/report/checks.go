package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A Check is the verdict on a target, for a check of its own on the page of a commit.
type Check struct {
	// Name is unique. It is the name of the target, behind the label and a colon.
	Name    string
	Status  verdict.TargetStatus
	Timeout bool   // a failed target was stopped at the deadline
	Title   string // one line of foreign text
	Summary string // Markdown of at most the limit
	URL     string // of the job's page, or else of the run's; empty if neither is known
	Seconds float64
}

// maxCheckName is the most bytes of a name: GitHub's limit for the name of a status is 255.
const maxCheckName = 200

// Checks returns a check for each target, red ones first, then those that were built and those that were
// skipped. Their names begin with the label, by which checks of several uses in a workflow differ.
func Checks(of *verdict.Verdict, label string, o SummaryOptions) []Check {
	v := view{of}
	limit := max(cmp.Or(o.MaxBytes, MaxSummary), 8<<10)
	l := v.links(o)
	one := v.single()
	names := checkNames(of.Targets, label)
	checks := make([]Check, 0, len(of.Targets))
	for _, t := range v.HostsFirst() {
		c := Check{Name: names[t.N], Status: t.Status, Timeout: t.TimedOut, URL: l[t.Entry]}
		if c.URL == "" && linkable(o.RunURL) {
			c.URL = o.RunURL
		}
		if t.Result != nil {
			c.Seconds = verdict.Seconds(t.Result.Seconds).Seconds()
		}
		c.Title = text.Clip(checkTitle(t, one), 200)
		c.Summary = checkSummary(t, one, l, limit)
		checks = append(checks, c)
	}
	rank := func(c Check) int {
		return slices.Index([]verdict.TargetStatus{verdict.TargetFailed, verdict.TargetMissing, verdict.TargetCancelled, verdict.TargetBuilt, verdict.TargetFetched, verdict.TargetPresent, verdict.TargetSkipped}, c.Status)
	}
	slices.SortStableFunc(checks, func(a, b Check) int { return cmp.Compare(rank(a), rank(b)) })
	return checks
}

// checkNames returns the names of checks by the number of the target. A name that two targets have is
// replaced by their attributes; one that is too long is cut, with a hash.
func checkNames(targets []verdict.Target, label string) map[int]string {
	count := map[string]int{}
	for i := range targets {
		count[targets[i].Name()]++
	}
	names, taken := map[int]string{}, map[string]bool{}
	for i := range targets {
		t := &targets[i]
		name := t.Name()
		if count[name] > 1 {
			name = cmp.Or(t.Target.Attr, name)
		}
		name = label + ": " + cmp.Or(text.Words(name), text.None)
		if len(name) > maxCheckName {
			sum := sha256.Sum256([]byte(name))
			name = text.ClipName(name, maxCheckName-10) + " " + hex.EncodeToString(sum[:4])
		}
		unique := name
		for n := 2; taken[unique]; n++ {
			unique = fmt.Sprintf("%s (%d)", name, n)
		}
		taken[unique] = true
		names[t.N] = unique
	}
	return names
}

// checkTitle returns the outcome of a target in a line of foreign text.
func checkTitle(t *verdict.Target, one func(*verdict.Target) view) string {
	r := rowOf(t)
	switch {
	case t.Status == verdict.TargetFailed:
		title := one(t).rootCauses(t.Unevaluated())[0].headline(text.Line)
		if t.BlockedBy() != "" {
			title = "Blocked: " + title
		}
		return title
	case t.Status == verdict.TargetSkipped:
		return "Skipped: " + cmp.Or(text.Line(t.Why), "no reason was given")
	case !t.Done():
		return strings.ToUpper(r.Outcome[:1]) + r.Outcome[1:] + ": " + text.Line(t.Why)
	}
	title := strings.ToUpper(r.Outcome[:1]) + r.Outcome[1:]
	if r.Time != text.None {
		title += " in " + r.Time
	}
	if r.Closure != text.None {
		title += ", closure " + r.Closure
	}
	return title
}

// checkSummary returns Markdown about a target: its attribute and output, and why it is not done.
func checkSummary(t *verdict.Target, one func(*verdict.Target) view, l map[string]string, limit int) string {
	const longest = 300
	var b strings.Builder
	fmt.Fprintf(&b, "%s", text.CodeName(cmp.Or(t.Target.Attr, t.Name()), longest))
	if t.Target.System != "" {
		fmt.Fprintf(&b, " for %s", text.Code(t.Target.System, 40))
	}
	if t.Entry != "" {
		fmt.Fprintf(&b, ", in the job %s", text.CodeName(t.Entry, longest))
	}
	b.WriteString("\n\n")
	if out := t.Output(); t.Done() && out.Path != "" {
		fmt.Fprintf(&b, "%s\n\n", text.Code(out.Path, longest))
	}
	switch {
	case t.Status == verdict.TargetSkipped:
		fmt.Fprintf(&b, "Skipped: %s\n\n", text.Code(t.Why, 1000))
	case t.Status == verdict.TargetFailed:
		v := one(t)
		n := v.newNames(limit / 8)
		s := v.failedSection(n, l)
		if t.Unevaluated() {
			s = v.unevaluatedSection(n)
		}
		block := s.blocks[0]
		if block.title != "" {
			fmt.Fprintf(&b, "%s\n\n", block.title)
		}
		b.WriteString(block.body(limit / 2))
	case !t.Done():
		fmt.Fprintf(&b, "%s\n\n", text.Code(t.Why, 1000))
	default: // GitHub shows no address of details for a check by a job's own token
		b.WriteString(jobLinks([]string{t.Entry}, l))
	}
	return b.String()
}
