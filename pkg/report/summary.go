package report

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A view shows a verdict.
type view struct{ *verdict.Verdict }

// MaxSummary is GitHub's limit for a step's summary, in bytes.
const MaxSummary = 1 << 20

// SummaryOptions say how to write a summary.
type SummaryOptions struct {
	// RunURL is the URL of the run's page, for a summary outside of it. It is ignored unless it
	// is an http URL. Documents may only link to pages of runs in the same repository.
	RunURL string
	// Brief leaves out the sections that are not about the change, if that is known: the table
	// of all targets, the time line, caches, costs.
	Brief bool
	// MaxBytes is the limit of the summary; 0 is MaxSummary. It is at least 8 KiB.
	MaxBytes int
}

// Summary returns the verdict as Markdown for GitHub: the verdict, the failures, a table of all
// targets, the time line, caches and costs. If that is too large, long logs, then whole logs, then rows
// of the table are left out, with their number. The verdict and the names of failed targets stay.
func Summary(of *verdict.Verdict, o SummaryOptions) string {
	v := view{of}
	const margin = 64 // the caller may add a newline or two
	limit := max(cmp.Or(o.MaxBytes, MaxSummary), 8<<10) - margin
	n := v.newNames(limit / 2)
	l := v.links(o)
	failed := []*section{v.failedSection(n, l), v.unevaluatedSection(n), v.entriesSection(n, l)}
	before := v.head(o.RunURL, limit/8)
	middle := v.unfinished(n)
	if v.Change != nil {
		middle += change{v.Change}.markdown(limit/8, o)
	}
	brief := o.Brief && v.Change != nil
	after := ""
	if !brief {
		after = v.gantt(limit/16) + v.sharedSection(limit/32) + v.cachesSection(limit/16) + v.costSection(limit/32) + v.notices(limit/32) + v.ignored(limit/32)
	}

	room := limit - len(before) - len(middle) - len(after) - tableFrame
	blocks := 0
	for _, s := range failed {
		room -= s.minSize()
		blocks += len(s.blocks)
	}
	details := room * 2 / 3
	room -= details
	each := min(max(details/max(blocks, 1), 4<<10), 64<<10)
	for _, s := range failed {
		before += s.render(each, &details)
	}
	if brief {
		return before + middle + bullets("Not pushed", v.unpushed(true), limit/16) + v.notices(limit/32)
	}
	return before + middle + v.table(room+details, l) + after
}

var marks = map[verdict.Status]string{verdict.Success: "✅", verdict.Failure: "❌", verdict.Cancelled: "⚪"}

// head returns the verdict in a heading, with the counts, the next step and the jobs.
func (v view) head(runURL string, limit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s nix-matrix: %s\n\n", marks[v.Status], v.Reason)
	if counts := v.counts(); counts != "" {
		fmt.Fprintf(&b, "%s\n\n", counts)
	}
	if v.Next != "" {
		fmt.Fprintf(&b, "%s\n\n", v.Next)
	}
	if origin := originLine(v.Origin, func(s string) string { return text.Code(s, 200) }); origin != "" {
		fmt.Fprintf(&b, "%s\n\n", origin)
	}
	if linkable(runURL) {
		fmt.Fprintf(&b, "[The run and its logs](%s)\n\n", runURL)
	}
	var jobs []string
	for _, p := range v.Jobs {
		how := map[verdict.Status]string{verdict.Failure: "failed", verdict.Cancelled: "was cancelled", verdict.Skipped: "was skipped"}[p.Result]
		jobs = append(jobs, text.Code(p.Job, 100)+" "+cmp.Or(how, "did not succeed"))
	}
	if len(jobs) > 0 {
		fmt.Fprintf(&b, "Jobs: %s\n\n", list(jobs, ", ", limit))
	}
	return b.String()
}

func linkable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" &&
		len(address) < 500 && !strings.ContainsAny(address, "<>()[] \n\\")
}

