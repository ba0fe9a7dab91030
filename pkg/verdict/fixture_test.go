package verdict_test

import "github.com/org/nix-matrix/pkg/verdict/verdicttest"

const (
	planKey      = verdicttest.PlanKey
	otherPlanKey = verdicttest.OtherPlanKey
	thePlan      = verdicttest.ThePlan
)

var (
	noon, drv, storePath              = verdicttest.Noon, verdicttest.Drv, verdicttest.StorePath
	host, pkg, skipped, unevaluated   = verdicttest.Host, verdicttest.Package, verdicttest.Skipped, verdicttest.Unevaluated
	planOf, resultsOf, fail           = verdicttest.PlanOf, verdicttest.ResultsOf, verdicttest.Fail
	needsOf, judged, changed, mainRun = verdicttest.NeedsOf, verdicttest.Judged, verdicttest.Changed, verdicttest.MainRun
)
