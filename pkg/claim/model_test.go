package claim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
)

// The model has the real machines of three workers, and of the cache only what they see of it. A step
// is one call to the cache or the end of a build; what a worker does on its own follows at once,
// because nobody can tell. Time passes in ticks of one beat.
const tick = time.Second

// world is a state of the model.
type world struct {
	conf    *model
	now     time.Duration
	workers []*modelWorker
	cache   []modelUnit // of each unit
	old     []modelUnit // the same before the last tick, which a lookup that lags shows
	crashed bool
	oddity  bool // the one that the model allows has happened
	trace   *traced
}

type modelWorker struct {
	machine
	dead, ended bool
	building    int // unit, -1 for none
	claimed     int // try
}

// modelUnit is what the cache has of a unit. The keys of tries below next are taken.
type modelUnit struct {
	next, try, beat int
	owner           int // of try
	done            job.Outcome
	doneTry         int
	doneBy          int
}

// traced is how a state was reached.
type traced struct {
	step   string
	before *traced
}

func (t *traced) String() string {
	var steps []string
	for ; t != nil; t = t.before {
		steps = append(steps, t.step)
	}
	slices.Reverse(steps)
	return strings.Join(steps, "\n")
}

// model is what is to be explored.
type model struct {
	needs  [][]bool
	crash  bool
	lag    bool
	urgent bool // time passes only when all workers wait or build
	oddity string
	fails  string // the unit whose build fails, empty for none
	after  [][]int
}

func (c *model) start() *world {
	w := &world{conf: c, cache: make([]modelUnit, len(c.after)), now: tick}
	for u := range w.cache {
		w.cache[u] = modelUnit{try: -1, doneTry: -1}
	}
	w.old = slices.Clone(w.cache)
	l := limits{beat: tick, minLag: tick, maxLag: 4 * tick, minWait: tick, maxWait: tick, fresh: tick, alone: 1000 * tick, idle: 1000 * tick, trouble: 1000 * tick, batch: 8}
	for n := range c.needs {
		m := newMachine(l, newUnits(c.after...), 1, n, c.needs[n], all(len(c.after)), nil, c.needs[n] == nil)
		m.rests = false
		for u := range m.units {
			m.units[u].Seconds = 0
		}
		w.workers = append(w.workers, &modelWorker{machine: *m, building: -1})
	}
	for n := range w.workers {
		w.settle(n)
	}
	return w
}

// clone returns a state that differs in the step of a worker.
func (w *world) clone(step string, n int) *world {
	c := *w
	c.workers = slices.Clone(w.workers)
	worker := *w.workers[n]
	worker.state, worker.needs = slices.Clone(worker.state), slices.Clone(worker.needs)
	c.workers[n] = &worker
	c.cache = slices.Clone(w.cache)
	c.trace = &traced{fmt.Sprintf("%3d %s", w.now/tick, step), w.trace}
	return &c
}

// settle has a worker do what nobody sees.
func (w *world) settle(n int) {
	worker := w.workers[n]
	for steps := 0; worker.building < 0; steps++ {
		if steps > 100 {
			panic(fmt.Sprintf("worker %d spins after\n%s", n, w.trace))
		}
		switch s := worker.next(w.now); s.do {
		case actTake:
			if w.conf.oddity == "take fails" && !w.oddity {
				return // it is a choice
			}
			for _, u := range s.units {
				worker.took(u, worker.state[u].done != nil)
			}
		case actBuild:
			worker.building, worker.claimed = s.unit, s.try
			return
		case actLook:
			// A final state can be seen now as well as later.
			if slices.ContainsFunc(s.units, func(u int) bool { return !w.final(u) }) {
				return
			}
			for _, u := range s.units {
				worker.saw(u, w.sight(w.cache[u]), fmt.Sprint(n), w.now)
			}
		case actEnd:
			worker.ended = true
			return
		default:
			return
		}
	}
}

// holds returns the unit whose claim a worker holds, -1 if there is none.
func (m *modelWorker) holds() int { return max(m.building, m.holding) }

// claim returns the try of the claim that a worker holds.
func (m *modelWorker) claim() int {
	if m.building >= 0 {
		return m.claimed
	}
	return m.try
}

// final reports whether everybody sees for ever that a unit is built, and takes it.
func (w *world) final(u int) bool {
	return w.cache[u].done == job.OutcomeBuilt && (!w.conf.lag || w.old[u].done == job.OutcomeBuilt) &&
		(w.conf.oddity != "take fails" || w.oddity)
}

func (w *world) sight(unit modelUnit) *documents.Sighting {
	s := &documents.Sighting{}
	if unit.done != "" {
		s.DoneKey, s.DoneAttempt, s.DoneTry = fmt.Sprint(unit.doneTry), 1, unit.doneTry
		s.Done = &job.Done{Outcome: unit.done}
	}
	if unit.try >= 0 {
		s.Claimed, s.Try, s.Beat, s.Holder = true, unit.try, unit.beat, &job.Claim{Holder: fmt.Sprint(unit.owner)}
	}
	return s
}

