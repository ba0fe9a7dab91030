// Package progress shows a person the progress of builds: plain lines in a log, with one live
// line below them on a terminal.
//
// A log, as written without a terminal, is kept short enough to read. While a builder runs,
// only some of its lines a second are shown; the end of the log of a derivation that took long
// or failed follows as a whole, which GitHub Actions folds. Many fetches are only counted.
// After a silence, a line names the steps in progress.
package progress

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// Display writes to a log or a terminal. Its methods may be called from several
// goroutines.
type Display struct {
	mu      sync.Mutex
	w       io.Writer
	width   func() int // of the terminal; nil for a log
	colours bool
	groups  bool // write groups of GitHub Actions
	clean   func(string) string
	shown   bool // the live line is on the screen

	doing    string // the step in progress, when nothing is built
	since    time.Time
	total    int // entries
	done     int
	failed   int
	running  map[string]time.Time // derivations
	fetching map[string]time.Time // store paths
	fetches  fetches
	logs     buildLogs

	ticker  *time.Ticker
	stop    chan struct{} // nil while no goroutine runs
	closed  bool
	wait    sync.WaitGroup
	now     func() time.Time
	silence time.Duration // after which a log names the steps in progress
	written time.Time
}

// An Option configures a Display.
type Option func(*Display)

// Groups writes the logs of derivations as groups of GitHub Actions, for a log that its runner
// reads.
func Groups(on bool) Option { return func(d *Display) { d.groups = on } }

// New returns a display on w. The live line needs a terminal that can move its cursor; colours
// also need NO_COLOR to be empty. clean is applied to each line.
func New(w io.Writer, getenv func(string) string, clean func(string) string, options ...Option) *Display {
	d := &Display{
		w: w, clean: clean, now: time.Now, silence: time.Minute,
		running: map[string]time.Time{}, fetching: map[string]time.Time{},
	}
	d.logs.of = map[string]*buildLog{}
	for _, option := range options {
		option(d)
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && getenv("TERM") != "dumb" && getenv("CI") == "" {
		d.colours = getenv("NO_COLOR") == ""
		d.terminal(func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil || width < 20 {
				return 80
			}
			return width
		}, time.Second)
	}
	return d
}

// terminal adds the live line, for a terminal of so many columns.
func (d *Display) terminal(width func() int, redraw time.Duration) {
	d.width = width
	d.ticker = time.NewTicker(redraw)
	d.stop = make(chan struct{})
	ticks := d.ticker.C
	d.wait.Go(func() { d.tick(ticks) })
}

// tick redraws the live line, for its durations, until Close.
func (d *Display) tick(ticks <-chan time.Time) {
	for {
		select {
		case <-d.stop:
			return
		case <-ticks:
			d.mu.Lock()
			d.draw()
			d.mu.Unlock()
		}
	}
}

// Close removes the live line, and writes held lines to a log. It waits for the goroutines of
// the display.
func (d *Display) Close() {
	d.mu.Lock()
	d.showEnded()
	if d.ticker != nil {
		d.ticker.Stop()
		d.ticker = nil
	}
	if d.stop != nil && !d.closed {
		close(d.stop)
	}
	d.closed = true
	d.erase()
	d.mu.Unlock()
	d.wait.Wait()
}

// Printf writes a line.
func (d *Display) Printf(format string, args ...any) { d.print("", fmt.Sprintf(format, args...)) }

// The colours of a finished entry.
const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// Good writes a line about a success.
func (d *Display) Good(format string, args ...any) { d.mark(green, "✓", format, args) }

// Bad writes a line about a failure.
func (d *Display) Bad(format string, args ...any) { d.mark(red, "✗", format, args) }

// Warn writes a warning.
func (d *Display) Warn(format string, args ...any) { d.mark(yellow, "!", format, args) }

func (d *Display) mark(colour, mark, format string, args []any) {
	d.print(d.coloured(colour, mark), fmt.Sprintf(format, args...))
}

func (d *Display) coloured(colour, mark string) string {
	if d.colours {
		mark = colour + mark + reset
	}
	return mark + " "
}

func (d *Display) print(before, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines(before, text)
	d.draw()
}

// printf is Printf for callers that hold the lock and draw the live line later.
func (d *Display) printf(format string, args ...any) { d.lines("", fmt.Sprintf(format, args...)) }

// lines writes lines, each of them safe on a terminal and in a log that is read
// for commands. The caller holds the lock.
func (d *Display) lines(before, all string) {
	var b bytes.Buffer
	for line := range strings.Lines(text.Plain(all)) {
		b.WriteString(before + d.clean(strings.TrimRight(line, "\n")) + "\n")
		if before != "" {
			before = "  "
		}
	}
	d.write(b.Bytes())
}

// write writes whole lines at once, so that another writer to the same file cannot write
// between them. The caller holds the lock.
func (d *Display) write(lines []byte) {
	d.erase()
	if len(lines) > 0 {
		_, _ = d.w.Write(lines)
		d.written = d.now()
	}
}

// Write writes a program's output, in whole lines.
func (d *Display) Write(p []byte) (int, error) {
	d.print("", string(p))
	return len(p), nil
}

// Doing sets the name of the step in progress, until a build or fetch starts. An empty name
// ends the step.
func (d *Display) Doing(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doing, d.since = fmt.Sprintf(format, args...), d.now()
	d.startHeartbeat()
	d.draw()
}

