package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

// A failure is shown at once, even where logs are not shown.
func TestBrief(t *testing.T) {
	screen, d := onTerminal(80)
	defer d.Close()
	log := newLog(t)
	for name, test := range map[string]struct {
		*Display
		written *bytes.Buffer
		shows   bool
		want    string
	}{
		"terminal":            {d, screen, false, "✗ [a: failed after 2.0s: no such file]\n"},
		"terminal with lines": {d, screen, true, "✗ [a: failed after 2.0s: no such file]\n"},
		"log without lines":   {log.Display, &log.written, false, "✗ [a: failed after 2.0s: no such file]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			see := func(second int, kind nix.EventKind, text string) string {
				test.written.Reset()
				test.See(nix.Event{Kind: kind, Path: start + "a.drv", Time: noon.Add(time.Duration(second) * time.Second), Text: text}, test.shows)
				return test.written.String()
			}
			see(0, nix.BuildStarted, "")
			see(1, nix.BuildLine, "first")
			see(1, nix.BuildLine, "second\nno such file\n")
			see(1, nix.BuildLine, "")
			see(2, nix.BuildStopped, "")
			if got := see(2, nix.ErrorMessage, failure("a")); strings.TrimPrefix(got, gone) != test.want {
				t.Errorf("%q", got)
			}
			if got := see(3, nix.ErrorMessage, failure("a")); strings.TrimPrefix(got, gone) != "" {
				t.Errorf("once more: %q", got)
			}
		})
	}
}
