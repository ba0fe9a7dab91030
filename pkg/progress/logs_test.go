package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// noon is when the builds of the tests start.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// A ciLog is a display in GitHub Actions, and its output since the last take.
type ciLog struct {
	*Display
	written bytes.Buffer
	at      time.Time
}

func newLog(t *testing.T, options ...Option) *ciLog {
	l := &ciLog{at: noon}
	l.Display = New(&l.written, env("GITHUB_ACTIONS", "true"), marked, options...)
	l.now = func() time.Time { return l.at }
	t.Cleanup(l.Close)
	return l
}

func (l *ciLog) take() string {
	defer l.written.Reset()
	return l.written.String()
}

// event passes an event with the current time.
func (l *ciLog) event(kind nix.EventKind, name, text string) {
	path := start + name
	if kind != nix.FetchStarted && kind != nix.FetchStopped {
		path += ".drv"
	}
	l.See(nix.Event{Kind: kind, Time: l.at, Path: path, Text: text}, true)
}

// build runs a builder that prints so many lines at once after a while.
func (l *ciLog) build(name string, took time.Duration, lines int) {
	l.event(nix.BuildStarted, name, "")
	for i := range lines {
		l.event(nix.BuildLine, name, fmt.Sprint("line ", i))
	}
	l.at = l.at.Add(took)
	l.event(nix.BuildStopped, name, "")
}

func (l *ciLog) later(d time.Duration) { l.at = l.at.Add(d) }

func failure(name string) string {
	return "builder for '" + start + name + ".drv' failed with exit code 2"
}

// numbered returns lines from a format with a number in it.
func numbered(format string, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, format+"\n", i)
	}
	return b.String()
}

// rest returns the lines of a group: those of numbered that were not shown when they came.
func rest(format string, to int) string {
	before, after, _ := strings.Cut(format, "line %d")
	return fmt.Sprintf("%s… %d lines before these are above%s\n", before, burst, after) + numbered(format, burst, to)
}

func TestShortLogsShowWhole(t *testing.T) {
	l := newLog(t, Groups(true))
	l.build("a", time.Hour, burst)
	l.later(time.Hour)
	l.Close()
	if diff := cmp.Diff("[a: building]\n"+numbered("[a> line %d]", 0, burst), l.take()); diff != "" {
		t.Error(diff)
	}
}

func TestALoudBuilderIsCut(t *testing.T) {
	l := newLog(t)
	l.event(nix.BuildStarted, "a", "")
	loud := func(lines int) {
		for i := range lines {
			l.event(nix.BuildLine, "a", fmt.Sprint("line ", i))
		}
	}
	loud(burst + 1234)
	if diff := cmp.Diff("[a: building]\n"+numbered("[a> line %d]", 0, burst), l.take()); diff != "" {
		t.Error(diff)
	}
	// Lines are shown again, but not one by one.
	l.later(together/perSecond*time.Second - time.Millisecond)
	loud(1)
	if got := l.take(); got != "" {
		t.Errorf("too soon: %q", got)
	}
	l.later(time.Millisecond)
	loud(together + 1)
	if diff := cmp.Diff("[a> … 1,235 lines more]\n"+numbered("[a> line %d]", 0, together), l.take()); diff != "" {
		t.Error(diff)
	}
	// A long silence accumulates no more than a burst.
	l.later(time.Hour)
	loud(burst + 1)
	if diff := cmp.Diff("[a> … 1 line more]\n"+numbered("[a> line %d]", 0, burst), l.take()); diff != "" {
		t.Error(diff)
	}
	// Another derivation has its own budget.
	l.build("b", time.Second, 1)
	if diff := cmp.Diff("[b: building]\n[b> line 0]\n", l.take()); diff != "" {
		t.Error(diff)
	}
	l.event(nix.BuildStopped, "a", "")
	if diff := cmp.Diff("[a> … 1 line more]\n", l.take()); diff != "" {
		t.Error(diff)
	}
}

// In the long run, an endless builder shows about perSecond lines a second.
func TestLinesASecond(t *testing.T) {
	l := newLog(t)
	l.event(nix.BuildStarted, "a", "")
	const seconds = 1000
	for range seconds * 50 {
		l.later(20 * time.Millisecond)
		l.event(nix.BuildLine, "a", "x")
	}
	got := l.take()
	shown, gaps := strings.Count(got, "> x]"), strings.Count(got, "more]")
	if most := burst + seconds*perSecond; shown > most || shown < most*9/10 || gaps > shown/together {
		t.Errorf("%d lines and %d gaps in %d seconds", shown, gaps, seconds)
	}
}

