package verdict

// The tests are outside of the package, since verdicttest imports it.

const (
	OfOtherPlan    = ofOtherPlan
	OfUnknownEntry = ofUnknownEntry
	WhyDeadline    = whyDeadline
	WhyNeverEnded  = whyNeverEnded
	WhyNoEntry     = whyNoEntry
	WhyNoMatrix    = whyNoMatrix
	WhyNoPaths     = whyNoPaths
	WhyNoResult    = whyNoResult
	WhyNowhere     = whyNoOutputs
	WhyOtherDrv    = whyOtherDrv
	WhyOtherPlan   = whyOtherPlan
	WhyStopped     = whyStopped
	WhyUnmentioned = whyNotInResult

	ProvedDays    = provedDays
	MaxTimes      = maxTimes
	MaxEntryTimes = maxEntryTimes
)

var Times, EntryTimes = times, entryTimes

func (n Needs) Discovery(planKey string) (ids []string, result Status, matrix bool) {
	d := n.findDiscovery(planKey)
	return d.ids, d.result, d.hasMatrix
}
