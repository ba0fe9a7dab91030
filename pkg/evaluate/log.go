package evaluate

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
)

var (
	// fetchedPath matches Nix's line about a path that an import from a derivation needs.
	fetchedPath = regexp.MustCompile(`^copying path '/nix/store/[^']+' from '`)
	// gitProgress matches the lines with which git fetch reports its progress, and the refs that
	// it has updated.
	gitProgress = regexp.MustCompile(`^(?:remote: )?(?:Enumerating|Counting|Compressing|Receiving|Resolving|Unpacking|Updating|Filtering) (?:objects|deltas|files|content): ` +
		`|^remote: Total \d+ \(delta |^From \S+$` +
		`|^ [ *+t=-] (?:\[new (?:branch|tag|ref)\]|\[tag update\]|[0-9a-f]{7,64}\.{2,3}[0-9a-f]{7,64}|branch|tag) .* -> `)
)

// other handles a line of an evaluator that is no event. All lines from an error on are shown
// with the target or the error.
func (w *worker) other(line string) {
	line = text.Clip(line, maxLogLine)
	w.dying = w.dying || strings.HasPrefix(text.Plain(line), "error:")
	if w.dying {
		return
	}
	if fetchedPath.MatchString(line) {
		w.pool.fetched++
		return
	}
	progress := false
	for part := range strings.SplitSeq(line, "\r") { // git overwrites its line
		part = text.Plain(part)
		switch {
		case gitProgress.MatchString(part):
			progress = true
		case strings.TrimSpace(part) != "" || !progress:
			w.log(part)
		}
	}
}

// Limits of the evaluators' own lines in the log.
const (
	maxLogLines = 5000    // in total
	maxLogLine  = 4 << 10 // bytes
)

// log logs a line that an evaluator has printed of its own, unless another one has printed it
// as often before.
func (w *worker) log(line string) {
	p := w.pool
	if p.logged > maxLogLines {
		return
	}
	w.lineCounts[line]++
	if w.lineCounts[line] <= p.lineCounts[line] {
		return
	}
	p.lineCounts[line] = w.lineCounts[line]
	if p.logged++; p.logged > maxLogLines {
		line = fmt.Sprintf("The evaluators print more than %d lines: the rest is not shown.", maxLogLines)
	}
	if p.o.Log != nil {
		p.o.Log(line)
	}
}

// logFetched logs how many paths were fetched.
func (d *evaluation) logFetched() {
	if d.fetched > 0 && d.o.Log != nil {
		d.o.Log(fmt.Sprintf("fetched %s from substituters for the evaluation", text.Plural(d.fetched, "store path")))
	}
}