func TestGroups(t *testing.T) {
	shown := func(name string) string {
		return "[" + name + ": building]\n" + numbered("["+name+"> line %d]", 0, burst)
	}
	for what, test := range map[string]struct {
		plain bool // outside of GitHub Actions
		do    func(*ciLog)
		want  string
	}{
		"long": {do: func(l *ciLog) {
			l.build("a", 192*time.Second, burst+2)
			l.later(failureDelay)
			l.event(nix.BuildStarted, "b", "")
		}, want: shown("a") + "[a> … 2 lines more]\n::group::[a: built in 3m12s]\n" + rest("[line %d]", burst+2) + "::endgroup::\n[b: building]\n"},
		"long, outside": {plain: true, do: func(l *ciLog) {
			l.build("a", 192*time.Second, burst+2)
			l.Close()
		}, want: shown("a") + "[a> … 2 lines more]\n[a: built in 3m12s]\n" + rest("  [line %d]", burst+2)},
		"long, with a long log": {do: func(l *ciLog) {
			l.build("a", longBuild, 12345+keptLines)
			l.Finish(true)
			l.Close()
		}, want: shown("a") + "[a> … 13,295 lines more]\n::group::[a: built in 10s]\n[… 12,345 lines before these are left out]\n" +
			numbered("[line %d]", 12345, 12345+keptLines) + "::endgroup::\n"},
		"quick": {do: func(l *ciLog) {
			l.build("a", longBuild-time.Millisecond, burst+1)
			l.later(time.Hour)
			l.Close()
		}, want: shown("a") + "[a> … 1 line more]\n"},
		"failed, told after the end": {do: func(l *ciLog) {
			l.build("a", 4*time.Second, 2)
			l.later(time.Minute)
			l.event(nix.ErrorMessage, "", failure("a"))
			l.event(nix.ErrorMessage, "", "build of '"+start+"a.drv', '"+start+"b.drv' failed")
			l.Failed(start + "a.drv")
		}, want: "[a: building]\n" + numbered("[a> line %d]", 0, 2) + "[a: failed after 4.0s; its log is above]\n"},
		"failed, told a little after the end": {do: func(l *ciLog) {
			l.build("a", time.Minute, burst+1)
			l.event(nix.BuildStarted, "b", "")
			l.event(nix.ErrorMessage, "", failure("a"))
			l.later(time.Hour)
			l.Close()
		}, want: shown("a") + "[a> … 1 line more]\n[b: building]\n::group::[a: failed after 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
		"failed, told long after the end": {do: func(l *ciLog) {
			l.build("a", time.Minute, burst+1)
			l.later(time.Hour)
			l.event(nix.ErrorMessage, "", failure("a"))
			l.Close()
		}, want: shown("a") + "[a> … 1 line more]\n::group::[a: failed after 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
		"failed, told before the end": {do: func(l *ciLog) {
			l.event(nix.BuildStarted, "a", "")
			l.event(nix.BuildLine, "a", "boom")
			l.later(65 * time.Second)
			l.event(nix.ErrorMessage, "", failure("a"))
			l.later(time.Hour)
			l.event(nix.BuildStopped, "a", "")
			l.Failed(start + "a.drv")
		}, want: "[a: building]\n[a> boom]\n[a: failed after 1m05s; its log is above]\n"},
		"failed, as the caller found out": {do: func(l *ciLog) {
			l.build("a", 4*time.Second, 1)
			l.Failed(start + "a.drv")
			l.event(nix.ErrorMessage, "", failure("a"))
			l.Failed(start + "other.drv")
		}, want: "[a: building]\n[a> line 0]\n[a: failed after 4.0s; its log is above]\n"},
		"failed long after it was taken for built": {do: func(l *ciLog) {
			l.build("a", time.Minute, burst+1)
			l.later(failureDelay)
			l.event(nix.BuildStarted, "b", "")
			l.take()
			l.Failed(start + "a.drv")
			l.Failed(start + "a.drv")
		}, want: "[a: failed after 1m00s; its log is above]\n"},
		"failed without a word": {do: func(l *ciLog) {
			l.build("a", 4*time.Second, 0)
			l.Failed(start + "a.drv")
		}, want: "[a: building]\n[a: failed after 4.0s]\n"},
		"built again": {do: func(l *ciLog) {
			l.build("a", 4*time.Second, 1)
			l.Failed(start + "a.drv")
			l.take()
			l.build("a", 5*time.Second, 1)
			l.Failed(start + "a.drv")
		}, want: "[a: building]\n[a> line 0]\n[a: failed after 5.0s; its log is above]\n"},
		"asked, and it is there": {do: func(l *ciLog) {
			l.Verify(func(drv string) bool { return drv == start+"a.drv" })
			l.build("a", time.Minute, burst+1)
		}, want: shown("a") + "[a> … 1 line more]\n::group::[a: built in 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
		"asked, and it is not there": {do: func(l *ciLog) {
			l.Verify(func(string) bool { return false })
			l.build("a", time.Minute, burst+1)
			l.build("b", time.Minute, 0)
			l.event(nix.ErrorMessage, "", failure("a"))
		}, want: shown("a") + "[a> … 1 line more]\n[b: building]\n::group::[a: failed after 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
		"asked, it is not there, and nobody says why": {do: func(l *ciLog) {
			l.Verify(func(string) bool { return false })
			l.build("a", time.Minute, burst+1)
			l.later(time.Hour)
			l.event(nix.BuildStarted, "b", "")
			l.Close()
		}, want: shown("a") + "[a> … 1 line more]\n[b: building]\n::group::[a: ended after 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
		"still running at the end": {do: func(l *ciLog) {
			l.event(nix.BuildStarted, "a", "")
			for i := range burst + 1 {
				l.event(nix.BuildLine, "a", fmt.Sprint("line ", i))
			}
			l.later(time.Minute)
			l.Close()
		}, want: shown("a") + "[a> … 1 line more]\n::group::[a: stopped after 1m00s]\n" + rest("[line %d]", burst+1) + "::endgroup::\n"},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLog(t, Groups(!test.plain))
			test.do(l)
			if diff := cmp.Diff(test.want, l.take()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A log cannot end its group, nor contain workflow commands.
func TestAGroupIsSafe(t *testing.T) {
	var got bytes.Buffer
	d := New(&got, env("", ""), func(line string) string { return strings.NewReplacer("::", ":.:", "##[", "##.[").Replace(line) }, Groups(true))
	defer d.Close()
	path := start + "a%0A::endgroup::\n##[error]\r::b.drv"
	see := func(kind nix.EventKind, text string) {
		d.See(nix.Event{Kind: kind, Time: noon, Path: path, Text: text}, true)
	}
	see(nix.BuildStarted, "")
	see(nix.BuildLine, strings.Repeat("x\n", burst)) // the group has only what comes after
	for _, line := range []string{"::endgroup::", "  ::add-mask::", "x ##[error]", "a\n::endgroup::\r\n::error::x", "\x1b[2J::group::b"} {
		see(nix.BuildLine, line)
	}
	see(nix.BuildStopped, "")
	got.Reset()
	d.Failed(path)
	want := `::group::a%250A:.:endgroup:.: ##.[error]:.:b: failed after 0.0s
… 50 lines before these are above
:.:endgroup:.:
  :.:add-mask:.:
x ##.[error]
a
:.:endgroup:.:
:.:error:.:x
:.:group:.:b
::endgroup::
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

// writes counts the calls of Write.
type writes struct{ groups []string }

func (w *writes) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("::group::")) {
		w.groups = append(w.groups, string(p))
	}
	return len(p), nil
}

// Other writers to the same file cannot write into a group.
func TestAGroupIsWrittenAtOnce(t *testing.T) {
	var w writes
	d := New(&w, env("", ""), marked, Groups(true))
	l := &ciLog{Display: d, at: noon}
	l.build("a", time.Minute, 3000)
	d.Close()
	if len(w.groups) != 1 || !strings.HasSuffix(w.groups[0], "]\n::endgroup::\n") {
		t.Errorf("in %d pieces", len(w.groups))
	}
}

func TestMemoryOfLogsIsBounded(t *testing.T) {
	l := newLog(t)
	long := strings.Repeat("x", keptBytes+1)
	l.event(nix.BuildStarted, "a", "")
	for range keptLines * 3 {
		l.event(nix.BuildLine, "a", long)
	}
	one := l.logs.of[start+"a.drv"]
	if one.size > keptLines*keptBytes || len(one.last) != keptLines || one.last[0] != long[:keptBytes-len("…")]+"…" {
		t.Errorf("%d bytes in %d lines", one.size, len(one.last))
	}
	l.event(nix.BuildStopped, "a", "")
	size := one.size
	for i := range 2 * heldBytes / size {
		name := fmt.Sprint("b", i)
		l.event(nix.BuildStarted, name, "")
		for range keptLines {
			l.event(nix.BuildLine, name, long)
		}
		l.event(nix.BuildStopped, name, "")
		if l.logs.held > heldBytes {
			t.Fatalf("%d bytes are held", l.logs.held)
		}
	}
	if l.logs.held < heldBytes-size {
		t.Errorf("just %d bytes are held", l.logs.held)
	}
	l.take()
	l.Failed(start + "a.drv")
	if diff := cmp.Diff("[a: failed after 0.0s, with 3,000 lines of log, which were dropped to save memory]\n", l.take()); diff != "" {
		t.Error(diff)
	}
	held := 0
	for _, one := range l.logs.of {
		if held += one.size; one.dropped == (one.size > 0) {
			t.Errorf("%d bytes of what is dropped: %t", one.size, one.dropped)
		}
	}
	if held != l.logs.held {
		t.Errorf("%d bytes are held, and %d counted", held, l.logs.held)
	}
	l.Finish(true)
	if len(l.logs.of)+len(l.logs.ended)+l.logs.held > 0 {
		t.Error("something is held after the end")
	}
}

func TestVerifiedLogsAreDropped(t *testing.T) {
	l := newLog(t)
	l.Verify(func(string) bool { return true })
	l.build("a", time.Second, 1000)
	if len(l.logs.of) > 0 || l.logs.held > 0 {
		t.Error("the log of what is known to be built is kept")
	}
}

func TestLongLinesAreCut(t *testing.T) {
	l := newLog(t)
	l.event(nix.BuildStarted, "a", "")
	l.event(nix.BuildLine, "a", strings.Repeat("x", 1<<20))
	if got := len(l.take()); got > 2*keptBytes {
		t.Errorf("%d bytes of a line are shown", got)
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func TestFetches(t *testing.T) {
	l := newLog(t)
	fetch := func(from, to int) {
		for i := from; i < to; i++ {
			l.event(nix.FetchStarted, fmt.Sprint("p", i), "")
			l.event(nix.FetchStopped, fmt.Sprint("p", i), "")
		}
	}
	fetch(0, fetchesNamed)
	if diff := cmp.Diff(numbered("[p%d: fetching]", 0, fetchesNamed), l.take()); diff != "" {
		t.Error(diff)
	}
	fetch(fetchesNamed, 2013)
	if diff := cmp.Diff(numbered("[fetched %d00 paths so far]", 1, 10)+numbered("[fetched %d,000 paths so far]", 1, 2)+
		numbered("[fetched 1,%d00 paths so far]", 1, 10)+numbered("[fetched %d,000 paths so far]", 2, 3), l.take()); diff != "" {
		t.Error(diff)
	}
	l.Finish(true)
	l.Close()
	if diff := cmp.Diff("[fetched 2,013 paths]\n", l.take()); diff != "" {
		t.Error(diff)
	}

	large := newLog(t)
	large.fetches = fetches{started: fetchesStep, stopped: fetchesStep - 1}
	large.See(nix.Event{Kind: nix.FetchProgress, Traffic: nix.Traffic{Bytes: 5 << 20}}, true)
	large.event(nix.FetchStopped, "p", "")
	if diff := cmp.Diff("[fetched 100 paths, 5.0 MiB so far]\n", large.take()); diff != "" {
		t.Error(diff)
	}
	large.Close()
	if diff := cmp.Diff("[fetched 100 paths, 5.0 MiB]\n", large.take()); diff != "" {
		t.Error(diff)
	}

	few := newLog(t)
	few.event(nix.FetchStarted, "a", "")
	few.event(nix.FetchStopped, "a", "")
	few.Close()
	if diff := cmp.Diff("[a: fetching]\n", few.take()); diff != "" {
		t.Error(diff)
	}
}

// With several entries, the builds of the others continue.
func TestTheLastEntryEnds(t *testing.T) {
	l := newLog(t)
	l.Start(2)
	l.build("a", time.Minute, burst+1)
	l.take()
	l.Finish(true)
	if got := l.take(); got != "" {
		t.Errorf("after the first: %q", got)
	}
	l.Finish(true)
	if got := l.take(); !strings.HasPrefix(got, "[a: built in 1m00s]\n") {
		t.Errorf("after the last: %q", got)
	}
}
