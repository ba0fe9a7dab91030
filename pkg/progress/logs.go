package progress

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

const (
	keptLines = 1000 // of each log
	keptBytes = 2000 // of each line
	// heldBytes is the most memory for the logs of derivations that have ended, while their
	// outcome is unknown.
	heldBytes = 32 << 20

	// longBuild is the least time of a build whose log is worth showing.
	longBuild = 10 * time.Second
	// failureDelay is the time after the end of a build in which Nix reports its failure, if it
	// does so before the end of all builds.
	failureDelay = time.Second
)

// The budget of a running builder, in lines. Once it is exhausted, several lines have to
// accumulate, or a line about a gap would follow each shown line.
const (
	burst     = 50
	perSecond = 2
	together  = 10
)

// A budget is the lines that a derivation may still show.
type budget struct {
	tokens    float64
	refilled  time.Time
	exhausted bool
}

// take reports whether a line may be shown, and counts it.
func (b *budget) take(now time.Time) bool {
	b.tokens = min(burst, b.tokens+perSecond*max(0, now.Sub(b.refilled).Seconds()))
	b.refilled = now
	if b.exhausted = b.tokens < 1 || b.exhausted && b.tokens < together; b.exhausted {
		return false
	}
	b.tokens--
	return true
}

// A buildLog is the state of a build and its log.
type buildLog struct {
	name          string
	started, stop time.Time
	budget        budget
	hiddenNow     int      // lines since the last that was shown
	hidden        bool     // at least one was not shown
	above         int      // lines before the first one that was not shown
	lines         int      // lines
	last          []string // keptLines of them at most, as a ring
	size          int      // bytes of those
	dropped       bool     // last was dropped to save memory
	shown         bool     // its log was shown as a whole
	failed        bool
	brief         bool // only its last line is kept, in case it fails
}

// add appends a line.
func (l *buildLog) add(line string) {
	if len(l.last) < keptLines {
		l.last = append(l.last, line)
	} else {
		at := &l.last[l.lines%keptLines]
		l.size -= len(*at)
		*at = line
	}
	l.size += len(line)
	l.lines++
}

// end returns the last lines, in their order.
func (l *buildLog) end() []string {
	if len(l.last) < keptLines {
		return l.last
	}
	first := l.lines % keptLines
	return slices.Concat(l.last[first:], l.last[:first])
}

// forget drops the lines.
func (l *buildLog) forget() { l.last, l.size = nil, 0 }

// duration returns how long the build took, or has taken until now if it is running.
func (l *buildLog) duration(now time.Time) time.Duration {
	if !l.stop.IsZero() {
		now = l.stop
	}
	return max(0, now.Sub(l.started))
}

// worthShowing reports whether to show the log of a build that did not fail: it took long, and
// some of its lines were hidden.
func (l *buildLog) worthShowing(now time.Time) bool {
	return l.hidden && !l.shown && l.duration(now) >= longBuild
}

// buildLogs are the logs of all derivations.
type buildLogs struct {
	of    map[string]*buildLog // by derivation
	built func(drvPath string) bool
	// ended are the derivations whose build has ended with an unknown outcome, in the order of
	// their end, and held the bytes of their logs.
	ended []string
	held  int
	// due are those in ended whose log is worth showing.
	due []string
}

