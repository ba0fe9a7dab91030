package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A pushTotal is the sum of all entries' pushes to one binary cache.
type pushTotal struct {
	Destination            string
	Entries, Paths, Failed int
	Optional               int // optional ones among the failed
	Sent                   int // paths that the binary cache lacked
	Bytes                  int64
	Seconds                float64
}

// Uploaded returns the paths and bytes that the binary cache lacked, if known.
func (t *pushTotal) Uploaded() string {
	if t.Sent == 0 {
		return text.None
	}
	return amount(text.Plural(t.Sent, "path"), t.Bytes)
}

// amount returns a text about store paths with their bytes, if known.
func amount(paths string, bytes int64) string {
	if bytes > 0 {
		paths += ", " + size(bytes)
	}
	return paths
}

// Red returns the number of required pushes that failed.
func (t *pushTotal) Red() int { return t.Failed - t.Optional }

// pushTotals returns the sums of the pushes by destination, in the order of the first push.
func (v view) pushTotals() []*pushTotal {
	by := map[string]*pushTotal{}
	var totals []*pushTotal
	for _, p := range v.Pushes {
		t := by[p.Destination]
		if t == nil {
			t = &pushTotal{Destination: p.Destination}
			by[p.Destination] = t
			totals = append(totals, t)
		}
		t.Entries++
		t.Seconds += max(p.Seconds, 0)
		t.Sent, t.Bytes = t.Sent+max(p.Sent, 0), t.Bytes+max(p.Bytes, 0)
		if p.Error != "" {
			t.Failed++
			if p.Optional {
				t.Optional++
			}
		} else {
			t.Paths += max(p.Paths, 0)
		}
	}
	return totals
}

// cacheLines returns lines about the paths from caches, and the derivations that were built.
func (v view) cacheLines() []string {
	var paths, built, fetched int
	var read, unpacked int64
	var restored, saved verdict.Traffic
	for _, w := range v.Work {
		paths, built, read = paths+w.Imported, built+w.Built, read+w.Downloaded
		fetched, unpacked = fetched+w.Fetched, unpacked+w.FetchedBytes
		restored.Add(w.Restored.Paths, w.Restored.Bytes)
		saved.Add(w.Saved.Paths, w.Saved.Bytes)
	}
	var all []string
	if hits := v.Counts.Skipped + v.Counts.Fetched + v.Counts.Present; hits > 0 {
		all = append(all, fmt.Sprintf("%d of %s needed no building", hits, text.Plural(len(v.Targets), "target")))
	}
	if restored.Paths > 0 {
		all = append(all, fmt.Sprintf("%s restored from the store cache, %s read", text.Plural(restored.Paths, "store path"), size(restored.Bytes)))
	}
	if fetched > 0 {
		all = append(all, amount(text.Plural(fetched, "store path")+" fetched from binary caches", unpacked))
	}
	if built > 0 {
		all = append(all, text.Plural(built, "derivation")+" built")
	}
	if saved.Paths > 0 {
		all = append(all, fmt.Sprintf("%s saved for later runs, %s", text.Plural(saved.Paths, "store path"), size(saved.Bytes)))
	}
	if paths > 0 {
		all = append(all, fmt.Sprintf("%s of derivations imported, %s read", text.Plural(paths, "store path"), size(read)))
	}
	return all
}

// cachesSection returns the sections about caches and pushes, in about twice limit bytes.
func (v view) cachesSection(limit int) string {
	hits := v.cacheLines()
	for i := range hits {
		hits[i] = "- " + hits[i]
	}
	md := bullets("Caches", hits, limit)
	if len(v.Pushes) == 0 {
		return md
	}
	var rows []string
	for _, t := range v.pushTotals() {
		failed := text.None
		if red := t.Red(); red > 0 {
			failed = fmt.Sprintf("**%d**", red)
		}
		if t.Optional > 0 {
			failed = strings.TrimPrefix(fmt.Sprintf("%s, %d ⚠️ optional", failed, t.Optional), text.None+", ")
		}
		rows = append(rows, fmt.Sprintf("| %s | %d | %d | %s | %s | %s |\n", text.Cell(t.Destination, 200), t.Entries, t.Paths, t.Uploaded(), duration(t.Seconds), failed))
	}
	errs := v.unpushed(false, true)
	const header = "| Binary cache | Entries | Paths | Uploaded | Time | Failed |\n|---|--:|--:|--:|--:|--:|\n"
	md += "### Pushed\n\n" + cutRows(header, rows, limit, "binary cache")
	if len(errs) > 0 {
		md += list(errs, "\n", limit) + "\n\n"
	}
	return md
}

// textPushed writes the pushes for a log.
func (v view) textPushed(b *strings.Builder) {
	for _, t := range v.pushTotals() {
		if t.Failed < t.Entries {
			uploaded := ""
			if t.Sent > 0 {
				uploaded = fmt.Sprintf(" (it lacked %s)", t.Uploaded())
			}
			fmt.Fprintf(b, "pushed %s to %s in %s%s\n", text.Plural(t.Paths, "path"), plain(t.Destination), duration(t.Seconds), uploaded)
		}
	}
	for i := range v.Pushes {
		if p := &v.Pushes[i]; p.Error != "" {
			fmt.Fprintf(b, "not pushed to %s%s: %s: %s\n", plain(p.Destination), kind(p), plain(p.Entry), plain(p.Error))
		}
	}
}

// kind returns a remark for an optional push.
func kind(p *verdict.Push) string {
	switch {
	case p.Withheld:
		return " (optional, because GitHub gives the run no secrets)"
	case p.Optional:
		return " (optional)"
	default:
		return ""
	}
}

// unpushed returns a line for each failed push of the given kinds: optional or required.
func (v view) unpushed(optional ...bool) []string {
	var all []string
	for i := range v.Pushes {
		if p := &v.Pushes[i]; p.Error != "" && slices.Contains(optional, p.Optional) {
			all = append(all, fmt.Sprintf("- %s to %s%s: %s", text.Code(p.Entry, 200), text.Code(p.Destination, 200), kind(p), text.Code(p.Error, 1000)))
		}
	}
	return all
}

// optionalFailures returns a warning for each error of optional pushes.
func (v view) optionalFailures() []Annotation {
	type failure struct{ destination, why string }
	by := map[failure]int{}
	var all []Annotation
	for _, p := range v.Pushes {
		if p.Error == "" || !p.Optional || p.Withheld && p.Reason == job.PushNoSecret { // a notice of the Plan has it
			continue
		}
		f := failure{p.Destination, p.Error}
		at, known := by[f]
		if !known {
			at = len(all)
			by[f] = at
			all = append(all, Annotation{
				Title:   "Not pushed to " + text.Line(p.Destination),
				Message: strings.Join(text.Lines(p.Error), "\n") + "\nThe push is optional. Entries: ",
			})
		} else {
			all[at].Message += ", "
		}
		all[at].Message += text.Line(p.Entry)
	}
	return all
}
