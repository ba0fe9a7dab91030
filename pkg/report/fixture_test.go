package report

import "github.com/org/nix-matrix/pkg/verdict/verdicttest"

const (
	planKey      = verdicttest.PlanKey
	otherPlanKey = verdicttest.OtherPlanKey
	runURL       = verdicttest.RunURL
)

var (
	noon, drv, storePath             = verdicttest.Noon, verdicttest.Drv, verdicttest.StorePath
	host, pkg, skipped, unevaluated  = verdicttest.Host, verdicttest.Package, verdicttest.Skipped, verdicttest.Unevaluated
	planOf, resultsOf, fail, buildAt = verdicttest.PlanOf, verdicttest.ResultsOf, verdicttest.Fail, verdicttest.BuildAt
	needsOf, judged, fleet, changed  = verdicttest.NeedsOf, verdicttest.Judged, verdicttest.Fleet, verdicttest.Changed
	emulate                          = verdicttest.Emulate
)
