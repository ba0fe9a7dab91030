package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// env returns an environment with one variable or none.
func env(name, value string) func(string) string {
	return func(n string) string {
		if n == name {
			return value
		}
		return ""
	}
}

// marked is a clean function that leaves a mark.
func marked(line string) string { return "[" + line + "]" }

const (
	start = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-"
	hello = start + "hello-2.12.drv"
)

// work shows lines and events of all kinds.
func work(d *Display) {
	d.Doing("evaluating %s", ".")
	d.Start(2)
	d.Printf("%d paths", 3)
	d.See(nix.Event{Kind: nix.FetchStarted, Path: start + "glibc"}, true)
	d.See(nix.Event{Kind: nix.FetchStopped, Path: start + "glibc"}, true)
	d.See(nix.Event{Kind: nix.BuildStarted, Path: hello}, true)
	d.See(nix.Event{Kind: nix.BuildLine, Path: hello, Text: "making"}, true)
	d.See(nix.Event{Kind: nix.BuildLine, Path: hello, Text: "not shown"}, false)
	d.See(nix.Event{Kind: nix.WarnMessage, Text: "disk is full"}, true)
	d.See(nix.Event{Kind: nix.ErrorMessage, Text: "not shown"}, true)
	d.See(nix.Event{Kind: nix.BuildStopped, Path: hello}, true)
	d.Good("pi3: built")
	d.Finish(true)
	d.Bad("notado: failed\nsince\n")
	d.Finish(false)
	d.Warn("slow")
	d.Close()
	d.Close()
}

func TestPlain(t *testing.T) {
	want := `[3 paths]
[glibc: fetching]
[hello-2.12: building]
[hello-2.12> making]
[disk is full]
✓ [pi3: built]
✗ [notado: failed]
  [since]
! [slow]
`
	var buffer bytes.Buffer
	work(New(&buffer, env("", ""), marked))
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	work(New(file, env("TERM", "xterm"), marked))
	written, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{buffer.String(), string(written)} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// Foreign text of any kind is cleaned line by line and cannot control the terminal.
func TestForeign(t *testing.T) {
	const text = "a\x1b[2J\r\n::error::b\x1b]0;title\x07\rc\n"
	for what, test := range map[string]struct {
		show func(*Display)
		want string
	}{
		"Write":  {func(d *Display) { _, _ = io.WriteString(d, text) }, "[a]\n[::error::bc]\n"},
		"Printf": {func(d *Display) { d.Printf("%s", text) }, "[a]\n[::error::bc]\n"},
		"Bad":    {func(d *Display) { d.Bad("%s", text) }, "✗ [a]\n  [::error::bc]\n"},
		"a build": {func(d *Display) {
			d.See(nix.Event{Kind: nix.BuildStarted, Path: start + text}, true)
			d.See(nix.Event{Kind: nix.BuildLine, Path: start + "d.drv", Text: text}, true)
		}, "[a]\n[::error::bc]\n[: building]\n[d> a]\n[d> ::error::bc]\n"},
		"a warning": {func(d *Display) { d.See(nix.Event{Kind: nix.WarnMessage, Text: text}, true) }, "[a]\n[::error::bc]\n"},
	} {
		var got bytes.Buffer
		d := New(&got, env("", ""), marked)
		test.show(d)
		d.Close()
		if diff := cmp.Diff(test.want, got.String()); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}

	got, d := onTerminal(200)
	d.Doing("evaluating %s", text)
	d.Close()
	if want := "[evaluating a ::error::b c]" + gone; got.String() != want {
		t.Errorf("the live line is %q, want %q", got, want)
	}
}

// gone removes the live line from the screen.
const gone = "\r\x1b[K"

// onTerminal returns a display on a terminal of that many columns.
func onTerminal(columns int) (*bytes.Buffer, *Display) {
	var screen bytes.Buffer
	d := New(&screen, env("", ""), marked)
	d.terminal(func() int { return columns }, time.Hour)
	d.now = func() time.Time { return time.Unix(75, 0) }
	return &screen, d
}

func TestLive(t *testing.T) {
	got, d := onTerminal(80)
	take := func() string {
		defer got.Reset()
		return got.String()
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { d.Printf("hello") }, "[hello]\n"},
		{func() { d.Doing("evaluating") }, "[evaluating]"},
		{func() { d.Printf("two\nlines") }, gone + "[two]\n[lines]\n[evaluating]"},
		{func() { d.Start(3) }, ""},
		{func() { d.See(nix.Event{Kind: nix.BuildStarted, Path: hello, Time: time.Unix(60, 0)}, true) }, gone + "[0/3 done, building hello-2.12 (15s)]"},
		{
			func() { d.See(nix.Event{Kind: nix.BuildStarted, Path: start + "a.drv", Time: time.Unix(3, 5e8)}, true) },
			gone + "[0/3 done, building a (1m11s), hello-2.12 (15s)]",
		},
		{
			func() { d.See(nix.Event{Kind: nix.BuildLine, Path: hello, Text: "making"}, true) },
			gone + "[hello-2.12> making]\n[0/3 done, building a (1m11s), hello-2.12 (15s)]",
		},
		{func() { d.See(nix.Event{Kind: nix.BuildStopped, Path: hello}, true) }, gone + "[0/3 done, building a (1m11s)]"},
		{
			func() { d.See(nix.Event{Kind: nix.FetchStarted, Path: start + "b", Time: time.Unix(70, 0)}, true) },
			gone + "[0/3 done, fetching b (5.0s), building a (1m11s)]",
		},
		{
			func() { d.See(nix.Event{Kind: nix.FetchStarted, Path: start + "c", Time: time.Unix(70, 0)}, true) },
			gone + "[0/3 done, fetching 2 paths, building a (1m11s)]",
		},
		{func() { d.See(nix.Event{Kind: nix.FetchStopped, Path: start + "b"}, true) }, gone + "[0/3 done, fetching c (5.0s), building a (1m11s)]"},
		{func() { d.See(nix.Event{Kind: nix.FetchStopped, Path: start + "c"}, true) }, gone + "[0/3 done, building a (1m11s)]"},
		{func() { d.See(nix.Event{Kind: nix.FetchProgress, Traffic: nix.Traffic{Bytes: 3 << 20}}, true) }, ""},
		{func() { d.See(nix.Event{Kind: nix.FetchProgress, Traffic: nix.Traffic{Bytes: 1 << 20}}, true) }, ""},
		{func() { d.Printf("so far") }, gone + "[so far]\n[0/3 done, 4.0 MiB fetched, building a (1m11s)]"},
		{func() { d.fetches = fetches{} }, ""},
		{func() { d.Finish(true); d.Finish(false) }, ""},
		{func() { d.See(nix.Event{Kind: nix.BuildStopped, Path: start + "a.drv"}, true) }, gone + "[2/3 done, 1 failed]"},
		{func() { d.Doing("pushing") }, gone + "[2/3 done, 1 failed, pushing]"},
		{func() { d.Doing("") }, gone + "[2/3 done, 1 failed]"},
		{func() { d.Close() }, gone},
		{func() { d.Printf("after") }, "[after]\n"},
	} {
		step.do()
		if got := take(); got != step.want {
			t.Errorf("got  %q\nwant %q", got, step.want)
		}
	}
}

