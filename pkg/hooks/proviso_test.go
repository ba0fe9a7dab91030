package hooks

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

func target(name string) job.Target {
	return job.Target{Attr: name, Name: name, DrvPath: "/nix/store/" + name + ".drv", State: job.StateBuild}
}

// The script decides about each target once in all calls, and about none that is not to be built.
func TestProvisoOnce(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	t.Setenv("ASKED", asked)
	r, _, _ := newRunner(t)
	p := &Proviso{Timeout: time.Hour, Script: `target=$(cat)
echo asked >>"$ASKED"
case $target in
*'"name":"two"'*) echo 'looking around'; echo 'skip   it is there'; echo 'skip twice' ;;
*'"name":"three"'*) printf skip ;;
*) echo 'do not skip it' ;;
esac`}
	other := target("one") // of the same name, from another evaluation
	other.DrvPath = "/nix/store/other.drv"
	failed := target("four")
	failed.State = job.StateFailed
	for range 2 {
		targets := []job.Target{target("one"), target("two"), target("three"), failed, other}
		r.AskProviso(t.Context(), p, targets)
		for i, want := range []struct {
			state  job.State
			reason string
		}{
			{job.StateBuild, ""}, {job.StateSkip, "proviso: it is there"}, {job.StateSkip, "proviso: nothing to do"}, {job.StateFailed, ""}, {job.StateBuild, ""},
		} {
			if got := targets[i]; got.State != want.state || got.Reason != want.reason {
				t.Errorf("target %d is %s for %q, want %s for %q", i, got.State, got.Reason, want.state, want.reason)
			}
		}
	}
	data, err := os.ReadFile(asked)
	if err != nil || strings.Count(string(data), "asked") != 4 {
		t.Errorf("the script has run %d times, %v", strings.Count(string(data), "asked"), err)
	}
}

// A target for which the script fails, or does not end in time, is built, with a warning.
func TestProvisoFails(t *testing.T) {
	for name, test := range map[string]struct {
		script  string
		timeout time.Duration
		want    string
	}{
		"fails":        {"echo skip\necho no network >&2\nexit 3", time.Hour, "exit status 3: no network"},
		"its deadline": {"echo skip\nsleep 1000", time.Millisecond, "it did not end within 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			r, l, _ := newRunner(t)
			targets := []job.Target{target("one")}
			r.AskProviso(t.Context(), &Proviso{Script: test.script, Timeout: test.timeout}, targets)
			if targets[0].State != job.StateBuild || len(l.warns) != 1 || !strings.HasSuffix(l.warns[0], test.want) {
				t.Errorf("it is %s, with the warnings %q", targets[0].State, l.warns)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			r.AskProviso(ended, &Proviso{Script: test.script, Timeout: test.timeout}, targets)
			if len(l.warns) != 1 {
				t.Errorf("the end of the run is a warning: %q", l.warns)
			}
		})
	}
}

// Without a script, nothing is asked.
func TestNoProviso(t *testing.T) {
	targets := []job.Target{target("one")}
	(&Runner{}).AskProviso(t.Context(), &Proviso{Script: " \n"}, targets)
	if targets[0].State != job.StateBuild {
		t.Errorf("it is %s", targets[0].State)
	}
}

// An answer is found in an output of any length, with bytes that no terminal should get.
func TestProvisoAnswer(t *testing.T) {
	for name, test := range map[string]struct{ output, want string }{
		"a long line before":  {strings.Repeat("x", 3*maxAnswerLine) + "\nskip there", "there"},
		"a long line of it":   {"skip " + strings.Repeat("y", maxAnswerLine), strings.Repeat("y", maxReason/2)},
		"in a long line":      {strings.Repeat("x", maxAnswerLine) + " skip there", ""},
		"control characters":  {"\x1b[31mskip\x1b[0m it is \x1b[1mthere", "it is there"},
		"another word":        {"skipped it\nno skip", ""},
		"nothing":             {"", ""},
		"a line without text": {"\n\nskip", "nothing to do"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &provisoAnswer{}
			for piece := range strings.SplitAfterSeq(test.output, "e") { // in pieces, as a pipe has it
				if n, err := a.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Fatalf("%d of %d bytes are written, %v", n, len(piece), err)
				}
				if len(a.line) > maxAnswerLine {
					t.Fatalf("%d bytes are kept of a line", len(a.line))
				}
			}
			a.end()
			if !strings.HasPrefix(a.reason, test.want) || (test.want == "") != (a.reason == "") || len(a.reason) > maxReason+len("…") {
				t.Errorf("the reason is %q, want %q", a.reason, test.want)
			}
		})
	}
}
