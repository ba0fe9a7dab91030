package discover

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
)

// A target without wanted outputs or known paths is nowhere.
func TestEverywhere(t *testing.T) {
	const out, dev = "/nix/store/00000000000000000000000000000000-a", "/nix/store/00000000000000000000000000000000-a-dev"
	both := map[string]string{"out": out, "dev": dev}
	has := func(paths ...string) *available.Place {
		p := available.NewPlace("here")
		for _, path := range paths {
			p.Has[path] = true
		}
		return p
	}
	for name, test := range map[string]struct {
		outputs []string
		paths   map[string]string
		places  []*available.Place
		want    bool
	}{
		"the output is there":                 {[]string{"out"}, both, []*available.Place{has(out)}, true},
		"all outputs are there":               {[]string{"out", "dev"}, both, []*available.Place{has(out, dev)}, true},
		"in both places":                      {[]string{"out"}, both, []*available.Place{has(out), has(out, dev)}, true},
		"in one of two places":                {[]string{"out"}, both, []*available.Place{has(out), has(dev)}, false},
		"one of two outputs":                  {[]string{"out", "dev"}, both, []*available.Place{has(out)}, false},
		"nothing is wanted":                   {nil, nil, []*available.Place{has(out)}, false},
		"nothing is wanted of what is there":  {nil, both, []*available.Place{has(out, dev)}, false},
		"the path is not known":               {[]string{"out"}, nil, []*available.Place{has(out)}, false},
		"the path is not known, and of \"\"":  {[]string{"out"}, map[string]string{"out": ""}, []*available.Place{has("")}, false},
		"one path of two is known":            {[]string{"out", "dev"}, map[string]string{"out": out}, []*available.Place{has(out)}, false},
		"the path of another output is known": {[]string{"out"}, map[string]string{"dev": dev}, []*available.Place{has(dev)}, false},
		"nobody was asked":                    {[]string{"out"}, both, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := everywhere(&job.Target{Outputs: test.outputs, OutPaths: test.paths}, test.places); got != test.want {
				t.Errorf("it is everywhere: %t", got)
			}
		})
	}
}

// Only targets that are to be built are skipped, and none of an invalid derivation.
func TestMarkProved(t *testing.T) {
	const proved, other = "/nix/store/00000000000000000000000000000000-a.drv", "/nix/store/11111111111111111111111111111111-a.drv"
	record := &job.Record{Branch: "main", Proved: map[string]int{job.DrvHash(proved): 1, "": 1}}
	for name, test := range map[string]struct{ before, want job.Target }{
		"proved":  {job.Target{State: job.StateBuild, DrvPath: proved}, job.Target{State: job.StateSkip, DrvPath: proved, Proved: true, Reason: "built by main already"}},
		"another": {job.Target{State: job.StateBuild, DrvPath: other}, job.Target{State: job.StateBuild, DrvPath: other}},
		"skipped": {job.Target{State: job.StateSkip, DrvPath: proved, Reason: "no need"}, job.Target{State: job.StateSkip, DrvPath: proved, Reason: "no need"}},
		"failed":  {job.Target{State: job.StateFailed}, job.Target{State: job.StateFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			targets := []job.Target{test.before}
			markProved(targets, record)
			if diff := cmp.Diff(test.want, targets[0]); diff != "" {
				t.Error(diff)
			}
		})
	}
}