func TestLiveOrder(t *testing.T) {
	_, d := onTerminal(80)
	defer d.Close()
	d.Doing("evaluating")
	d.Start(1)
	if got := d.live(); got != "0/1 done" {
		t.Errorf("got %q", got)
	}
	for _, name := range []string{"c", "a", "d", "b"} {
		d.See(nix.Event{Kind: nix.BuildStarted, Path: start + name, Time: time.Unix(75, 0)}, true)
	}
	for range 20 {
		if got, want := d.live(), "0/1 done, building a (0.0s), b (0.0s), c (0.0s), d (0.0s)"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// A line that is wider than the terminal would stay there when it is erased.
func TestShorten(t *testing.T) {
	for _, test := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 10, ""},
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "012345678…"},
		{"äöüßäöüßäö", 10, "äöüßäöüßäö"},
		{"äöüßäöüßäöü", 10, "äöüßäöüßä…"},
		{"日本日本日", 10, "日本日本日"},
		{"日本日本日本", 10, "日本日本…"},
		{"a日本日本日本", 10, "a日本日本…"},
		{"🚀🚀🚀🚀🚀🚀", 10, "🚀🚀🚀🚀…"},
		{"한국어한국어", 10, "한국어한…"},
	} {
		got := shorten(test.text, test.width)
		if got != test.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", test.text, test.width, got, test.want)
		}
	}
	for width := 1; width < 40; width++ {
		got := shorten("a日b🚀c한dä語", width)
		cells := 0
		for _, r := range got {
			cells++
			if strings.ContainsRune("日🚀한語", r) {
				cells++
			}
		}
		if cells > width {
			t.Errorf("%q does not fit into %d", got, width)
		}
	}
}

func TestLiveIsShortened(t *testing.T) {
	got, d := onTerminal(20)
	d.Doing("%s", strings.Repeat("日", 20))
	d.Close()
	if want := "[" + strings.Repeat("日", 8) + "…" + gone; got.String() != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestColours(t *testing.T) {
	got, d := onTerminal(80)
	d.colours = true
	d.Good("a\nb")
	d.Bad("c")
	d.Warn("d")
	d.Close()
	if want := "\x1b[32m✓\x1b[0m [a]\n  [b]\n\x1b[31m✗\x1b[0m [c]\n\x1b[33m!\x1b[0m [d]\n"; got.String() != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Concurrent calls tear no line, and have no data race.
func TestConcurrentUse(t *testing.T) {
	var got bytes.Buffer
	d := New(&got, env("", ""), marked)
	d.terminal(func() int { return 60 }, time.Microsecond)
	d.Start(100)
	var wait sync.WaitGroup
	var want []string
	for i := range 20 {
		wait.Go(func() {
			path := fmt.Sprintf("%sd%d.drv", start, i)
			d.Doing("%d", i)
			d.See(nix.Event{Kind: nix.BuildStarted, Path: path, Time: time.Now()}, true)
			d.See(nix.Event{Kind: nix.BuildLine, Path: path, Text: "line"}, true)
			_, _ = fmt.Fprintf(d, "written %d\n", i)
			d.Good("good %d", i)
			d.See(nix.Event{Kind: nix.BuildStopped, Path: path}, true)
			d.Finish(i%2 == 0)
		})
		want = append(want, fmt.Sprintf("[d%d> line]", i), fmt.Sprintf("[written %d]", i), fmt.Sprintf("✓ [good %d]", i))
	}
	wait.Wait()
	d.Close()
	var lines []string
	for line := range strings.Lines(got.String()) {
		if line = strings.TrimRight(line[strings.LastIndex(line, gone)+len(gone):], "\n"); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	slices.Sort(want)
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// A tick at the very end does no harm.
func TestClose(t *testing.T) {
	for range 200 {
		d := New(io.Discard, env("", ""), marked)
		d.terminal(func() int { return 60 }, time.Microsecond)
		d.Doing("x")
		d.Close()
	}
}

func TestWriteTakesAll(t *testing.T) {
	d := New(failing{}, env("", ""), marked)
	if n, err := d.Write([]byte("abc\n")); n != 4 || err != nil {
		t.Errorf("a display that can't write says %d, %v to a program", n, err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("gone") }
