package progress

import (
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// A closure has thousands of paths. A log names the first that are fetched, and
// then tells of each so many.
const (
	fetchesNamed = 20
	fetchesStep  = 100
)

// fetches counts what is fetched.
type fetches struct {
	started, stopped, told int
	bytes                  int64 // that have arrived
}

// String is for a line of a log.
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

// fetchesEnded says how many there were, if that is not to be seen.
func (d *Display) fetchesEnded() {
	f := &d.fetches
	if d.width == nil && f.started > fetchesNamed && f.stopped > f.told {
		d.printf("fetched %s", f)
		f.told = f.stopped
	}
}