// Step is Doing for one step of many. A log names a step only after nothing was written for
// stepPause.
func (d *Display) Step(format string, args ...any) {
	d.Doing(format, args...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.width == nil && !d.closed && d.now().Sub(d.written) >= stepPause {
		d.printf("%s", shorten(text.Words(d.doing), stepWidth))
	}
}

const (
	stepPause = 10 * time.Second
	stepWidth = 160 // columns
)

// Width returns the number of columns of the terminal; 0 for a log.
func (d *Display) Width() int {
	if d.width == nil {
		return 0
	}
	return d.width()
}

// Start sets the number of entries.
func (d *Display) Start(entries int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total = entries
	d.doing = ""
}

// Finish counts an entry that has ended, with all of its derivations. After the last one, held
// lines are written to a log.
func (d *Display) Finish(ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done++
	if !ok {
		d.failed++
	}
	if d.done >= d.total {
		d.showEnded()
	}
}

// See shows an event of a build. Lines of build logs are shown when logs is true.
func (d *Display) See(e nix.Event, logs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := d.width == nil && logs  // only some lines are shown at once
	if e.Kind != nix.ErrorMessage { // it may report a failure
		d.showSettled(e.Time)
	}
	switch e.Kind {
	case nix.BuildStarted:
		d.running[e.Path] = e.Time
		d.doing = ""
		d.startHeartbeat()
		d.logs.start(e.Path, e.Time).brief = !held
		if d.width == nil {
			d.printf("%s: building", job.DrvName(e.Path))
		}
	case nix.BuildStopped:
		delete(d.running, e.Path)
		d.buildStopped(e)
	case nix.BuildLine:
		switch {
		case held:
			d.buildLine(e)
			return
		case logs:
			d.printf("%s> %s", job.DrvName(e.Path), e.Text)
		}
		d.lastLine(e)
	case nix.FetchStarted:
		d.fetching[e.Path] = e.Time
		d.doing = ""
		d.startHeartbeat()
		d.fetchStarted(e.Path)
	case nix.FetchStopped:
		delete(d.fetching, e.Path)
		d.fetchStopped()
	case nix.FetchCounted:
	case nix.FetchProgress:
		d.fetches.bytes += max(0, e.Bytes)
		return // the next tick shows it
	case nix.WarnMessage:
		d.printf("%s", e.Text)
	case nix.ErrorMessage:
		d.onError(e)
	}
	d.draw()
}

// showEnded writes held lines after the last build.
func (d *Display) showEnded() {
	d.showRest()
	d.fetchesEnded()
	clear(d.running)
	clear(d.fetching)
}

// erase removes the live line from the screen. The caller holds the lock.
func (d *Display) erase() {
	if d.shown {
		_, _ = io.WriteString(d.w, "\r\x1b[K")
		d.shown = false
	}
}

// draw puts the live line on the screen. The caller holds the lock.
func (d *Display) draw() {
	if d.width == nil || d.ticker == nil {
		return
	}
	line := text.Words(d.live())
	d.erase()
	if line == "" {
		return
	}
	_, _ = io.WriteString(d.w, shorten(d.clean(line), d.width()-1))
	d.shown = true
}

// live returns the text of the live line: counts, and the steps in progress.
func (d *Display) live() string {
	var parts []string
	if d.total > 0 {
		done := fmt.Sprintf("%d/%d done", d.done, d.total)
		if d.failed > 0 {
			done += fmt.Sprintf(", %d failed", d.failed)
		}
		parts = append(parts, done)
	}
	if d.fetches.bytes > 0 {
		parts = append(parts, text.Size(d.fetches.bytes)+" fetched")
	}
	if d.doing != "" {
		parts = append(parts, d.doing)
	}
	switch n := len(d.fetching); n {
	case 0:
	case 1:
		parts = append(parts, "fetching "+strings.Join(d.names(d.fetching, 1), ""))
	default:
		parts = append(parts, fmt.Sprintf("fetching %d paths", n))
	}
	if len(d.running) > 0 {
		parts = append(parts, "building "+strings.Join(d.names(d.running, len(d.running)), ", "))
	}
	return strings.Join(parts, ", ")
}

// names returns the names of running builds or fetches with their durations, the oldest first,
// and the number of those beyond most.
func (d *Display) names(begun map[string]time.Time, most int) []string {
	paths := make([]string, 0, len(begun))
	for path := range begun {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(begun[a].Compare(begun[b]), cmp.Compare(a, b))
	})
	var names []string
	for _, path := range paths[:min(most, len(paths))] {
		names = append(names, fmt.Sprintf("%s (%s)", job.DrvName(path), d.ago(begun[path])))
	}
	if more := len(paths) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return names
}

// ago returns the time since begun.
func (d *Display) ago(begun time.Time) string {
	return text.Duration(d.now().Sub(begun).Truncate(time.Second))
}

// shorten cuts a text to that many columns of a terminal.
func shorten(s string, width int) string {
	used, cut := 0, 0
	for i, c := range s {
		if used < width { // room for the ellipsis
			cut = i
		}
		used++
		if c >= 0x1100 { // no character below is wide
			used++
		}
		if used > width {
			return s[:cut] + "…"
		}
	}
	return s
}
