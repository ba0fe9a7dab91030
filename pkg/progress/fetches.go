package progress

import (
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// A closure has thousands of paths. A log names the first ones that are fetched, then counts
// the others in steps.
const (
	fetchesNamed = 20
	fetchesStep  = 100
)

// fetches counts fetched paths.
type fetches struct {
	started, stopped, reported int
	bytes                      int64 // received
}

// String returns the counts for a line of a log.
func (f *fetches) String() string {
	line := number(f.stopped) + " paths"
	if f.bytes > 0 {
		line += ", " + text.Size(f.bytes)
	}
	return line
}

func (d *Display) fetchStarted(path string) {
	d.fetches.started++
	if d.width == nil && d.fetches.started <= fetchesNamed {
		d.printf("%s: fetching", job.DrvName(path))
	}
}

func (d *Display) fetchStopped() {
	f := &d.fetches
	f.stopped++
	if d.width == nil && f.started > fetchesNamed && f.stopped%fetchesStep == 0 {
		d.printf("fetched %s so far", f)
	}
}

// fetchesEnded writes the number of fetched paths, unless the log names all of them.
func (d *Display) fetchesEnded() {
	f := &d.fetches
	if d.width == nil && f.started > fetchesNamed && f.stopped > f.reported {
		d.printf("fetched %s", f)
		f.reported = f.stopped
	}
}
