package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An Update shows a new lock file of a flake, and what it rebuilds.
type Update struct {
	Inputs  []nix.InputChange
	Change  *verdict.Change // nil if the targets of before are unknown
	Plan    *job.Plan
	Rebuild *plan.Rebuild // of the targets that differ
	// Substituters are the addresses that were asked, without credentials.
	Substituters []string
}

// UpdateTitle returns the title of the change, in a line of at most limit bytes, but at least 40.
func UpdateTitle(inputs []nix.InputChange, limit int) string {
	const update = "flake.lock: update"
	var names []string
	plain := true
	for _, c := range inputs {
		if !strings.Contains(c.Name, "/") {
			names = append(names, c.Name)
			plain = plain && plainName().MatchString(c.Name)
		}
	}
	if len(names) == 0 {
		return update
	}
	for most := len(names); most > 0 && plain; most-- {
		if title := update + " " + text.Some(names, most); len(title) <= limit {
			return title
		}
	}
	return update + " " + text.Plural(len(names), "input")
}

// Texts that match these have no meaning in Markdown, in the title of a pull request and in the message of a commit,
// which can close issues.
var (
	plainName    = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_-]*(?:/[A-Za-z][A-Za-z0-9_-]*)*$`)
	plainAddress = lazyregexp.New(`^[a-z+]{1,20}:[A-Za-z0-9._/?=&:~-]{1,200}$`)
)

// UpdateMessage returns the changed inputs for the message of a commit, in plain characters.
func UpdateMessage(inputs []nix.InputChange) string {
	const most = 100
	var b strings.Builder
	for i, c := range inputs {
		if i == most {
			fmt.Fprintf(&b, "- and %d more\n", len(inputs)-most)
			break
		}
		name := c.Name
		if !plainName().MatchString(name) {
			name = "an input"
		}
		switch {
		case c.Before == nix.Pin{}:
			fmt.Fprintf(&b, "- %s: new, %s\n", name, pinText(c.After))
		case c.After == nix.Pin{}:
			fmt.Fprintf(&b, "- %s: gone\n", name)
		default:
			fmt.Fprintf(&b, "- %s: %s → %s\n", name, pinText(c.Before), pinText(c.After))
		}
	}
	return b.String()
}

// pinText returns the pin of an input for a line of text.
func pinText(p nix.Pin) string {
	version := pinVersion(p, func(s string) string {
		if !plainVersion().MatchString(s) {
			return text.None
		}
		return s
	})
	if plainAddress().MatchString(p.Address) {
		version = p.Address + " " + version
	}
	return version
}

var plainVersion = lazyregexp.New(`^[A-Za-z0-9+/=.-]+$`)

// pinVersion returns the revision of a pin and its day.
func pinVersion(p nix.Pin, show func(string) string) string {
	const short = 10
	version := start(cmp.Or(p.Rev, strings.TrimPrefix(p.Hash, "sha256-")), short)
	if version == "" {
		return text.None
	}
	if version = show(version); !p.Modified.IsZero() {
		version += " of " + p.Modified.Format("2006-01-02")
	}
	return version
}

// UpdateMarkdown returns the update as Markdown of at most about limit bytes.
func UpdateMarkdown(u *Update, limit int) string {
	var b strings.Builder
	if len(u.Inputs) > 0 {
		rows := make([]string, len(u.Inputs))
		for i, c := range u.Inputs {
			rows[i] = inputRow(c)
		}
		b.WriteString("| Input | Before | After |\n|---|---|---|\n" + tableRows(rows, limit/4) + "\n")
	}
	b.WriteString("## What this rebuilds\n\n")
	if u.Change == nil {
		fmt.Fprintf(&b, "Unknown, since the flake could not be evaluated before; %s to build.\n\n", text.Plural(u.Rebuild.Count, "missing derivation"))
	} else {
		b.WriteString(u.rebuilds(limit / 4))
	}
	b.WriteString(failedToEvaluate(u.Plan).causeSection(limit / 8))
	if rebuilt := u.Rebuild.Dependencies; len(rebuilt) > 0 {
		names := make([]string, len(rebuilt))
		for i, r := range rebuilt {
			names[i] = text.CodeName(strings.TrimSuffix(job.DrvName(r.DrvPath), ".drv"), longestName)
			if r.Targets > 1 {
				names[i] += fmt.Sprintf(" for %d targets", r.Targets)
			}
		}
		const most = 100
		b.WriteString(folded(text.Plural(len(names), "dependency is", "dependencies are")+" missing from the binary caches", u.asked(limit/32)+": "+list(names[:min(most, len(names))], ", ", limit/8)+more(len(names)-most)+"\n\n"))
	}
	return b.String()
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// asked returns the substituters, of which the addresses are the users' and safe in code spans.
func (u *Update) asked(limit int) string {
	names := make([]string, len(u.Substituters))
	for i, address := range u.Substituters {
		address, _, _ = strings.Cut(address, "?")
		names[i] = text.Code(strings.TrimSuffix(strings.TrimPrefix(address, "https://"), "/"), longestName)
	}
	if len(names) == 0 {
		return "No binary cache was asked"
	}
	return "Not at " + list(names, ", ", limit)
}

// rebuilds returns the numbers and names of targets that change.
func (u *Update) rebuilds(limit int) string {
	c := change{u.Change}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\n", c.counts())
	unknown := false
	if len(c.Changed) > 0 {
		rows := make([]string, len(c.Changed))
		for i, t := range c.Changed {
			after := sizes(t)
			if !t.Broken && t.After <= 0 {
				unknown = true
				after = "known after the build"
				switch {
				case t.Mended:
					after = "can be evaluated again"
				case t.Before > 0:
					after = size(t.Before) + " → " + after
				}
			}
			build := text.None
			if t.Build > 0 {
				build = fmt.Sprint(t.Build)
			}
			rows[i] = fmt.Sprintf("| %s | %s | %s | %s |\n", text.EscapePipes(text.CodeName(t.Name, 120)), build, after, growths(t, func(name string) string { return text.EscapePipes(text.CodeName(name, 60)) }))
		}
		b.WriteString(cutRows("| Changed | To build | Closure | Size differences |\n|---|--:|---|---|\n", rows, limit, "target"))
	}
	b.WriteString(c.addedAndRemoved(limit))
	if unknown {
		b.WriteString("The report of the run for this pull request has the closures after the build, and which packages grew.\n\n")
	}
	return b.String()
}

// inputRow returns a row of the table of inputs, with a link to the difference at GitHub.
func inputRow(c nix.InputChange) string {
	code := func(s string) string { return text.Cell(s, longestName) }
	version := func(p nix.Pin) string {
		if (p == nix.Pin{}) {
			return text.None
		}
		return pinVersion(p, code)
	}
	before, after := version(c.Before), version(c.After)
	if link := compareLink(c); link != "" {
		after = "[" + after + "](" + link + ")"
	}
	return fmt.Sprintf("| %s | %s | %s |\n", code(c.Name), before, after)
}

var (
	gitHubPattern = lazyregexp.New(`^github:([A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100})(?:/|$)`)
	revPattern    = lazyregexp.New(`^[0-9a-f]{40}$`)
)

// compareLink returns the page with the commits between two pins of a repository at GitHub, or an empty text.
func compareLink(c nix.InputChange) string {
	m, n := gitHubPattern().FindStringSubmatch(c.Before.Address), gitHubPattern().FindStringSubmatch(c.After.Address)
	if m == nil || n == nil || m[1] != n[1] || !revPattern().MatchString(c.Before.Rev) || !revPattern().MatchString(c.After.Rev) {
		return ""
	}
	return "https://github.com/" + m[1] + "/compare/" + c.Before.Rev + "..." + c.After.Rev
}
