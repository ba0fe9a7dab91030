package report

import (
	"fmt"
	"strings"
)

// A pushTotal is what all entries sent to one binary cache.
type pushTotal struct {
	destination            string
	entries, paths, failed int
	spared                 int // of the failed, those that don't count
	seconds                float64
}

// pushTotals adds the pushes up, by destination in the order of the first push.
func (v *Verdict) pushTotals() []*pushTotal {
	by := map[string]*pushTotal{}
	var totals []*pushTotal
	for _, p := range v.Pushes {
		t := by[p.Destination]
		if t == nil {
			t = &pushTotal{destination: p.Destination}
			by[p.Destination] = t
			totals = append(totals, t)
		}
		t.entries++
		t.seconds += max(p.Seconds, 0)
		if p.Error != "" {
			t.failed++
			if p.Optional {
				t.spared++
			}
		} else {
			t.paths += max(p.Paths, 0)
		}
	}
	return totals
}

// pushed shows what went to which binary cache, in about twice limit bytes.
func (v *Verdict) pushed(limit int) string {
	if len(v.Pushes) == 0 {
		return ""
	}
	var rows, errs []string
	for _, t := range v.pushTotals() {
		failed := none
		if red := t.failed - t.spared; red > 0 {
			failed = fmt.Sprintf("**%d**", red)
		}
		if t.spared > 0 {
			failed = strings.TrimPrefix(fmt.Sprintf("%s, %d ⚠️ optional", failed, t.spared), none+", ")
		}
		rows = append(rows, fmt.Sprintf("| %s | %d | %d | %s | %s |\n", cell(t.destination, 200), t.entries, t.paths, duration(t.seconds), failed))
	}
	for i := range v.Pushes {
		if p := &v.Pushes[i]; p.Error != "" {
			errs = append(errs, fmt.Sprintf("- %s to %s%s: %s", code(p.Entry, 200), code(p.Destination, 200), p.kind(), code(p.Error, 1000)))
		}
	}
	const header = "| Binary cache | Entries | Paths | Time | Failed |\n|---|--:|--:|--:|--:|\n"
	text := "### Pushed\n\n" + cutRows(header, rows, limit, "binary cache")
	if len(errs) > 0 {
		text += list(errs, "\n", limit) + "\n\n"
	}
	return text
}

// textPushed is the same for a log.
func (v *Verdict) textPushed(b *strings.Builder) {
	for _, t := range v.pushTotals() {
		if t.failed < t.entries {
			fmt.Fprintf(b, "pushed %s to %s in %s\n", plural(t.paths, "path"), plain(t.destination), duration(t.seconds))
		}
	}
	for i := range v.Pushes {
		if p := &v.Pushes[i]; p.Error != "" {
			fmt.Fprintf(b, "not pushed to %s%s: %s: %s\n", plain(p.Destination), p.kind(), plain(p.Entry), plain(p.Error))
		}
	}
}

// kind marks a push whose failure does not count.
func (p *Push) kind() string {
	if p.Optional {
		return " (optional)"
	}
	return ""
}

// spared gives a warning for each way in which pushes failed that don't count.
func (v *Verdict) spared() []Annotation {
	type failure struct{ destination, why string }
	by := map[failure]int{}
	var all []Annotation
	for _, p := range v.Pushes {
		if p.Error == "" || !p.Optional {
			continue
		}
		f := failure{p.Destination, p.Error}
		at, known := by[f]
		if !known {
			at = len(all)
			by[f] = at
			all = append(all, Annotation{
				Title:   "Not pushed to " + oneLine(p.Destination),
				Message: strings.Join(lines(p.Error), "\n") + "\nThis makes nothing red. Of: ",
			})
		} else {
			all[at].Message += ", "
		}
		all[at].Message += oneLine(p.Entry)
	}
	return all
}