// successors returns the states after a step of anyone, and an error if a step breaks a rule.
func (w *world) successors() (all []*world, ticks *world, err error) {
	busy := false
	for n := range w.workers {
		worker := w.workers[n]
		if worker.dead || worker.ended {
			continue
		}
		// Others can tell when a worker dies only by what it no longer writes.
		if w.conf.crash && !w.crashed && (worker.holds() >= 0 || worker.next(w.now).do == actClaim) {
			c := w.clone(fmt.Sprint("worker ", n, " dies"), n)
			c.crashed, c.workers[n].dead = true, true
			all = append(all, c)
		}
		after, waits, broken := w.step(n)
		if broken != nil {
			return nil, nil, broken
		}
		busy = busy || !waits && worker.building < 0
		all = append(all, after...)
	}
	if !busy || !w.conf.urgent {
		ticks = w.clone("tick", 0)
		ticks.now += tick
		ticks.old = slices.Clone(w.cache)
		for n := range ticks.workers {
			ticks = ticks.clone("", n)
			worker := ticks.workers[n]
			if u := worker.holds(); !worker.dead && u >= 0 && ticks.cache[u].try == worker.claim() {
				ticks.cache[u].beat++
			}
			if !worker.dead && !worker.ended {
				ticks.settle(n)
			}
		}
		ticks.trace = &traced{"tick", w.trace}
	}
	return all, ticks, nil
}

// step returns the states after a worker's next step. waits says that there is none before a tick.
func (w *world) step(n int) (all []*world, waits bool, err error) {
	add := func(step string, do func(c *world, worker *modelWorker)) {
		c := w.clone(fmt.Sprint("worker ", n, " ", step), n)
		do(c, c.workers[n])
		c.settle(n)
		all = append(all, c)
	}
	odd := func(name string) bool { return w.conf.oddity == name && !w.oddity }
	if u := w.workers[n].building; u >= 0 {
		try := w.workers[n].claimed
		publish := func(outcome job.Outcome) {
			add(fmt.Sprint("ends unit ", u, ": ", outcome), func(c *world, worker *modelWorker) {
				c.oddity = c.oddity || outcome == job.OutcomeCancelled
				unit := &c.cache[u]
				unit.done, unit.doneTry, unit.doneBy = outcome, try, n
				worker.building = -1
				worker.built(u, &job.Done{Outcome: outcome}, job.UnitBuilt)
			})
		}
		if fmt.Sprint(u) == w.conf.fails {
			publish(job.OutcomeFailed)
		} else {
			publish(job.OutcomeBuilt)
		}
		if odd("given back") {
			publish(job.OutcomeCancelled)
		}
		return all, false, nil
	}
	switch s := w.workers[n].next(w.now); s.do {
	case actWait:
		return nil, true, nil
	case actLook:
		views := [][]modelUnit{w.cache}
		if w.conf.lag && !slices.Equal(w.cache, w.old) {
			views = append(views, w.old)
		}
		for i, view := range views {
			add(fmt.Sprint("looks at ", s.units, []string{"", ", which lags"}[i]), func(c *world, worker *modelWorker) {
				for _, u := range s.units {
					worker.saw(u, w.sight(view[u]), fmt.Sprint(n), w.now)
				}
			})
		}
	case actTake:
		for _, lost := range append([]int{-1}, s.units...) {
			add(fmt.Sprint("takes ", s.units, ", but not ", lost), func(c *world, worker *modelWorker) {
				c.oddity = c.oddity || lost >= 0
				for _, u := range s.units {
					worker.took(u, u != lost && worker.state[u].done != nil)
				}
			})
		}
	case actRelease:
		add(fmt.Sprint("gives back ", s.unit), func(c *world, worker *modelWorker) {
			unit := &c.cache[s.unit]
			if unit.done != job.OutcomeBuilt {
				unit.done, unit.doneTry, unit.doneBy = job.OutcomeCancelled, s.try, n
			}
			worker.released()
		})
	case actClaim:
		unit := w.cache[s.unit]
		if s.try < unit.next {
			add(fmt.Sprint("is refused ", s.unit, " try ", s.try), func(c *world, worker *modelWorker) { worker.lost(s.unit, s.try, w.now) })
			return all, false, nil
		}
		if err := w.exclusive(n, s.unit); err != nil {
			return nil, false, err
		}
		win := func(c *world) {
			c.cache[s.unit].next, c.cache[s.unit].try, c.cache[s.unit].beat, c.cache[s.unit].owner = s.try+1, s.try, 0, n
		}
		add(fmt.Sprint("claims ", s.unit, " try ", s.try), func(c *world, worker *modelWorker) {
			win(c)
			worker.won(s.unit, s.try)
		})
		if odd("answer lost") {
			for _, saved := range []bool{true, false} {
				add(fmt.Sprint("gets no answer to the claim of ", s.unit, " ", saved), func(c *world, worker *modelWorker) {
					c.oddity = true
					if saved {
						win(c)
					}
					worker.unclear(s.unit, s.try, 0, w.now)
				})
			}
		}
	default:
		return nil, false, fmt.Errorf("worker %d does %d", n, s.do)
	}
	return all, false, nil
}

