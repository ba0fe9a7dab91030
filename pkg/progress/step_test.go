package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A log names few of many steps, each in a line; a terminal shows the step in progress.
func TestStep(t *testing.T) {
	var written bytes.Buffer
	d := New(&written, env("", ""), marked)
	now := time.Unix(0, 0)
	d.now = func() time.Time { return now }
	for n := range 400 {
		d.Step("evaluating %d/400 a%d\n::error::\x1b[2J%s", n, n, strings.Repeat("x", 300))
		now = now.Add(100 * time.Millisecond)
		if n == 150 {
			d.Printf("a trace")
		}
	}
	d.Close()
	d.Step("after the end")
	long := strings.Repeat("x", 160-len("evaluating 100/400 a100 ::error::…"))
	var want strings.Builder
	for _, n := range []string{"100", "", "251", "351"} {
		if n == "" {
			want.WriteString("[a trace]\n")
			continue
		}
		want.WriteString("[evaluating " + n + "/400 a" + n + " ::error::" + long + "xx…]\n")
	}
	if diff := cmp.Diff(want.String(), written.String()); diff != "" {
		t.Error(diff)
	}
	if d.Width() != 0 {
		t.Errorf("the log has %d columns", d.Width())
	}

	got, d := onTerminal(40)
	d.Step("evaluating %d/400 a%d", 1, 1)
	d.Step("evaluating %d/400 a%d", 2, 2)
	if want := "[evaluating 1/400 a1]" + gone + "[evaluating 2/400 a2]"; got.String() != want || d.Width() != 40 {
		t.Errorf("got %q on %d columns", got, d.Width())
	}
	d.Close()
}
