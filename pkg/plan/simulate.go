package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// Costs are the times of what a job does apart from building, in seconds.
type Costs struct {
	Start  float64 // until a runner has begun
	Claim  float64 // to win a claim
	Give   float64 // to send the pack of a unit, and to say that it is done
	Notice float64 // until a job that waits sees that a unit is done
	Take   float64 // to fetch a unit
}

// ExpectedCosts are those of GitHub's runners and cache, about.
var ExpectedCosts = Costs{Start: 40, Claim: 0.5, Give: 1, Notice: 1.5, Take: 1}

// inlineSeconds is the longest time of a unit whose outputs are small enough for the document of the
// hand-over, about: a package that takes a minute has some megabytes.
const inlineSeconds = 90

// A Rest is what an entry builds itself and no unit has, in seconds: that which needs no unit, and
// that which needs some.
type Rest struct{ Before, After float64 }

// Rests returns those of entries.
func (m *Missing) Rests(entries []job.Entry, units []job.Unit) []Rest {
	if m.Count() == 0 {
		return make([]Rest, len(entries))
	}
	return newGraph(m, entries).rests(units)
}

func (g *graph) rests(units []job.Unit) []Rest {
	in := make([]bool, len(g.paths))
	for i := range units {
		for _, drv := range units[i].Drvs {
			in[g.numbers[drv]] = true
		}
	}
	return g.restsBeside(in)
}

// restsBeside returns the rests if units have the derivations in.
func (g *graph) restsBeside(in []bool) []Rest {
	needsUnit := make([]bool, len(g.paths))
	byClass := make([]Rest, len(g.needers))
	for _, n := range g.order {
		needsUnit[n] = in[n]
		for _, input := range g.inputs[n] {
			needsUnit[n] = needsUnit[n] || needsUnit[input]
		}
		switch of := &byClass[g.class[n]]; {
		case in[n]:
		case needsUnit[n]:
			of.After += g.seconds[n]
		default:
			of.Before += g.seconds[n]
		}
	}
	rests := make([]Rest, len(g.entries))
	for class, rest := range byClass {
		for e := range g.needers[class].members() {
			rests[e].Before += rest.Before
			rests[e].After += rest.After
		}
	}
	return rests
}

// A Run is what a simulation says about the jobs of a run. Times are in seconds.
type Run struct {
	Makespan float64   // until the last entry is finished
	Worked   float64   // of all jobs, to build
	Waited   float64   // of all jobs, with nothing to do
	Billed   float64   // of all jobs, from begin to end
	Jobs     []float64 // likewise, of each entry's
	Takes    []int     // how often each unit is fetched
	Created  []Creation
}

// A Creation is that of a key of the cache for a unit.
type Creation struct {
	Time float64
	Unit int
}

// Busiest returns the creations of the busiest minute.
func (r *Run) Busiest() []Creation {
	slices.SortStableFunc(r.Created, func(a, b Creation) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Unit, b.Unit)) })
	var busiest []Creation
	first := 0
	for last := range r.Created {
		for r.Created[first].Time <= r.Created[last].Time-60 {
			first++
		}
		if minute := r.Created[first : last+1]; len(minute) > len(busiest) {
			busiest = minute
		}
	}
	return busiest
}

