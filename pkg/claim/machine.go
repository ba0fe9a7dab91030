package claim

import (
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// limits are the times and numbers that decisions depend on.
type limits struct {
	beat             time.Duration // between the renewals of a claim
	minLag, maxLag   time.Duration // of a lookup behind a save: assumed, and believed
	minWait, maxWait time.Duration // between two looks at a unit
	fresh            time.Duration // age of a look that a claim may rest on
	alone            time.Duration // of waiting for a living holder, if the unit does not take long itself
	idle             time.Duration // of waiting for a unit that nobody holds
	trouble          time.Duration // with a cache that fails again and again
	batch            int           // units looked at together, and candidates that workers spread over
}

// Pace is the time of all pauses and bounds, in parts of the usual one, for tests of whole commands.
var Pace = 1.0

func newLimits(beat time.Duration) limits {
	if beat <= 0 {
		beat = time.Minute
	}
	l := usualLimits(beat)
	for _, d := range []*time.Duration{&l.beat, &l.minLag, &l.maxLag, &l.minWait, &l.maxWait, &l.fresh, &l.alone, &l.idle, &l.trouble} {
		*d = time.Duration(float64(*d) * Pace)
	}
	return l
}

func usualLimits(beat time.Duration) limits {
	return limits{
		beat: beat, minLag: 30 * time.Second, maxLag: 10 * time.Minute,
		minWait: time.Second, maxWait: 15 * time.Second, fresh: 5 * time.Second,
		alone: 20 * time.Minute, idle: 5 * time.Minute, trouble: 2 * time.Minute, batch: 8,
	}
}

// nearLimits are those of workers in one process, in whose memory the claims are.
func nearLimits() limits {
	const never = 365 * 24 * time.Hour
	l := usualLimits(never)
	l.minLag, l.minWait, l.maxWait = 0, 20*time.Millisecond, 200*time.Millisecond
	l.alone = never
	return l
}

const (
	deadBeats = 3   // that are missed by a holder that has died
	maxTry    = 100 // holders of a unit; a stranger may write any number into a key
)

// A machine decides what a worker does next. It is pure: it learns from its methods what happened
// and when, on a clock that begins with the worker, and next returns the step.
type machine struct {
	limits
	units   []job.Unit
	attempt int
	number  int
	wants   []bool // outputs that the job itself needs
	needs   []bool // units that must be built for that, see update
	may     []bool
	help    bool // builds what others need, too
	near    bool // what was built of a unit that failed is here, see over
	rests   bool // has targets of its own

	state    []unitState
	holding  int // unit that this worker holds a claim to, and has not begun; -1 for none
	try      int // of that claim
	lag      time.Duration
	refusals int // of creations, since the last that was not
	refused  time.Duration
	rested   []bool        // the open units at the last rest; nil before it
	idled    time.Duration // without a break
	looks    troubles
	saves    troubles
	stopped  bool // no claims any more
}

// unitState is what a worker knows of a unit.
type unitState struct {
	had    bool      // the outputs are valid here
	failed *job.Done // it failed in this attempt
	done   *job.Done // it was built elsewhere, and can be taken
	key    string    // of done
	void   []string  // keys of done documents that are of no use
	// voided is the greatest try of this attempt that has ended without use, and try and beat are
	// those of the newest claim; -1 for none.
	voided, try, beat int
	holder            *job.Claim    // of try, if known
	since             time.Duration // when try and beat were first seen

	looked, due, pause time.Duration // last look, -1 for none; next look, and the pause before it

	tried    bool // the creation of the claim triedTry, at triedAt, had no clear answer or was refused
	triedTry int
	triedAt  time.Duration
	missed   time.Duration // last look that did not show triedTry, though it exists; 0 for none

	idle     time.Duration // waited for it
	returned bool          // by this worker, unbuilt
	left     bool          // to the caller
	result   job.UnitWay   // how it ended here

	// These follow from the rest, see update.
	ready  bool // everything before it is over
	within bool // everything before it is over or can be taken
	gone   bool // neither built nor waited for: it or one before it failed, or was left to the caller
	leads  bool // the worker may build it or one after it, for others
}

func newMachine(l limits, units []job.Unit, attempt, number int, needs, may, have []bool, help bool) *machine {
	m := &machine{
		limits: l, units: units, attempt: attempt, number: max(number, 0),
		wants: at(needs, len(units)), needs: make([]bool, len(units)), may: at(may, len(units)), help: help, state: make([]unitState, len(units)), holding: -1, lag: l.minLag,
	}
	for u := range m.state {
		m.state[u] = unitState{voided: -1, try: -1, beat: -1, looked: -1}
	}
	m.have(have)
	for u, wanted := range m.wants {
		m.rests = m.rests || wanted && !m.state[u].had
	}
	return m
}

// update makes the facts about units that follow from those about others.
func (m *machine) update() {
	for u := range m.state {
		s := &m.state[u]
		s.ready, s.within, s.gone = true, true, s.failed != nil || s.left
		for _, v := range m.units[u].After {
			s.ready = s.ready && m.over(v)
			s.within = s.within && (m.over(v) || m.takable(v))
			s.gone = s.gone || m.state[v].gone && !m.over(v)
		}
		s.gone = s.gone && !s.had
		s.leads = false
	}
	copy(m.needs, m.wants)
	for u := len(m.state) - 1; u >= 0; u-- {
		if s := &m.state[u]; m.needs[u] && !s.had && !s.gone && s.done == nil { // to build it takes those before
			for _, v := range m.units[u].After {
				m.needs[v] = true
			}
		}
	}
	for u := len(m.state) - 1; u >= 0; u-- {
		s := &m.state[u]
		s.leads = s.leads || m.claimable(u)
		for _, v := range m.units[u].After {
			m.state[v].leads = m.state[v].leads || s.leads && !s.had
		}
	}
}

// at returns the list with n elements.
func at(list []bool, n int) []bool { return append(slices.Clone(list), make([]bool, n)...)[:n] }

// have tells the machine which outputs are valid.
func (m *machine) have(have []bool) {
	for u, had := range have[:min(len(have), len(m.state))] {
		m.state[u].had = m.state[u].had || had
	}
}

// A step is what the worker is to do next.
type step struct {
	do    act
	unit  int
	try   int           // of the claim
	units []int         // to look at, or to take
	open  []bool        // for a rest
	until time.Duration // to wait
}

type act int

const (
	actEnd act = iota
	actLook
	actTake
	actClaim
	actBuild   // holding a claim
	actRelease // give a claim back, without having begun
	actAlone   // build without a claim
	actRest
	actWait
)

// next returns what to do now. It may be called again without an answer to it.
func (m *machine) next(now time.Duration) step {
	m.update()
	if m.holding >= 0 {
		return m.hold()
	}
	var take []int
	for u := range m.state {
		if m.wants[u] && m.takable(u) {
			take = append(take, u)
		}
	}
	if len(take) > 0 {
		return step{do: actTake, units: take}
	}
	if m.stopped || !m.wantsMore() {
		return step{do: actEnd}
	}
	for u := range m.state {
		if m.needs[u] && m.watched(u) && m.claimable(u) && m.alone(u) {
			if lacks := m.lacking(u); len(lacks) > 0 {
				return step{do: actTake, units: lacks}
			}
			return step{do: actAlone, unit: u}
		}
	}
	if now >= m.looks.until {
		if a, ok := m.nextClaim(now, m.candidates(now)); ok {
			return a
		}
	}
	if open := m.open(); m.rests && (m.rested == nil || !slices.Equal(open, m.rested)) {
		return step{do: actRest, open: open}
	}
	return m.wait(now)
}

// hold returns what to do with the claim that the worker holds: to take what the unit needs, and to
// build it. If something of that is lost, it must be built first, by this worker or another.
func (m *machine) hold() step {
	lacks := m.lacking(m.holding)
	switch {
	case len(lacks) == 0:
		return step{do: actBuild, unit: m.holding, try: m.try}
	case slices.ContainsFunc(lacks, func(v int) bool { return !m.takable(v) }):
		return step{do: actRelease, unit: m.holding, try: m.try}
	default:
		return step{do: actTake, units: lacks}
	}
}

// nextClaim returns the claim of the best unit that is free, or the looks that it takes to know. ok is
// false if there is nothing to claim.
func (m *machine) nextClaim(now time.Duration, candidates []int) (a step, ok bool) {
	for _, u := range candidates {
		s := &m.state[u]
		if s.due <= now {
			return m.look(now, candidates)
		}
		if !m.free(u, now) {
			continue
		}
		if now < m.saves.until {
			continue
		}
		if s.looked < now-m.fresh || s.looked < m.refused {
			s.due = now
			return m.look(now, candidates)
		}
		return step{do: actClaim, unit: u, try: max(s.try, s.voided) + 1}, true
	}
	return m.look(now, candidates)
}

// look returns the look at the units for which it is time, the candidates first. ok is false if
// there is none.
func (m *machine) look(now time.Duration, candidates []int) (a step, ok bool) {
	isCandidate := make([]bool, len(m.state))
	for _, u := range candidates {
		isCandidate[u] = true
		if m.state[u].due <= now {
			a.units = append(a.units, u)
		}
	}
	for u := range m.state {
		if m.watched(u) && m.state[u].due <= now && !isCandidate[u] {
			a.units = append(a.units, u)
		}
	}
	a.do, a.units = actLook, a.units[:min(len(a.units), m.batch)]
	return a, len(a.units) > 0
}

// wait returns the wait for the next look or try, or the end if there is none or it takes too long.
func (m *machine) wait(now time.Duration) step {
	until := time.Duration(-1)
	sooner := func(t time.Duration) {
		if t = max(t, now+1); until < 0 || t < until {
			until = t
		}
	}
	own, unclaimed := false, false
	for u := range m.state {
		if !m.watched(u) {
			continue
		}
		own = own || m.needs[u]
		unclaimed = unclaimed || m.claimable(u) && m.free(u, now)
		sooner(max(m.state[u].due, m.looks.until))
		if m.claimable(u) && m.free(u, now) {
			sooner(max(m.saves.until, m.looks.until))
		}
	}
	for u := range m.state { // those that wait for others
		unclaimed = unclaimed || m.claimable(u) && !m.watched(u) && m.state[u].done == nil
	}
	if until < 0 || !own && (!unclaimed || m.idled >= m.idle) {
		return step{do: actEnd}
	}
	return step{do: actWait, until: until}
}

// wantsMore reports whether there is a unit that the worker needs or may build for others.
func (m *machine) wantsMore() bool {
	for u := range m.state {
		if !m.state[u].had && !m.state[u].gone && (m.needs[u] || m.claimable(u)) {
			return true
		}
	}
	return false
}

// takable reports whether a unit was built elsewhere. Its document names all that its outputs refer to.
func (m *machine) takable(u int) bool {
	s := &m.state[u]
	return !s.had && s.done != nil && !s.left
}

// lacking returns the units to take before a unit that is within reach can be built.
func (m *machine) lacking(u int) []int {
	return slices.DeleteFunc(slices.Clone(m.units[u].After), m.over)
}

// over reports whether all is here that anybody could build of a unit. In one store that is so after a
// failure too: what does not need the failed derivation was built.
func (m *machine) over(u int) bool {
	return m.state[u].had || m.near && m.state[u].failed != nil
}

// claimable reports whether the worker may build a unit that is not built, as far as it knows.
func (m *machine) claimable(u int) bool {
	s := &m.state[u]
	return m.may[u] && (m.needs[u] || m.help) && !s.had && s.done == nil && !s.returned && !s.gone
}

// watched reports whether the state of a unit in the cache matters, and can have changed: before the
// units that it needs are built, nobody has it.
func (m *machine) watched(u int) bool {
	s := &m.state[u]
	return !s.had && s.done == nil && !s.gone && s.within && (m.needs[u] || m.help && s.leads)
}

// free reports whether nobody holds a unit, as far as the last look shows.
func (m *machine) free(u int, now time.Duration) bool {
	s := &m.state[u]
	next := max(s.try, s.voided) + 1
	return next < maxTry && (s.try <= s.voided || now-s.since >= m.expiry())
}

// expiry is the time without news of a holder after which it counts as dead.
func (m *machine) expiry() time.Duration { return deadBeats*m.beat + m.lag }

// alone reports whether a unit is to be built without a claim.
func (m *machine) alone(u int) bool {
	s := &m.state[u]
	return s.within && (s.idle >= m.bound(u) || max(s.try, s.voided)+1 >= maxTry)
}

// bound is the longest wait for a unit whose holder lives.
func (m *machine) bound(u int) time.Duration {
	return max(m.limits.alone, 3*time.Duration(m.units[u].Seconds*float64(time.Second)))
}

// candidates returns the units that the worker may claim as far as it knows, the best first: its own,
// and of these the one with the longest way to the end. The first ones are in another order for each
// worker, so that they rarely want the same; the more so the more often they did.
func (m *machine) candidates(now time.Duration) []int {
	var own, other []int
	for u := range m.state {
		switch {
		case !m.watched(u) || !m.claimable(u) || !m.free(u, now) && m.state[u].due > now:
		case m.needs[u]:
			own = append(own, u)
		default:
			other = append(other, u)
		}
	}
	for _, list := range [][]int{own, other} {
		slices.SortStableFunc(list, func(a, b int) int {
			switch ta, tb := m.units[a].Tail, m.units[b].Tail; {
			case ta > tb:
				return -1
			case ta < tb:
				return 1
			}
			return a - b
		})
		if n := min(len(list), m.batch<<min(m.refusals, 10)); n > 1 {
			by := m.number % n
			first := slices.Concat(list[by:n], list[:by])
			copy(list, first)
		}
	}
	return append(own, other...)
}

// open returns the units that are not over.
func (m *machine) open() []bool {
	open := make([]bool, len(m.state))
	for u := range m.state {
		open[u] = !m.over(u)
	}
	return open
}
