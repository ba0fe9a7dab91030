package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// timeLine returns the builds of an entry over time, for the end of its log: a line for each
// derivation with its start, its duration, and both as a bar. Of many, it shows the longest. It
// is empty if none took a second.
func timeLine(r *job.Result) string {
	const (
		most    = 20
		columns = 40
		least   = time.Second
	)
	spans := timeSpans(r)
	if len(spans) == 0 || spans[0].took < least {
		return ""
	}
	all := len(spans)
	for len(spans) > most || spans[len(spans)-1].took < least {
		spans = spans[:len(spans)-1]
	}
	total := r.Finished.Sub(r.Started)
	for _, s := range spans {
		total = max(total, s.offset+s.took)
	}
	slices.SortStableFunc(spans, func(a, b timeSpan) int { return cmp.Compare(a.offset, b.offset) })

	var b strings.Builder
	fmt.Fprintf(&b, "%8s %7s  %-*s%s  DERIVATION\n", "START", "TOOK", columns-len(text.Duration(total)), "0s", text.Duration(total))
	for _, s := range spans {
		scale := columns / float64(total)
		from := min(int(float64(s.offset)*scale), columns-1)
		n := min(max(1, int(math.Round(float64(s.took)*scale))), columns-from)
		bar := strings.Repeat(" ", from) + strings.Repeat("█", n) + strings.Repeat(" ", columns-from-n)
		mark := ""
		if s.failed {
			mark = "✗ "
		}
		fmt.Fprintf(&b, "%8s %7s  %s  %s%s\n", "+"+text.Duration(s.offset), text.Duration(s.took), bar, mark, s.name)
	}
	if left := all - len(spans); left > 0 {
		fmt.Fprintf(&b, "and %s\n", text.Plural(left, "shorter one", "shorter ones"))
	}
	return b.String()
}

// A timeSpan is the time of a build.
type timeSpan struct {
	offset, took time.Duration
	name         string // foreign text, safe to show
	failed       bool
}

// timeSpans returns the time spans of all builds, the longest first.
func timeSpans(r *job.Result) []timeSpan {
	begin := r.Started
	for _, b := range r.Builds {
		if begin.IsZero() || !r.Started.Before(r.Finished) && b.Started.Before(begin) {
			begin = b.Started
		}
	}
	spans := make([]timeSpan, len(r.Builds))
	for i, b := range r.Builds {
		spans[i] = timeSpan{
			offset: max(0, b.Started.Sub(begin)),
			took:   verdict.Seconds(b.Seconds),
			name:   text.NoCommandsWithin(text.Clip(text.Line(job.DrvName(b.DrvPath)), 100)),
			failed: b.Failed,
		}
	}
	slices.SortStableFunc(spans, func(a, b timeSpan) int {
		return cmp.Or(cmp.Compare(b.took, a.took), cmp.Compare(a.offset, b.offset), cmp.Compare(a.name, b.name))
	})
	return spans
}