// Simulate runs the jobs of entries and helpers, in their order and at most atOnce at the same time
// (0 is all), on the units of a Plan: an idle job takes the units that are done and that it needs,
// claims the ready one with the longest tail that it needs, else builds its rest, else waits. When its targets
// are done it claims what others need, as helpers do, as long as something is ready. Nothing fails. beat is Plan.Beat.
func Simulate(entries []job.Entry, units []job.Unit, rests []Rest, costs Costs, atOnce, beat int) *Run {
	s := &simulation{
		units: units, costs: costs, beat: float64(beat), workers: make([]worker, len(entries)), waits: make([]int, len(units)),
		dependants: make([][]int, len(units)), teams: make([][]*team, len(units)), done: make([]bool, len(units)), claimed: make([]bool, len(units)),
		run: &Run{Takes: make([]int, len(units)), Jobs: make([]float64, len(entries))},
	}
	teams := map[string]*team{}
	for i := range entries {
		key := runnerOf(&entries[i])
		if teams[key] == nil {
			teams[key] = &team{}
		}
		w := &s.workers[i]
		*w = worker{team: teams[key], helper: entries[i].Helper, limited: entries[i].Timeout > 0, needs: newSet(len(units)), has: newSet(len(units))}
		if i < len(rests) {
			w.rest = rests[i]
		}
	}
	for i := range units {
		u := &units[i]
		for _, e := range u.Direct {
			s.workers[e].needs.add(i)
			s.workers[e].missing++
		}
		for _, e := range u.For {
			w := &s.workers[e]
			if !slices.Contains(s.teams[i], w.team) {
				s.teams[i] = append(s.teams[i], w.team)
				w.team.open++
			}
		}
		s.waits[i] = len(u.After)
		for _, before := range u.After {
			s.dependants[before] = append(s.dependants[before], i)
		}
		if len(u.After) == 0 {
			s.ready(i)
		}
	}
	s.queued = len(entries)
	if atOnce <= 0 {
		atOnce = len(entries)
	}
	for range min(atOnce, len(entries)) {
		s.start(0)
	}
	for len(s.events) > 0 {
		next := s.events.pop()
		switch {
		case next.unit >= 0:
			s.end(next.unit, next.time)
		case next.unit == leave:
			s.leave(next.worker, next.time)
		default:
			s.idle(next.worker, next.time)
		}
	}
	return s.run
}

// runnerOf returns a text for the runner of an entry.
func runnerOf(e *job.Entry) string {
	emulated := ""
	if e.QEMU {
		emulated = " emulated"
	}
	return e.System + " " + strings.Join(e.Runner, ",") + emulated
}

// A team are the jobs on equal runners.
type team struct {
	ready heap[readyUnit] // that they can build
	open  int             // units that nobody has claimed
}

// A readyUnit can be claimed. The one with the longest tail comes first.
type readyUnit struct {
	tail float64
	unit int
}

func (a readyUnit) before(b readyUnit) bool {
	return a.tail > b.tail || a.tail == b.tail && a.unit < b.unit
}

type worker struct {
	team     *team
	own      heap[readyUnit] // that it needs
	helper   bool
	limited  bool // it helps nobody
	rest     Rest
	needs    set
	missing  int // units that it needs and does not have
	has      set
	seen     int     // of the units that are done
	begun    float64 // the time
	waits    float64 // since then
	leaves   float64 // the time, unless it gets something to do before
	finished bool
}

type simulation struct {
	units      []job.Unit
	costs      Costs
	beat       float64
	workers    []worker
	queued     int       // workers that have not begun
	waits      []int     // units before each that are not done
	dependants [][]int   // units after each
	teams      [][]*team // that can build each
	claimed    []bool
	done       []bool
	finished   []int // the units that are done, in this order
	events     heap[event]
	parked     []int // workers that wait
	run        *Run
}

// ready lets teams have a unit.
func (s *simulation) ready(unit int) {
	is := readyUnit{s.units[unit].Tail, unit}
	for _, t := range s.teams[unit] {
		t.ready.push(is)
	}
	for _, e := range s.units[unit].For {
		s.workers[e].own.push(is)
	}
}

// start begins the next job.
func (s *simulation) start(now float64) {
	if s.queued == 0 {
		return
	}
	w := len(s.workers) - s.queued
	s.queued--
	s.workers[w].begun = now
	s.at(now+s.costs.Start, w)
}

// at has a worker be idle at a time.
func (s *simulation) at(time float64, worker int) {
	s.events.push(event{time: time, worker: worker, unit: -1})
}

// end notes that a unit is done, which those who wait see.
func (s *simulation) end(unit int, now float64) {
	s.done[unit] = true
	s.finished = append(s.finished, unit)
	for _, dependant := range s.dependants[unit] {
		if s.waits[dependant]--; s.waits[dependant] == 0 {
			s.ready(dependant)
		}
	}
	for _, w := range s.parked {
		s.at(now+s.costs.Notice, w)
		s.run.Waited += now + s.costs.Notice - s.workers[w].waits
	}
	s.parked = s.parked[:0]
}