// exclusive returns an error if another worker that lives holds the unit that worker n claims, or if
// the unit was built and worker n has not found that useless. A worker holds a unit from when its
// claim is stored until its done document is.
func (w *world) exclusive(n, u int) error {
	for other := range w.workers {
		if o := w.workers[other]; other != n && !o.dead && o.holds() == u {
			return fmt.Errorf("worker %d claims unit %d, which worker %d holds", n, u, other)
		}
	}
	if unit := w.cache[u]; unit.done == job.OutcomeBuilt && !slices.Contains(w.workers[n].state[u].void, fmt.Sprint(unit.doneTry)) {
		return fmt.Errorf("worker %d claims unit %d, which is built", n, u)
	}
	return nil
}

// check returns an error unless each worker that has ended has what it needs.
func (w *world) check() error {
	for n := range w.workers {
		worker := w.workers[n]
		if !worker.ended {
			continue
		}
		worker.update()
		for u, wants := range worker.wants {
			if s := &worker.state[u]; wants && !s.had && (!s.gone || w.conf.fails == "") {
				return fmt.Errorf("worker %d has ended without unit %d", n, u)
			}
		}
	}
	return nil
}

func (w *world) over() bool {
	return !slices.ContainsFunc(w.workers, func(m *modelWorker) bool { return !m.dead && !m.ended })
}

func (w *world) holds() bool {
	return slices.ContainsFunc(w.workers, func(m *modelWorker) bool { return !m.dead && m.holds() >= 0 })
}

// key is the same for states that differ in nothing that matters. Workers of the same parity are
// alike: they claim in the same order.
func (w *world) key() string {
	straight := w.keyOf([]int{0, 1, 2})
	if w.conf.needs[2] == nil { // a helper
		return straight
	}
	return min(straight, w.keyOf([]int{2, 1, 0}))
}

func (w *world) keyOf(order []int) string {
	b := make([]byte, 0, 256)
	add := func(all ...int) {
		for _, n := range all {
			b = append(b, byte(n+1))
		}
	}
	ago := func(t time.Duration) int { return int(min(w.now-t, 9*tick) / tick) }
	ahead := func(t time.Duration) int { return int(max(t-w.now, 0) / tick) }
	truth := func(all ...bool) {
		bits := 0
		for i, t := range all {
			if t {
				bits |= 1 << i
			}
		}
		add(bits)
	}
	truth(w.crashed, w.oddity)
	for i := range w.cache {
		if w.final(i) {
			add(-1)
			continue
		}
		views := []modelUnit{w.cache[i], w.old[i]}
		if !w.conf.lag {
			views = views[:1]
		}
		for _, u := range views {
			beat, owner := 0, -1
			if u.try >= 0 { // it counts only whether it is newer than what was seen
				beat, owner = max(u.beat-w.cache[i].beat, -2)+100, slices.Index(order, u.owner)
			}
			add(u.next, u.try, beat, owner, len(u.done), u.doneTry)
		}
	}
	for _, n := range order {
		m := w.workers[n]
		truth(m.dead, m.ended)
		if m.ended {
			continue
		}
		add(m.building, m.claimed)
		if m.dead {
			continue
		}
		add(m.holding, m.try, int(m.lag/tick), ahead(m.saves.until), m.saves.count)
		for u := range m.state {
			s := &m.state[u]
			truth(s.had, s.failed != nil, s.done != nil, s.returned, s.left, s.tried, s.missed > 0)
			if s.had || s.failed != nil {
				continue
			}
			add(len(s.void), s.voided, s.try, ahead(s.due))
			if s.looked >= 0 && (m.free(u, w.now) || m.free(u, w.now+2*tick)) {
				add(min(ago(s.looked), 2))
				truth(s.looked < m.refused)
			}
			if s.try > s.voided {
				beat := 0
				if s.try == w.cache[u].try {
					beat = max(s.beat-w.cache[u].beat, -2) + 100
				}
				add(ago(s.since), beat)
			}
			if s.tried && (w.conf.lag || w.conf.oddity == "answer lost") {
				add(s.triedTry, min(ago(s.triedAt), 2))
			}
			if s.missed > 0 {
				add(int((s.missed - s.triedAt) / tick))
			}
		}
	}
	return string(b)
}
