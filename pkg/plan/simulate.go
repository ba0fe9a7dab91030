package plan

import (
	"cmp"
	"container/heap"
	"math"
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
var ExpectedCosts = Costs{Start: 40, Claim: 0.5, Give: 2, Notice: 4, Take: 1.5}

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
	Makespan float64 // until the last entry is finished
	Worked   float64 // of all jobs, to build
	Waited   float64 // of all jobs, with nothing to do
	Billed   float64 // of all jobs, from begin to end
	Takes    []int   // how often each unit is fetched
	Created  []Creation
}

// A Creation is that of a key of the cache for a unit.
type Creation struct {
	Time float64
	Unit int
}

// Busiest returns the creations of the busiest minute.
func (r *Run) Busiest() []Creation {
	slices.SortFunc(r.Created, func(a, b Creation) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Unit, b.Unit)) })
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
// claims the ready one with the longest tail, else builds its rest, else waits. Nothing fails. beat
// is Plan.Beat.
func Simulate(entries []job.Entry, units []job.Unit, rests []Rest, costs Costs, atOnce, beat int) *Run {
	s := &simulation{
		units: units, costs: costs, beat: float64(beat), workers: make([]worker, len(entries)), waits: make([]int, len(units)),
		dependants: make([][]int, len(units)), teams: make([][]*team, len(units)), done: make([]bool, len(units)), claimed: make([]bool, len(units)),
		run: &Run{Takes: make([]int, len(units))},
	}
	teams := map[string]*team{}
	for i := range entries {
		key := runnerOf(&entries[i])
		if teams[key] == nil {
			teams[key] = &team{units: units}
		}
		w := &s.workers[i]
		*w = worker{team: teams[key], helper: entries[i].Helper, needs: newSet(len(units)), has: newSet(len(units))}
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
		next := heap.Pop(&s.events).(event) //nolint:forcetypeassert // there is nothing else
		if next.unit >= 0 {
			s.end(next.unit, next.time)
		} else {
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

// A team are the jobs on equal runners, with the ready units that they can build, by their tails.
type team struct {
	units []job.Unit
	ready []int
	open  int // units that nobody has claimed
}

func (t *team) Len() int { return len(t.ready) }
func (t *team) Less(i, j int) bool {
	a, b := t.ready[i], t.ready[j]
	return cmp.Or(cmp.Compare(t.units[b].Tail, t.units[a].Tail), cmp.Compare(a, b)) < 0
}
func (t *team) Swap(i, j int) { t.ready[i], t.ready[j] = t.ready[j], t.ready[i] }
func (t *team) Push(x any)    { t.ready = append(t.ready, x.(int)) } //nolint:forcetypeassert // there is nothing else
func (t *team) Pop() any {
	last := t.ready[len(t.ready)-1]
	t.ready = t.ready[:len(t.ready)-1]
	return last
}

type worker struct {
	team     *team
	helper   bool
	rest     Rest
	needs    set
	missing  int // units that it needs and does not have
	has      set
	seen     int     // of the units that are done
	begun    float64 // the time
	waits    float64 // since then
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
	events     events
	parked     []int // workers that wait
	run        *Run
}

// ready lets teams have a unit.
func (s *simulation) ready(unit int) {
	for _, t := range s.teams[unit] {
		heap.Push(t, unit)
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
	heap.Push(&s.events, event{time: time, worker: worker, unit: -1})
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
	if unit, ok := s.claim(w.team); ok {
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
	if !w.finished && !w.helper || w.team.open > 0 {
		w.waits = now
		s.parked = append(s.parked, number)
		return
	}
	s.run.Billed += now - w.begun
	s.start(now)
}

// claim returns the ready unit with the longest tail. ok is false if there is none.
func (s *simulation) claim(t *team) (unit int, ok bool) {
	for len(t.ready) > 0 {
		unit := heap.Pop(t).(int) //nolint:forcetypeassert // there is nothing else
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
	s.create(unit, now) // the pack
	s.create(unit, now) // that it is done
	s.run.Worked += u.Seconds
	s.get(w, unit)
	heap.Push(&s.events, event{time: now, worker: -1, unit: unit})
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

// An event is the end of a unit, or a worker that is idle; the other is -1.
type event struct {
	time         float64
	worker, unit int
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	a, b := e[i], e[j]
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.worker, b.worker), cmp.Compare(a.unit, b.unit)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) } //nolint:forcetypeassert // there is nothing else
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// Bound returns what no number of jobs, and not so many, can be faster than: the longest way
// through the graph, and the work shared evenly, without the start of a runner.
func (m *Missing) Bound(jobs int) float64 {
	path, work := m.Path()
	return math.Max(path, work/float64(max(1, jobs)))
}

// Path returns the length of the longest way through the graph, and the work of all derivations
// once, in seconds.
func (m *Missing) Path() (path, work float64) {
	if m == nil {
		return 0, 0
	}
	for n, end := range m.earliest() {
		path = max(path, end)
		work += m.seconds[n]
	}
	return path, work
}

// earliest returns when each derivation ends at the earliest, in seconds.
func (m *Missing) earliest() []float64 {
	ends := make([]float64, len(m.paths))
	for _, n := range m.order {
		for _, input := range m.inputs[n] {
			ends[n] = max(ends[n], ends[input])
		}
		ends[n] += m.seconds[n]
	}
	return ends
}
