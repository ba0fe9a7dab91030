package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

const (
	label  tag = `span class="label"`
	number tag = `td class="number"`
)

// document writes the page.
func (p *page) document() node {
	policy := "default-src 'none'; style-src 'sha256-" + styleSum() + "'; base-uri 'none'; form-action 'none'"
	title := statusMark(p.Status)
	return group(
		func(b *bytes.Buffer) { b.WriteString("<!doctype html>") },
		nest(`html lang="en"`,
			nest("head",
				void(`meta charset="utf-8"`),
				void(tag(`meta http-equiv="Content-Security-Policy" content="`+policy+`"`)),
				void(`meta name="referrer" content="no-referrer"`),
				void(`meta name="viewport" content="width=device-width, initial-scale=1"`),
				void(`meta name="color-scheme" content="light dark"`),
				line("title", str(title+" nix-matrix: "+p.Reason)),
				line("style", func(b *bytes.Buffer) { b.WriteString(pageCSS) }),
			),
			nest("body",
				p.header(title),
				nest("main",
					each(p.Sections, pageSection.document),
					p.unfinished(), p.change(), p.targets(), p.timeLine(), p.shared(), p.cost(), p.caches(),
					part("Notices", lines(p.Notes)),
					p.ignored(),
				),
			),
		),
		func(b *bytes.Buffer) { b.WriteByte('\n') },
	)
}

// statusMark returns the sign of a status.
func statusMark(s verdict.Status) string {
	switch s {
	case verdict.Success:
		return "✓"
	case verdict.Failure:
		return "✗"
	}
	return "○"
}

func (p *page) header(title string) node {
	return nest(tag("header").attr("class", string(p.Status)),
		line(`p class="label"`, str("nix-matrix")),
		line("h1", str(title+" "+p.Reason)),
		paragraph(p.Tally),
		paragraph(p.Next),
		each(p.Jobs, func(j verdict.JobProblem) node {
			return line("p", str("Job "), el("code", str(text.Line(j.Job))), str(" "+ended(j.Result)))
		}),
		paragraph(p.About),
		when(p.RunURL != "", line("p", link("a", p.RunURL, "The run and its logs"))),
	)
}

// ended returns how a job ended.
func ended(s verdict.Status) string {
	switch s {
	case "failure":
		return "failed"
	case "cancelled":
		return "was cancelled"
	case "skipped":
		return "was skipped"
	}
	return "did not succeed"
}

func (s pageSection) document() node {
	if len(s.Causes) == 0 {
		return nil
	}
	return part(s.Title, each(s.Causes, pageCause.document))
}

func (c pageCause) document() node {
	return nest("article",
		line("h3", str(c.Title)),
		each(c.Hit, func(g pageGroup) node { return labelled(g.How, str(g.Names)) }),
		when(c.Derivation != "", labelled("derivation", code(c.Derivation))),
		when(c.Place != "", labelled("the log names", code(c.Place))),
		when(c.Detail != "", line("pre", str(c.Detail))),
		when(c.Log != "", line(details(c.Open), el("summary", str("The end of its log")), el("pre", str(c.Log)))),
		paragraph(c.Silent),
		when(len(c.Others) > 0, nest(details(!c.FoldOthers), el("summary", str(c.OthersTitle)), lines(c.Others))),
		when(c.Reproduce != "",
			line(`p class="label"`, str("reproduce locally")),
			line(`pre class="command"`, str(c.Reproduce)),
		),
		each(c.WholeLog, func(place string) node { return labelled("its log", code(place)) }),
		when(len(c.Jobs) > 0, line("p", el(label, str("the job and its log")), each(c.Jobs, func(l pageLink) node {
			return group(str(" "), link("a", l.URL, l.Entry))
		}))),
	)
}

func (p *page) unfinished() node {
	return part("Without a result", items(p.Unfinished, func(g pageGroup) node { return str(g.Names + ": " + g.How) }))
}

