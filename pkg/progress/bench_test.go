package progress

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

// BenchmarkSee is for 100 MB of a log.
func BenchmarkSee(b *testing.B) {
	line := strings.Repeat("x", 99)
	for b.Loop() {
		d := New(io.Discard, env("", ""), marked, Groups(true))
		e := nix.Event{Kind: nix.BuildStarted, Path: hello, Time: noon}
		d.See(e, true)
		e.Kind, e.Text = nix.BuildLine, line
		for range 1_000_000 {
			e.Time = e.Time.Add(time.Microsecond)
			d.See(e, true)
		}
		d.Close()
	}
	b.SetBytes(100_000_000)
}
