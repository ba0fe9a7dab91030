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
	// heldBytes is what the logs of derivations that have ended may take together
	// while it is not known what became of them.
	heldBytes = 32 << 20

	// long is how long a derivation takes whose log is worth a look.
	long = 10 * time.Second
	// verdict is how soon after its end Nix says that a derivation failed, if it
	// says so before the end of all.
	verdict = time.Second
)

// What a builder may show while it runs, in lines. Once that is spent, some of
// them must come together, or each line would be followed by one about a gap.
const (
	burst     = 50
	perSecond = 2
	together  = 10
)

// A budget is the lines that a derivation may still show.
type budget struct {
	left  float64
	at    time.Time
	spent bool
}

// take asks to show a line.
func (b *budget) take(now time.Time) bool {
	b.left = min(burst, b.left+perSecond*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.spent = b.left < 1 || b.spent && b.left < together; b.spent {
		return false
	}
	b.left--
	return true
}

// A buildLog is what is known of a derivation and its log.
type buildLog struct {
	name          string
	started, stop time.Time
	budget        budget
	gap           int      // lines since the last that was shown
	hidden        bool     // at least one was not shown
	said          int      // lines
	last          []string // keptLines of them at most, as a ring
	size          int      // bytes of those
	dropped       bool     // they had to make room
	told          bool     // its log was shown in a piece
	failed        bool
	brief         bool // only its last line is kept, for when it fails
}

// add takes a line.
func (l *buildLog) add(line string) {
	if len(l.last) < keptLines {
		l.last = append(l.last, line)
	} else {
		at := &l.last[l.said%keptLines]
		l.size -= len(*at)
		*at = line
	}
	l.size += len(line)
	l.said++
}

// end gives the last lines, in their order.
func (l *buildLog) end() []string {
	if len(l.last) < keptLines {
		return l.last
	}
	first := l.said % keptLines
	return slices.Concat(l.last[first:], l.last[:first])
}

// forget drops the lines.
func (l *buildLog) forget() { l.last, l.size = nil, 0 }

// took is for how long it was built, until then if it still is.
func (l *buildLog) took(now time.Time) time.Duration {
	if !l.stop.IsZero() {
		now = l.stop
	}
	return max(0, now.Sub(l.started))
}

// worthIt says whether the log is worth a look though nothing failed: it took
// long, and not all of it was shown.
func (l *buildLog) worthIt(now time.Time) bool { return l.hidden && !l.told && l.took(now) >= long }

// buildLogs are those of all derivations.
type buildLogs struct {
	of    map[string]*buildLog // by derivation
	built func(drvPath string) bool
	// ended are those of which it is not known whether they were built, in the
	// order of their end, and held the bytes of their logs.
	ended []string
	held  int
	// due are those of ended whose log is to be shown.
	due []string
}

// Verify tells the display how to find out, after the end of a build, whether its
// outputs are there. It is called while the display is locked. Without it, a
// build of which Nix has not said soon that it failed counts as built.
func (d *Display) Verify(built func(drvPath string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs.built = built
}

// Failed says that a derivation failed, for what Nix has not said. Its log is
// shown, if that has not been done.
func (d *Display) Failed(drvPath string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(drvPath, d.now())
	d.draw()
}

func (s *buildLogs) start(drv string, at time.Time) *buildLog {
	s.remove(drv) // it is built again
	l := &buildLog{name: job.DrvName(drv), started: at, budget: budget{left: burst, at: at}}
	s.of[drv] = l
	return l
}

// remove takes a derivation off the lists of those that have ended.
func (s *buildLogs) remove(drv string) {
	if i := slices.Index(s.ended, drv); i >= 0 {
		s.ended = slices.Delete(s.ended, i, i+1)
		s.held -= s.of[drv].size
	}
	if i := slices.Index(s.due, drv); i >= 0 {
		s.due = slices.Delete(s.due, i, i+1)
	}
}

// hold puts a derivation on those lists, and makes room for it.
func (s *buildLogs) hold(drv string) {
	l := s.of[drv]
	s.ended = append(s.ended, drv)
	s.held += l.size
	if l.worthIt(l.stop) {
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

// buildLine takes lines of a log, and shows them as far as there is a budget.
func (d *Display) buildLine(e nix.Event) {
	l := d.logs.of[e.Path]
	if l == nil {
		l = d.logs.start(e.Path, e.Time)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(e.Text, "\n"), "\n") {
		line = text.Clip(line, keptBytes)
		if !l.told {
			l.add(line)
		}
		if !l.budget.take(e.Time) {
			l.gap++
			l.hidden = true
			continue
		}
		d.closeGap(l)
		d.printf("%s> %s", l.name, line)
	}
}

// lastLine keeps the last line of a log that is not held.
func (d *Display) lastLine(e nix.Event) {
	lines := strings.Split(strings.TrimSpace(e.Text), "\n")
	if l, last := d.logs.of[e.Path], lines[len(lines)-1]; l != nil && last != "" {
		last = text.Clip(last, keptBytes)
		l.last, l.size = []string{last}, len(last)
	}
}

// closeGap says how many lines were left out.
func (d *Display) closeGap(l *buildLog) {
	switch l.gap {
	case 0:
		return
	case 1:
		d.printf("%s> … 1 line more", l.name)
	default:
		d.printf("%s> … %s lines more", l.name, number(l.gap))
	}
	l.gap = 0
}

// buildStopped is the end of a build, whatever became of it.
func (d *Display) buildStopped(e nix.Event) {
	l := d.logs.of[e.Path]
	if l == nil || !l.stop.IsZero() {
		return
	}
	d.closeGap(l)
	l.stop = e.Time
	switch {
	case d.logs.built != nil && d.logs.built(e.Path):
		if l.worthIt(e.Time) {
			d.tell(l, "built in", e.Time)
		}
		delete(d.logs.of, e.Path)
	default:
		d.logs.hold(e.Path)
	}
}

// settle takes for built what Nix would have said of that it failed, where
// nothing tells better.
func (d *Display) settle(now time.Time) {
	if d.logs.built != nil {
		return
	}
	for len(d.logs.due) > 0 {
		drv := d.logs.due[0]
		l := d.logs.of[drv]
		if now.Sub(l.stop) < verdict {
			return
		}
		d.logs.remove(drv)
		d.tell(l, "built in", now)
	}
}

// blame takes an error message: the derivation that it names first failed.
func (d *Display) blame(e nix.Event) {
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
	delete(d.running, drv) // Nix may say only much later that it has stopped
	d.logs.remove(drv)
	if l.brief {
		text := fmt.Sprintf("%s: failed after %s", l.name, text.Duration(l.took(now)))
		if len(l.last) > 0 {
			text += ": " + shorten(l.last[0], stepWidth)
		}
		d.lines(d.coloured(red, "✗"), text)
		return
	}
	d.closeGap(l)
	if l.told {
		d.printf("%s: failed after %s; its log is above", l.name, text.Duration(l.took(now)))
		return
	}
	d.tell(l, "failed after", now)
}

// flush tells the rest, when all has ended.
func (d *Display) flush() {
	how := "built in"
	if d.logs.built != nil {
		how = "ended after" // stopped, or its outputs are not known
	}
	for _, drv := range d.logs.due {
		d.tell(d.logs.of[drv], how, d.now())
	}
	for _, drv := range slices.Sorted(maps.Keys(d.logs.of)) {
		l := d.logs.of[drv]
		d.closeGap(l)
		if now := d.now(); l.stop.IsZero() && l.worthIt(now) {
			d.tell(l, "stopped after", now)
		}
	}
	clear(d.logs.of)
	d.logs.ended, d.logs.due, d.logs.held = nil, nil, 0
}

// tell shows the end of a log in a piece, and drops it.
func (d *Display) tell(l *buildLog, how string, now time.Time) {
	title := fmt.Sprintf("%s: %s %s", l.name, how, text.Duration(l.took(now)))
	lines, left := l.end(), l.said-len(l.last)
	if l.dropped {
		title += fmt.Sprintf(", with %s lines of log, which had to make room", number(l.said))
		lines = nil
	}
	l.told = true
	l.forget()
	if len(lines) == 0 {
		d.printf("%s", title)
		return
	}
	if left > 0 {
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

// number writes a number as people read it.
func number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