// Verify sets a function that reports whether a build that has ended left its outputs. It is
// called while the display is locked. Without it, a build counts as built unless Nix soon
// reports its failure.
func (d *Display) Verify(built func(drvPath string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs.built = built
}

// Failed reports a failure that Nix did not report. The log of the derivation is shown, if it
// was not shown before.
func (d *Display) Failed(drvPath string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(drvPath, d.now())
	d.draw()
}

func (s *buildLogs) start(drv string, at time.Time) *buildLog {
	s.remove(drv) // it is built again
	l := &buildLog{name: job.DrvName(drv), started: at, budget: budget{tokens: burst, refilled: at}}
	s.of[drv] = l
	return l
}

// remove removes a derivation from the lists of those that have ended.
func (s *buildLogs) remove(drv string) {
	if i := slices.Index(s.ended, drv); i >= 0 {
		s.ended = slices.Delete(s.ended, i, i+1)
		s.held -= s.of[drv].size
	}
	if i := slices.Index(s.due, drv); i >= 0 {
		s.due = slices.Delete(s.due, i, i+1)
	}
}

// keepEnded adds a derivation to those lists, and drops older logs to make room.
func (s *buildLogs) keepEnded(drv string) {
	l := s.of[drv]
	s.ended = append(s.ended, drv)
	s.held += l.size
	if l.worthShowing(l.stop) {
		s.due = append(s.due, drv)
	}
	for _, old := range s.ended {
		if s.held <= heldBytes {
			return
		}
		if l := s.of[old]; l.size > 0 {
			s.held -= l.size
			l.forget()
			l.dropped = true
		}
	}
}

// buildLine adds lines to a log, and shows them within the budget.
func (d *Display) buildLine(e nix.Event) {
	l := d.logs.of[e.Path]
	if l == nil {
		l = d.logs.start(e.Path, e.Time)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(e.Text, "\n"), "\n") {
		line = text.Clip(line, keptBytes)
		if !l.shown {
			l.add(line)
		}
		if !l.budget.take(e.Time) {
			if l.hiddenNow++; !l.hidden {
				l.hidden, l.above = true, l.lines-1
			}
			continue
		}
		d.closeGap(l)
		d.printf("%s> %s", l.name, line)
	}
}

// lastLine keeps the last line of a brief log.
func (d *Display) lastLine(e nix.Event) {
	lines := strings.Split(strings.TrimSpace(e.Text), "\n")
	if l, last := d.logs.of[e.Path], lines[len(lines)-1]; l != nil && last != "" {
		last = text.Clip(last, keptBytes)
		l.last, l.size = []string{last}, len(last)
	}
}

// closeGap writes the number of lines that were left out.
func (d *Display) closeGap(l *buildLog) {
	switch l.hiddenNow {
	case 0:
		return
	case 1:
		d.printf("%s> … 1 line more", l.name)
	default:
		d.printf("%s> … %s lines more", l.name, number(l.hiddenNow))
	}
	l.hiddenNow = 0
}

// buildStopped handles the end of a build with any outcome.
func (d *Display) buildStopped(e nix.Event) {
	l := d.logs.of[e.Path]
	if l == nil || !l.stop.IsZero() {
		return
	}
	d.closeGap(l)
	l.stop = e.Time
	switch {
	case d.logs.built != nil && d.logs.built(e.Path):
		if l.worthShowing(e.Time) {
			d.showLog(l, "built in", e.Time)
		}
		delete(d.logs.of, e.Path)
	default:
		d.logs.keepEnded(e.Path)
	}
}

// showSettled shows the logs of builds whose failure Nix would have reported by now. Without
// Verify, they count as built.
func (d *Display) showSettled(now time.Time) {
	if d.logs.built != nil {
		return
	}
	for len(d.logs.due) > 0 {
		drv := d.logs.due[0]
		l := d.logs.of[drv]
		if now.Sub(l.stop) < failureDelay {
			return
		}
		d.logs.remove(drv)
		d.showLog(l, "built in", now)
	}
}

// onError handles an error message: the derivation that it names first failed.
func (d *Display) onError(e nix.Event) {
	if named := nix.Named(e.Text); len(named) > 0 {
		d.fail(named[0], e.Time)
	}
}

// fail shows the log of a derivation that failed, once.
func (d *Display) fail(drv string, now time.Time) {
	l := d.logs.of[drv]
	if l == nil || l.failed {
		return
	}
	l.failed = true
	delete(d.running, drv) // Nix may report its end much later
	d.logs.remove(drv)
	if l.brief {
		text := fmt.Sprintf("%s: failed after %s", l.name, text.Duration(l.duration(now)))
		if len(l.last) > 0 {
			text += ": " + shorten(l.last[0], stepWidth)
		}
		d.lines(d.coloured(red, "✗"), text)
		return
	}
	d.closeGap(l)
	if l.shown || !l.hidden && l.lines > 0 {
		d.printf("%s: failed after %s; its log is above", l.name, text.Duration(l.duration(now)))
		return
	}
	d.showLog(l, "failed after", now)
}

// showRest shows the remaining logs, when all builds have ended.
func (d *Display) showRest() {
	how := "built in"
	if d.logs.built != nil {
		how = "ended after" // stopped, or without known outputs
	}
	for _, drv := range d.logs.due {
		d.showLog(d.logs.of[drv], how, d.now())
	}
	for _, drv := range slices.Sorted(maps.Keys(d.logs.of)) {
		l := d.logs.of[drv]
		d.closeGap(l)
		if now := d.now(); l.stop.IsZero() && l.worthShowing(now) {
			d.showLog(l, "stopped after", now)
		}
	}
	clear(d.logs.of)
	d.logs.ended, d.logs.due, d.logs.held = nil, nil, 0
}

// showLog shows the end of a log from the first line on that was not shown, and drops it.
func (d *Display) showLog(l *buildLog, how string, now time.Time) {
	title := fmt.Sprintf("%s: %s %s", l.name, how, text.Duration(l.duration(now)))
	lines, left := l.end(), l.lines-len(l.last)
	if l.dropped {
		title += fmt.Sprintf(", with %s lines of log, which were dropped to save memory", number(l.lines))
		lines = nil
	}
	l.shown = true
	l.forget()
	if len(lines) == 0 {
		d.printf("%s", title)
		return
	}
	switch {
	case l.above > left:
		lines = slices.Insert(lines[l.above-left:], 0, fmt.Sprintf("… %s lines before these are above", number(l.above)))
	case left > 0:
		lines = slices.Insert(lines, 0, fmt.Sprintf("… %s lines before these are left out", number(left)))
	}
	d.group(title, lines)
}

// group writes lines under a title, without anything between them.
func (d *Display) group(title string, lines []string) {
	var b bytes.Buffer
	title = d.clean(strings.ReplaceAll(text.Plain(title), "\n", " "))
	before := "  "
	if d.groups {
		before = ""
		title = "::group::" + strings.ReplaceAll(title, "%", "%25")
	}
	b.WriteString(title + "\n")
	for _, line := range lines {
		b.WriteString(before + d.clean(text.Plain(line)) + "\n")
	}
	if d.groups {
		b.WriteString("::endgroup::\n")
	}
	d.write(b.Bytes())
}

// number returns a number with separators: 1,234.
func number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