func (p *page) change() node {
	c := p.Change
	if c == nil {
		return nil
	}
	names := func(title string, all []string) node {
		shown := make([]string, len(all))
		for i, name := range all {
			shown[i] = text.Line(name)
		}
		return when(len(all) > 0, labelled(title, str(strings.Join(shown, ", "))))
	}
	return part(changeTitle,
		line("p", str("Compared with "+change{c}.baseName(text.Line)+": "+change{c}.counts()+".")),
		table(`<tr><th>Changed</th><th>Closure</th><th>Size differences</th></tr>`, c.Changed, func(t verdict.ChangedTarget) node {
			return nest("tr",
				line(`th scope="row"`, str(text.Line(t.Name))),
				line(`td data-label="Closure"`, str(sizes(t))),
				line(`td data-label="Size differences"`, str(growths(t, text.Line))),
			)
		}),
		names("added", c.Added), names("removed", c.Removed),
	)
}

func (p *page) targets() node {
	rows := table(`<tr><th>Target</th><th>System</th><th>Outcome</th><th class="number">Time</th><th class="number">Closure</th><th>Binary cache</th></tr>`, p.Rows, p.target)
	if p.Folded {
		rows = nest("details", el("summary", str(text.Plural(len(p.Rows), "target"))), rows)
	}
	return part("Targets", rows)
}

func (p *page) target(r row) node {
	quantity := func(s string) node {
		if s == text.None {
			return line(`td class="number none"`, str(s))
		}
		return line(number, str(s))
	}
	name, cached, outcome := str(text.Line(r.Name)), tag("td"), el(`span class="status"`, str(r.Outcome))
	if path := text.Line(r.OutPath); path != "" {
		name = group(name, code(path))
	}
	if r.Caches == "" {
		cached = `td class="none"`
	}
	if address := p.URLs[r.Entry]; address != "" {
		outcome = link(`a class="status"`, address, r.Outcome)
	}
	return nest(tag("tr").attr("class", string(r.Status)),
		line(`th scope="row"`, name),
		line(`td class="system"`, str(cmp.Or(text.Line(r.System), text.None))),
		line("td", outcome, when(r.Because != "", str(": "+text.Line(r.Because)))),
		quantity(r.Time),
		quantity(r.Closure),
		line(cached, str(cmp.Or(text.Line(r.Caches), text.None))),
	)
}

func (p *page) timeLine() node {
	if len(p.Bars) == 0 {
		return nil
	}
	whole := "From the first start to the last end, without pauses: " + duration(p.Seconds) + "."
	if p.MoreBars > 0 {
		whole += " " + text.Plural(p.MoreBars, "entry that took less is", "entries that took less are") + " not shown."
	}
	return part("Time line",
		nest(`ul class="bars"`, each(p.Bars, func(b pageBar) node {
			return line("li",
				el(`span class="name"`, str(b.Mark+" "+text.Line(b.Entry))),
				el(tag("svg").attr("class", string(b.Outcome))+` aria-hidden="true"`,
					leaf(tag("rect").attr("x", b.Left).attr("width", b.Width)+` height="100%"`)),
				el(`span class="number"`, str(duration(b.Seconds))),
			)
		})),
		line("p", str(whole)),
	)
}

func (p *page) shared() node {
	if len(p.Shared) == 0 {
		return nil
	}
	return part(sharedTitle,
		lines(p.Shared),
		nest("details", el("summary", str(text.Plural(len(p.SharedRows), "unit"))),
			table(`<tr><th>Unit</th><th class="number">Time</th><th>Built by</th><th>Taken by</th></tr>`, p.SharedRows, func(r sharedRow) node {
				return line("tr", el("td", str(r.Name)), el(number, str(r.Took)), el("td", str(r.By)), el("td", str(r.Taken)))
			}),
		),
	)
}

