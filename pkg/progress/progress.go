// Package progress tells a person what is going on: plain lines in a log, with
// one live line below them on a terminal.
//
// A log, which is what there is without a terminal, is kept short enough to be
// read. Of what a derivation's builder says only so many lines a second are
// shown while it runs; the end of the log of one that took long or failed
// follows in a piece, which GitHub Actions folds. Fetches are counted once they
// are many. When nothing was written for a while, a line says what is going on.
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
	width   func() int // of the terminal; nil when it is none
	colours bool
	groups  bool // of lines, as GitHub Actions has them
	clean   func(string) string
	shown   bool // the live line is on the screen

	what     string // is going on, when nothing is built
	since    time.Time
	total    int // entries
	done     int
	failed   int
	running  map[string]time.Time // derivations that are built
	fetching map[string]time.Time // store paths
	fetches  fetches
	logs     buildLogs

	ticker  *time.Ticker
	stop    chan struct{} // nil while no goroutine runs
	closed  bool
	wait    sync.WaitGroup
	now     func() time.Time
	silence time.Duration // after which a log says what is going on
	written time.Time
}

// An Option says something of the log.
type Option func(*Display)

// Groups makes groups of GitHub Actions out of the logs of derivations, for a log
// that its runner reads.
func Groups(on bool) Option { return func(d *Display) { d.groups = on } }

// New makes a display on w. The live line needs a terminal that can move its
// cursor; colours need that too, and that NO_COLOR is empty. clean is applied to
// each line that somebody else wrote.
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

// tick redraws the live line, whose seconds pass, until Close.
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

// Close takes the live line away and says in a log what was held back. It waits
// until the display does nothing by itself any more.
func (d *Display) Close() {
	d.mu.Lock()
	d.ended()
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

// Printf writes a line of ours.
func (d *Display) Printf(format string, args ...any) { d.print("", fmt.Sprintf(format, args...)) }

// The colours of a finished entry.
const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// Good writes a line about what went well.
func (d *Display) Good(format string, args ...any) { d.mark(green, "✓", format, args) }

// Bad writes a line about what failed.
func (d *Display) Bad(format string, args ...any) { d.mark(red, "✗", format, args) }

// Warn writes a line about what could be better.
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

// printf is Printf for who holds the lock and draws the live line later.
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

// write writes whole lines at once, so that nobody else who writes to the same
// file writes between them. The caller holds the lock.
func (d *Display) write(lines []byte) {
	d.erase()
	if len(lines) > 0 {
		_, _ = d.w.Write(lines)
		d.written = d.now()
	}
}

// Write takes what a program says, as whole lines.
func (d *Display) Write(p []byte) (int, error) {
	d.print("", string(p))
	return len(p), nil
}

// Doing names what is going on while nothing is built, until something is. An
// empty name ends it too.
func (d *Display) Doing(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.what, d.since = fmt.Sprintf(format, args...), d.now()
	d.watch()
	d.draw()
}

// Step is Doing for one step of many. In a log, some of them are told: one when
// nothing was written for stepPause.
func (d *Display) Step(format string, args ...any) {
	d.Doing(format, args...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.width == nil && !d.closed && d.now().Sub(d.written) >= stepPause {
		d.printf("%s", shorten(text.Words(d.what), stepWidth))
	}
}

const (
	stepPause = 10 * time.Second
	stepWidth = 160 // columns
)

// Width is how many columns the terminal has; 0 is a log.
func (d *Display) Width() int {
	if d.width == nil {
		return 0
	}
	return d.width()
}

// Start says how many entries there are.
func (d *Display) Start(entries int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total = entries
	d.what = ""
}

// Finish says that an entry has ended, and whether well, and all of its derivations with it. After
// the last one, a log says what was held back.
func (d *Display) Finish(ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done++
	if !ok {
		d.failed++
	}
	if d.done >= d.total {
		d.ended()
	}
}

// See follows a build. Lines of build logs are shown when logs is true.
func (d *Display) See(e nix.Event, logs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := d.width == nil && logs  // what is shown at once is only a part
	if e.Kind != nix.ErrorMessage { // which may say otherwise
		d.settle(e.Time)
	}
	switch e.Kind {
	case nix.BuildStarted:
		d.running[e.Path] = e.Time
		d.what = ""
		d.watch()
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
		d.what = ""
		d.watch()
		d.fetchStarted(e.Path)
	case nix.FetchStopped:
		delete(d.fetching, e.Path)
		d.fetchStopped()
	case nix.FetchCounted:
	case nix.FetchProgress:
		d.fetches.bytes += max(0, e.Bytes)
		return // the next tick shows it
	case nix.WarnMessage:
		// What Nix says to who keeps no root; we hold the paths ourselves.
		if !strings.Contains(e.Text, "--add-root") {
			d.printf("%s", e.Text)
		}
	case nix.ErrorMessage:
		d.blame(e)
	}
	d.draw()
}

// ended is what there is to say after the last build.
func (d *Display) ended() {
	d.flush()
	d.fetchesEnded()
	clear(d.running)
	clear(d.fetching)
}

// erase takes the live line off the screen. The caller holds the lock.
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

// live is the text of the live line: how far we are, what is building.
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
	if d.what != "" {
		parts = append(parts, d.what)
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

// names gives the names of what has begun, with how long that is ago, the oldest
// first. Of those that are more than most, it gives the number.
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

// ago says how long something has been going on.
func (d *Display) ago(begun time.Time) string {
	return text.Duration(d.now().Sub(begun).Truncate(time.Second))
}

// shorten cuts what does not fit into that many columns of a terminal.
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