// idle has a worker do something.
func (s *simulation) idle(number int, now float64) {
	w := &s.workers[number]
	for ; w.seen < len(s.finished); w.seen++ {
		if unit := s.finished[w.seen]; w.needs.has(unit) && !w.has.has(unit) {
			now += s.take(w, unit)
		}
	}
	from := &w.own
	if w.helper || w.finished && !w.limited {
		from = &w.team.ready
	}
	if unit, ok := s.claim(from); ok {
		w.leaves = 0
		s.at(s.build(w, unit, now), number)
		return
	}
	if w.rest.Before > 0 {
		s.run.Worked += w.rest.Before
		s.at(now+w.rest.Before, number)
		w.rest.Before = 0
		return
	}
	if !w.finished && !w.helper && w.missing == 0 {
		w.finished = true
		now += w.rest.After
		s.run.Worked += w.rest.After
		s.run.Makespan = max(s.run.Makespan, now)
		s.at(now, number)
		return
	}
	if !w.finished && !w.helper {
		s.park(number, now)
		return
	}
	if w.leaves == 0 {
		w.leaves = now + patience(w.helper)
	}
	if w.team.open > 0 && now < w.leaves {
		s.park(number, now)
		s.events.push(event{time: w.leaves, worker: number, unit: leave})
		return
	}
	s.leaves(number, now)
}

// leaves notes that a job ends, after which the next one begins.
func (s *simulation) leaves(number int, now float64) {
	s.run.Jobs[number] = now - s.workers[number].begun
	s.run.Billed += s.run.Jobs[number]
	s.start(now)
}

// patience returns how long a job waits for a unit of others, in seconds; see package claim.
func patience(helper bool) float64 {
	if helper {
		return 300
	}
	return 0
}

// park has a worker wait for the end of a unit.
func (s *simulation) park(number int, now float64) {
	s.workers[number].waits = now
	s.parked = append(s.parked, number)
}

// leave ends a worker that has nothing to do and has waited long enough.
func (s *simulation) leave(number int, now float64) {
	w := &s.workers[number]
	if i := slices.Index(s.parked, number); i >= 0 && w.leaves == now {
		s.parked = slices.Delete(s.parked, i, i+1)
		s.run.Waited += now - w.waits
		s.leaves(number, now)
	}
}

// claim returns the ready unit with the longest tail. ok is false if there is none.
func (s *simulation) claim(from *heap[readyUnit]) (unit int, ok bool) {
	for len(*from) > 0 {
		unit := from.pop().unit
		if !s.claimed[unit] {
			s.claimed[unit] = true
			for _, t := range s.teams[unit] {
				t.open--
			}
			return unit, true
		}
	}
	return 0, false
}

// build returns the time at which a worker has handed over a unit.
func (s *simulation) build(w *worker, unit int, now float64) float64 {
	u := &s.units[unit]
	s.create(unit, now)
	now += s.costs.Claim
	for _, before := range u.After {
		if !w.has.has(before) {
			now += s.take(w, before)
		}
	}
	for beat := now + s.beat; s.beat > 0 && beat < now+u.Seconds; beat += s.beat {
		s.create(unit, beat)
	}
	now += u.Seconds + s.costs.Give
	s.create(unit, now) // that it is done, with a small pack
	if u.Seconds > inlineSeconds {
		s.create(unit, now) // the pack
	}
	s.run.Worked += u.Seconds
	s.get(w, unit)
	s.events.push(event{time: now, worker: -1, unit: unit})
	return now
}

func (s *simulation) create(unit int, at float64) {
	s.run.Created = append(s.run.Created, Creation{at, unit})
}

// take fetches a unit that is done, and returns how long that takes.
func (s *simulation) take(w *worker, unit int) float64 {
	s.get(w, unit)
	s.run.Takes[unit]++
	return s.costs.Take
}

func (s *simulation) get(w *worker, unit int) {
	w.has.add(unit)
	if w.needs.has(unit) {
		w.missing--
	}
}

// An event is the end of a unit, or a worker that is idle, for which the unit is -1, or leaves.
type event struct {
	time         float64
	worker, unit int
}

// leave is the unit of the event that a worker leaves.
const leave = -2

func (a event) before(b event) bool {
	if a.time != b.time {
		return a.time < b.time
	}
	return cmp.Or(cmp.Compare(a.worker, b.worker), cmp.Compare(a.unit, b.unit)) < 0
}
