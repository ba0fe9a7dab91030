// Package progress tells a person what is going on: plain lines in a log, with
// one live line below them on a terminal.
package progress

import (
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
)

// Display writes to a log or a terminal. Its methods may be called from several
// goroutines.
type Display struct {
	mu      sync.Mutex
	w       io.Writer
	width   func() int // of the terminal; nil when it is none
	colours bool
	clean   func(string) string
	shown   bool // the live line is on the screen

	what    string // is going on, when nothing is built
	total   int    // entries
	done    int
	failed  int
	running map[string]time.Time // derivations that are built
	ticker  *time.Ticker
	stop    chan struct{}
	now     func() time.Time
}

// New makes a display on w. The live line needs a terminal that can move its
// cursor; colours need that too, and that NO_COLOR is empty. clean is applied to
// each line that somebody else wrote.
func New(w io.Writer, getenv func(string) string, clean func(string) string) *Display {
	d := &Display{w: w, clean: clean, running: map[string]time.Time{}, now: time.Now}
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
	go d.tick(d.ticker.C)
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

// Close takes the live line away.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ticker != nil {
		d.ticker.Stop()
		close(d.stop)
		d.ticker = nil
	}
	d.erase()
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
	if d.colours {
		mark = colour + mark + reset
	}
	d.print(mark+" ", fmt.Sprintf(format, args...))
}

// print writes lines, each of them safe on a terminal and in a log that is read
// for commands.
func (d *Display) print(before, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.erase()
	for line := range strings.Lines(nix.Plain(text)) {
		_, _ = fmt.Fprintln(d.w, before+d.clean(strings.TrimRight(line, "\n")))
		if before != "" {
			before = "  "
		}
	}
	d.draw()
}

// Write takes what a program says, as whole lines.
func (d *Display) Write(p []byte) (int, error) {
	d.print("", string(p))
	return len(p), nil
}

// Doing names what is going on before anything is built.
func (d *Display) Doing(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.what = fmt.Sprintf(format, args...)
	if d.width == nil {
		return
	}
	d.draw()
}

// Start says how many entries there are.
func (d *Display) Start(entries int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total = entries
}

// Finish says that an entry has ended.
func (d *Display) Finish(ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done++
	if !ok {
		d.failed++
	}
}

// See follows a build. Lines of build logs are shown when logs is true.
func (d *Display) See(e nix.Event, logs bool) {
	switch e.Kind {
	case nix.BuildStarted:
		d.mu.Lock()
		d.running[e.Path] = e.Time
		d.mu.Unlock()
		if d.width == nil {
			d.Printf("%s: building", job.DrvName(e.Path))
			return
		}
	case nix.BuildStopped:
		d.mu.Lock()
		delete(d.running, e.Path)
		d.mu.Unlock()
	case nix.BuildLine:
		if logs {
			d.Printf("%s> %s", job.DrvName(e.Path), e.Text)
		}
	case nix.FetchStarted:
		if d.width == nil {
			d.Printf("%s: fetching", job.DrvName(e.Path))
			return
		}
	case nix.WarnMessage:
		// What Nix says to who keeps no root; we hold the paths ourselves.
		if !strings.Contains(e.Text, "--add-root") {
			d.Printf("%s", e.Text)
		}
	case nix.FetchStopped, nix.ErrorMessage:
	}
	d.mu.Lock()
	d.draw()
	d.mu.Unlock()
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
	line := strings.Join(strings.Fields(nix.Plain(d.live())), " ")
	d.erase()
	if line == "" {
		return
	}
	_, _ = io.WriteString(d.w, shorten(d.clean(line), d.width()-1))
	d.shown = true
}

// live is the text of the live line: how far we are, what is building.
func (d *Display) live() string {
	if d.total == 0 {
		return d.what
	}
	line := fmt.Sprintf("%d/%d done", d.done, d.total)
	if d.failed > 0 {
		line += fmt.Sprintf(", %d failed", d.failed)
	}
	if len(d.running) == 0 {
		return line
	}
	drvs := make([]string, 0, len(d.running))
	for drv := range d.running {
		drvs = append(drvs, drv)
	}
	slices.SortFunc(drvs, func(a, b string) int {
		return cmp.Or(d.running[a].Compare(d.running[b]), cmp.Compare(a, b))
	})
	for i, drv := range drvs {
		drvs[i] = fmt.Sprintf("%s (%s)", job.DrvName(drv), job.Duration(d.now().Sub(d.running[drv]).Truncate(time.Second)))
	}
	return line + ", building " + strings.Join(drvs, ", ")
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
