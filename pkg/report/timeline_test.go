package report

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// buildAt returns a build that starts so many seconds after noon.
func TestTimeLine(t *testing.T) {
	t.Parallel()
	r := &job.Result{Started: noon, Finished: noon.Add(312 * time.Second)}
	for _, b := range []job.DrvBuild{
		buildAt("unit-script-start", 4.5, 0.3), buildAt("etc", 4, 1), buildAt("linux-6.6", 5, 192), buildAt("nginx-1.26.0", 200, 4),
		buildAt("openssl-3.0.13", 12, 65.5), buildAt("nixos-system-nas", 301, 9), buildAt("notado-0.1", 5, 90),
	} {
		b.Failed = strings.Contains(b.DrvPath, "nginx")
		r.Builds = append(r.Builds, b)
	}
	golden(t, "timeline.txt", timeLine(r))

	r = &job.Result{Started: noon, Finished: noon.Add(time.Hour)}
	for i := range 30 {
		r.Builds = append(r.Builds, buildAt(fmt.Sprintf("p%02d", i), float64(i*100), float64(10+(i*7)%30*10)))
	}
	golden(t, "timeline-many.txt", timeLine(r))
}

func TestTimeLineIsEmpty(t *testing.T) {
	t.Parallel()
	for _, r := range []*job.Result{
		{},
		{Started: noon, Finished: noon.Add(time.Hour)},
		{Started: noon, Finished: noon.Add(time.Hour), Builds: []job.DrvBuild{buildAt("a", 0, 0.99), buildAt("b", 0, -5), buildAt("c", 0, math.NaN())}},
	} {
		if got := timeLine(r); got != "" {
			t.Errorf("got\n%s", got)
		}
	}
}

// Impossible times and hostile names do no harm.
func TestTimeLineOfAnything(t *testing.T) {
	t.Parallel()
	for _, r := range []*job.Result{
		{Builds: []job.DrvBuild{buildAt("a", 0, 5), buildAt("b", 5, 5)}},
		{Started: noon, Finished: noon, Builds: []job.DrvBuild{buildAt("a", -10, 5), buildAt("b", 5, 5)}},
		{Started: noon, Finished: noon.Add(time.Second), Builds: []job.DrvBuild{buildAt("a", -10, 5), buildAt("b", 50, math.Inf(1))}},
		{Started: noon, Finished: noon.Add(time.Second), Builds: []job.DrvBuild{buildAt("a", -10, 5), buildAt("b", -500, 5)}},
		{Started: noon.Add(time.Hour), Finished: noon, Builds: []job.DrvBuild{buildAt("a", 0, 1e300), {DrvPath: "/x/::error::\n##[x]\x1b[2J\u202e.drv", Seconds: 1e7}}},
	} {
		got := timeLine(r)
		if strings.Count(got, "\n") != 3 || strings.Contains(got, "##[") || strings.ContainsFunc(strings.ReplaceAll(got, "##\u2060[", ""), invisible) {
			t.Errorf("got\n%s", got)
		}
		for line := range strings.Lines(got) {
			if n := strings.Count(line, "█"); n > 40 || (n > 0) == strings.HasSuffix(line, "DERIVATION\n") {
				t.Errorf("a bar of %d in %q", n, line)
			}
		}
	}
}
