package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

//go:embed page.css
var pageCSS string

// styleSum returns the hash with which the page's policy allows its only style.
func styleSum() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// HTML returns the verdict as a page that needs no network and runs no script, with the contents
// of the Summary. It shows all targets, regardless of o.MaxBytes, and the end of logs.
func HTML(of *verdict.Verdict, o SummaryOptions) []byte {
	var b bytes.Buffer
	view{of}.page(o).document()(&b)
	return b.Bytes()
}

// A page has the values for its document.
type page struct {
	*verdict.Verdict
	Tally      string
	RunURL     string // empty if there is none
	About      string // likewise; see Origin
	Sections   []pageSection
	Unfinished []pageGroup
	Bars       []pageBar
	MoreBars   int
	Rows       []row
	Folded     bool              // there are many
	URLs       map[string]string // of jobs, by Entry.Name
	Shared     []string
	SharedRows []sharedRow
	Spent      *pageCost
	Hits       []string
	Totals     []*pushTotal
	PushErrors []verdict.Push
	Notes      []string
}

type pageSection struct {
	Title  string
	Causes []pageCause
}

// A pageCause is a root cause, or an error of an entry.
type pageCause struct {
	Title             string
	Hit               []pageGroup
	Derivation, Place string
	Detail, Log       string
	Silent            string   // in place of Log
	WholeLog          []string // its locations
	Open              bool     // the log is not folded
	OthersTitle       string
	Others            []string
	FoldOthers        bool
	Reproduce         string
	Jobs              []pageLink
}

// A pageLink leads to the page of an entry's job.
type pageLink struct{ Entry, URL string }

// A pageGroup is a group of targets, and a text about all of them.
type pageGroup struct{ How, Names string }

// A pageBar is an entry in the time line.
type pageBar struct {
	verdict.Work
	Mark        string
	Left, Width string // in percent of the whole
}

func (v view) page(o SummaryOptions) *page {
	const (
		mostBars = 100
		allLogs  = 4 << 20 // bytes, of all causes together
		openLogs = 3
		openRows = 100
	)
	p := &page{
		Verdict: v.Verdict, Tally: v.counts(), Rows: v.rows(), URLs: v.links(o),
		Shared: v.sharedLines(text.Line), SharedRows: v.sharedRows(text.Line), Spent: v.costs(),
		Hits: v.cacheLines(), Totals: v.pushTotals(), Notes: v.notes(text.Line),
	}
	p.Folded = len(p.Rows) > openRows
	p.About = originLine(v.Origin, func(s string) string { return text.Clip(text.Line(s), 200) })
	if linkable(o.RunURL) {
		p.RunURL = o.RunURL
	}
	failed, unevaluated := v.rootCauses(false), v.rootCauses(true)
	each := min(max(allLogs/max(len(failed)+len(unevaluated), 1), 4<<10), 64<<10)
	for _, s := range []struct {
		title  string
		causes []*rootCause
	}{{"Failed", failed}, {"Could not be evaluated", unevaluated}} {
		section := pageSection{Title: s.title}
		for _, c := range s.causes {
			cause := c.page(each)
			cause.Open, cause.Jobs = len(s.causes) <= openLogs, p.jobs(c.entries()...)
			section.Causes = append(section.Causes, cause)
		}
		p.Sections = append(p.Sections, section)
	}
	beside := pageSection{Title: entriesTitle}
	for _, e := range v.Entries {
		beside.Causes = append(beside.Causes, pageCause{Title: text.Line(cmp.Or(e.Name, e.Entry)), Detail: ending(text.Lines(e.Message), each), Jobs: p.jobs(e.Name)})
	}
	p.Sections = append(p.Sections, beside)
	for _, push := range v.Pushes {
		if push.Error != "" {
			p.PushErrors = append(p.PushErrors, push)
		}
	}
	for _, t := range v.HostsFirst(verdict.TargetMissing, verdict.TargetCancelled) {
		if last := len(p.Unfinished) - 1; last >= 0 && p.Unfinished[last].How == t.Why {
			p.Unfinished[last].Names += ", " + text.Line(t.Name())
			continue
		}
		p.Unfinished = append(p.Unfinished, pageGroup{t.Why, text.Line(t.Name())})
	}
	var bars []verdict.Work
	bars, p.MoreBars = v.bars(mostBars)
	for _, w := range bars {
		p.Bars = append(p.Bars, pageBar{w, mark(w), percent(w.Start, v.Seconds), percent(w.Seconds, v.Seconds)})
	}
	return p
}

func (c *rootCause) page(limit int) pageCause {
	_, detail := c.statement()
	file, line := c.location()
	p := pageCause{
		Title: c.headline(text.Line), Derivation: text.Line(c.drv), Detail: ending(detail, limit), Log: ending(c.log(), limit),
		Reproduce: strings.Join(c.reproduce(), "\n"), OthersTitle: c.othersTitle(), Others: c.others(text.Line), FoldOthers: len(c.further) > openOthers,
	}
	if file != "" {
		p.Place = position(file, line)
	}
	p.WholeLog = c.wholeLog()
	if c.silent() {
		p.Silent = printedNothing
	}
	for _, group := range c.affectedTargets() {
		if group.label != "" {
			p.Hit = append(p.Hit, pageGroup{group.label, text.Line(strings.Join(targetNames(group.all()), ", "))})
		}
	}
	return p
}

// jobs returns links to the jobs of the first few entries with a known page.
func (p *page) jobs(entries ...string) []pageLink {
	var links []pageLink
	for _, entry := range entries {
		if address := p.URLs[entry]; address != "" && len(links) < fewJobs {
			links = append(links, pageLink{text.Line(entry), address})
		}
	}
	return links
}

// ending returns the last lines, as many as fit into limit bytes.
func ending(all []string, limit int) string {
	return strings.Join(clipped(all, limit, false), "\n")
}

func percent(part, whole float64) string {
	if whole <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%.2f%%", min(max(part/whole, 0), 1)*100)
}
