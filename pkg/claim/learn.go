package claim

import (
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
)

// settles reports whether a done document ends the looking for a unit.
func (m *machine) settles(u int, seen *documents.Sighting) bool {
	if seen.Done == nil || slices.Contains(m.state[u].void, seen.DoneKey) {
		return false
	}
	return seen.Done.Outcome == job.OutcomeBuilt || seen.Done.Outcome == job.OutcomeFailed && seen.DoneAttempt == m.attempt
}

// saw tells what a look at a unit has shown.
func (m *machine) saw(u int, seen *documents.Sighting, holder string, now time.Duration) {
	s := &m.state[u]
	m.looks = troubles{}
	s.looked = now
	before := [2]int{s.try, s.voided}
	switch {
	case seen.DoneKey == "":
	case m.settles(u, seen) && seen.Done.Outcome == job.OutcomeBuilt:
		s.done, s.key = seen.Done, seen.DoneKey
	case m.settles(u, seen):
		s.failed = seen.Done
		m.end(u, job.UnitBlocked)
	default:
		m.void(u, seen.DoneKey)
		if seen.DoneAttempt == m.attempt {
			s.voided = max(s.voided, min(seen.DoneTry, maxTry))
		}
	}
	if seen.Claimed {
		m.sawClaim(u, seen, holder, now)
	}
	if s.try == s.triedTry && s.tried && !seen.Claimed && seen.DoneKey == "" {
		s.missed = now
	}
	s.pause = min(max(s.pause*17/16, m.minWait), m.maxWait) // a sixteenth of the wait so far, about: the last of many jobs to look delays all
	if before != [2]int{s.try, s.voided} {
		s.pause = m.minWait
	}
	s.due = now + s.pause
	if s.try > s.voided && now < s.since+m.expiry() {
		s.due = min(s.due, s.since+m.expiry())
	}
}

// void notes a done document that is of no use.
func (m *machine) void(u int, key string) {
	if s := &m.state[u]; !slices.Contains(s.void, key) {
		s.void = append(slices.Clip(s.void), key)
	}
}

func (m *machine) sawClaim(u int, seen *documents.Sighting, holder string, now time.Duration) {
	s := &m.state[u]
	switch {
	case seen.Try > s.try || seen.Try == s.try && seen.Beat > s.beat:
		s.try, s.beat, s.holder, s.since = min(seen.Try, maxTry), seen.Beat, seen.Holder, now
	case seen.Try == s.try && s.holder == nil:
		s.holder = seen.Holder
	}
	if !s.tried || seen.Try < s.triedTry {
		return
	}
	if s.missed > 0 {
		m.lag = min(m.maxLag, max(m.lag, s.missed-s.triedAt+m.maxWait))
	}
	// If it is the worker's own, the answer to its creation was lost. After a beat without renewal
	// others may be about to take over.
	mine := seen.Holder != nil && seen.Holder.Holder == holder && seen.Try == s.triedTry
	if mine && s.try == s.triedTry && s.try > s.voided && now-s.triedAt < m.beat && m.claimable(u) && s.within {
		m.holding, m.try = u, s.try
	}
	s.tried, s.missed = false, 0
}

// won tells that the worker holds the claim that it was to make.
func (m *machine) won(u, try int) {
	m.holding, m.try, m.refusals, m.saves = u, try, 0, troubles{}
}

// lost tells that somebody else holds it.
func (m *machine) lost(u, try int, now time.Duration) {
	s := &m.state[u]
	m.saves = troubles{}
	m.refusals, m.refused = m.refusals+1, now
	if try > s.try {
		s.try, s.beat, s.holder, s.since = try, 0, nil, now
		s.missed = 0
	}
	if !s.tried || s.triedTry != try {
		s.tried, s.triedTry, s.triedAt = true, try, now
	}
	s.due, s.pause = now, 0
}

// unclear tells that the creation of a claim failed, so that it may exist or not. It took so long.
func (m *machine) unclear(u, try int, took, now time.Duration) {
	s := &m.state[u]
	s.tried, s.triedTry, s.triedAt = true, try, now-took
	m.trouble(&m.saves, took, now)
}

// blind tells that a look failed.
func (m *machine) blind(took, now time.Duration) { m.trouble(&m.looks, took, now) }

// released tells that the worker has given back the claim that it held, for others or itself to take
// again.
func (m *machine) released() {
	s := &m.state[m.holding]
	s.voided = max(s.voided, m.try)
	m.holding = -1
}

// built tells what became of a unit that this worker built, and how.
func (m *machine) built(u int, done *job.Done, way job.UnitWay) {
	s := &m.state[u]
	if m.holding == u {
		s.voided = max(s.voided, m.try)
		m.holding = -1
	}
	m.idled = 0
	switch done.Outcome {
	case job.OutcomeBuilt:
		s.had = true
		m.end(u, way)
	case job.OutcomeFailed:
		s.failed = done
		m.end(u, job.UnitFailed)
	default: // given back
		s.returned = true
		if way == job.UnitAlone {
			s.left = true
		}
	}
}

// took notes that the outputs of a unit that another job built are here, or cannot be taken.
func (m *machine) took(u int, ok bool) {
	s := &m.state[u]
	m.idled = 0
	if ok {
		s.had = true
		m.end(u, job.UnitTaken)
		return
	}
	m.void(u, s.key)
	s.done, s.key = nil, ""
	s.due, s.pause = 0, 0
}

// restedWith tells that the rest was built as far as the open units allow.
func (m *machine) restedWith(open []bool) { m.rested = open }

// waited tells that the worker had nothing to do for a time.
func (m *machine) waited(d, now time.Duration) {
	m.idled += d
	for u := range m.state {
		s := &m.state[u]
		if !m.watched(u) || !m.needs[u] {
			continue
		}
		s.idle += d
		if !m.claimable(u) { // by this worker
			bound := m.idle
			if !m.free(u, now) {
				bound = m.bound(u)
			}
			s.left = s.left || s.idle >= bound
		}
	}
}

// helpOn has the worker go on for others alone, as long as it need not wait.
func (m *machine) helpOn() {
	clear(m.wants)
	m.help, m.rests, m.idle = true, false, 0
}

// stop tells that there are no claims any more.
func (m *machine) stop() { m.stopped = true }

// end notes how a unit ended. What it was at first counts.
func (m *machine) end(u int, way job.UnitWay) {
	if m.state[u].result == "" {
		m.state[u].result = way
	}
}

// troubles are failures in a row.
type troubles struct {
	count int
	spent time.Duration // on calls that failed, and on pauses
	until time.Duration // when to try again
}

// trouble notes a call that failed after a time. Too many end the claims.
func (m *machine) trouble(t *troubles, took, now time.Duration) {
	pause := min(m.minWait<<min(t.count, 10), m.maxWait)
	t.count++
	t.spent += took + pause
	t.until = now + pause
	m.stopped = m.stopped || t.spent > m.limits.trouble
}