// owns reports whether an address in a document, which is foreign text, is that of a run, an
// attempt or a job in the repository of RunURL. No other is linked to, and none without RunURL.
func (o SummaryOptions) owns(address string) bool {
	repository, _, ok := strings.Cut(o.RunURL, runPage)
	rest, below := strings.CutPrefix(address, repository+runPage)
	return ok && below && linkable(o.RunURL) && ownPage().MatchString(rest)
}

const runPage = "/actions/runs/"

// ownPage matches the rest of an address after runPage.
var ownPage = lazyregexp.New(`^[0-9]+(?:/attempts/[0-9]+|/job/[0-9]+)?$`)

// links returns the addresses of the pages of this run's jobs, by Entry.Name. All are safe in
// Markdown.
func (v view) links(o SummaryOptions) map[string]string {
	l := map[string]string{}
	for _, w := range v.Work {
		if run, _, ok := strings.Cut(w.URL, "/job/"); ok && o.owns(w.URL) && strings.HasPrefix(o.RunURL+"/", run+"/") {
			l[w.Entry] = w.URL
		}
	}
	return l
}

// counts returns the numbers in one line.
func (v view) counts() string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{v.Counts.Failed, "failed"}, {v.Counts.Missing, "without a result"}, {v.Counts.Cancelled, "cancelled"},
		{v.Counts.Built, "built"}, {v.Counts.Fetched, "fetched"}, {v.Counts.Present, "in the store already"}, {v.Counts.Skipped, "skipped"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if v.Seconds > 0 {
		parts = append(parts, "in "+duration(v.Seconds))
	}
	if v.JobSeconds > v.Seconds+1 {
		parts = append(parts, duration(v.JobSeconds)+" of job time")
	}
	return strings.Join(parts, " · ")
}

// unfinished returns the list of the targets without a result.
func (v view) unfinished(n *names) string {
	var b strings.Builder
	for _, kind := range []struct {
		status verdict.TargetStatus
		title  string
	}{{verdict.TargetMissing, "Without a result"}, {verdict.TargetCancelled, "Cancelled"}} {
		var whys []string
		by := map[string][]*verdict.Target{}
		for _, t := range v.HostsFirst(kind.status) {
			if by[t.Why] == nil {
				whys = append(whys, t.Why)
			}
			by[t.Why] = append(by[t.Why], t)
		}
		if len(whys) > 0 {
			fmt.Fprintf(&b, "### %s\n\n", kind.title)
		}
		for _, why := range whys {
			fmt.Fprintf(&b, "- %s: %s\n", why, n.of(by[why]).inline())
		}
		if len(whys) > 0 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (v view) notices(limit int) string {
	const longest = 2000
	notices := v.notes(func(s string) string { return text.Code(s, longest) })
	for i := range notices {
		notices[i] = "- " + notices[i]
	}
	return bullets("Notices", notices, limit)
}

func (v view) ignored(limit int) string {
	ignored := make([]string, len(v.Ignored))
	for i, r := range v.Ignored {
		ignored[i] = fmt.Sprintf("- %s: %s", text.Code(cmp.Or(r.Name, r.Entry), 200), r.Why)
	}
	return bullets("Ignored results", ignored, limit)
}

// bullets returns a list under a heading, "" for no items.
func bullets(title string, items []string, limit int) string {
	if len(items) == 0 {
		return ""
	}
	return "### " + title + "\n\n" + list(items, "\n", limit) + "\n\n"
}

// list returns as many items as fit into limit bytes, joined, and the number of the others.
func list(items []string, separator string, limit int) string {
	size := 0
	for i, item := range items {
		if size += len(separator) + len(item); size <= limit {
			continue
		}
		rest := fmt.Sprintf("and %d more", len(items)-i)
		if strings.HasPrefix(item, "- ") {
			rest = "- " + rest
		}
		items = append(items[:i:i], rest)
		break
	}
	return strings.Join(items, separator)
}