func (p *page) cost() node {
	if p.Spent == nil {
		return nil
	}
	return part(costTitle,
		lines(p.Spent.Lines),
		nest("details", el("summary", str("Minutes by runner")),
			table(`<tr><th>Runner</th><th class="number">Jobs</th><th class="number">Minutes</th><th class="number">Price</th><th class="number">Billed</th></tr>`, p.Spent.Rows, func(r costRow) node {
				return line("tr", el("td", str(r.Runner)), el(number, str(r.Jobs)), el(number, str(r.Minutes)), el(number, str(r.Factor)), el(number, str(r.Billed)))
			}),
			line("p", str(p.Spent.Measure)),
		),
	)
}

func (p *page) caches() node {
	if len(p.Hits) == 0 && len(p.Totals) == 0 {
		return nil
	}
	return part("Caches",
		lines(p.Hits),
		table(`<tr><th>Pushed to</th><th class="number">Entries</th><th class="number">Paths</th><th class="number">Uploaded</th><th class="number">Time</th><th>Failed</th></tr>`, p.Totals, (*pushTotal).document),
		items(p.PushErrors, func(push verdict.Push) node {
			why := ""
			switch {
			case push.Withheld:
				why = " (optional, because GitHub gives the run no secrets)"
			case push.Optional:
				why = " (optional)"
			}
			return str(text.Line(push.Entry) + " to " + text.Line(push.Destination) + why + ": " + text.Line(push.Error))
		}),
	)
}

func (t *pushTotal) document() node {
	cell := func(name, value string) node {
		return line(tag("td").attr("data-label", name)+` class="number"`, str(value))
	}
	status, optional := "built", ""
	var failed node
	if t.Red() > 0 {
		status, failed = "failed", el(`span class="status"`, str(fmt.Sprint(t.Red())))
	}
	switch {
	case t.Optional > 0:
		optional = fmt.Sprintf("%d optional", t.Optional)
		if t.Red() > 0 {
			optional = ", " + optional
		}
	case t.Failed == 0:
		optional = text.None
	}
	return nest(tag("tr").attr("class", status),
		line(`th scope="row"`, str(text.Line(t.Destination))),
		cell("Entries", fmt.Sprint(t.Entries)),
		cell("Paths", fmt.Sprint(t.Paths)),
		cell("Uploaded", t.Uploaded()),
		cell("Time", duration(t.Seconds)),
		line(`td data-label="Failed"`, failed, str(optional)),
	)
}

func (p *page) ignored() node {
	return part("Ignored results", items(p.Ignored, func(r verdict.Ignored) node {
		return str(text.Line(cmp.Or(r.Name, r.Entry)) + ": " + r.Why)
	}))
}

// part writes a section, or nothing if it has no content.
func part(title string, content ...node) node {
	if !slices.ContainsFunc(content, func(n node) bool { return n != nil }) {
		return nil
	}
	return nest("section", line("h2", str(title)), group(content...))
}

// table writes a table, or nothing if it has no rows.
func table[T any](head tag, rows []T, of func(T) node) node {
	if len(rows) == 0 {
		return nil
	}
	return nest("table",
		line("thead", func(b *bytes.Buffer) { b.WriteString(string(head)) }),
		nest("tbody", each(rows, of)),
	)
}

// items writes a list, or nothing if it is empty.
func items[T any](all []T, of func(T) node) node {
	if len(all) == 0 {
		return nil
	}
	return nest("ul", each(all, func(one T) node { return line("li", of(one)) }))
}

// lines writes a list of texts, or nothing if it is empty.
func lines(all []string) node { return items(all, str) }

// paragraph writes a text, or nothing if it is empty.
func paragraph(s string) node { return when(s != "", line("p", str(s))) }

// labelled writes a paragraph that begins with a label.
func labelled(name string, value node) node {
	return line("p", el(label, str(name)), str(" "), value)
}

func code(s string) node { return el("code", str(s)) }

// link writes a link, whose address must be linkable.
func link(t tag, address, name string) node { return el(t.attr("href", address), str(name)) }

// details returns the tag of a part that is folded unless it is open.
func details(open bool) tag {
	if open {
		return "details open"
	}
	return "details"
}
