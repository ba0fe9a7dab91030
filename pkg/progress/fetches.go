package progress

import "github.com/org/nix-matrix/pkg/job"

// A closure has thousands of paths. A log names the first that are fetched, and
// then tells of each so many.
const (
	fetchesNamed = 20
	fetchesStep  = 100
)

// fetches counts what is fetched.
type fetches struct{ started, stopped, told int }

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
		d.printf("fetched %s paths so far", number(f.stopped))
	}
}

// fetchesEnded says how many there were, if that is not to be seen.
func (d *Display) fetchesEnded() {
	f := &d.fetches
	if d.width == nil && f.started > fetchesNamed && f.stopped > f.told {
		d.printf("fetched %s paths", number(f.stopped))
		f.told = f.stopped
	}
}
