package plan

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	// claimSeconds is the least time of a unit. A claim costs two requests of some 250 ms, and the
	// hand-over a pack that is sent once and read by all others.
	claimSeconds = 10
	// grainSeconds is the least time that a unit should have, so that this costs little.
	grainSeconds = 30
	// maxUnits is the most units of all systems together. The time to cut grows with their number
	// times that of derivations, which therefore is at most maxBits.
	maxUnits = 1024
	maxBits  = 32_000_000
	// rounds is how many units each job gets to take, one after another, if the graph allows it: with
	// fewer, jobs wait longer for the end of one. See docs/performance.md.
	rounds = 16
)

// A graph has what is needed to cut the missing derivations of entries into units.
type graph struct {
	*Missing
	entries      []job.Entry
	entrySystems []string // of all entries, sorted
	dependants   [][]int32
	class        []int32  // of each derivation: those of a class are needed by the same entries
	needers      []set    // by class
	systems      []string // of all needers, by class, empty if they have several
	whole        []bool   // the derivation and all that it needs can be handed over
	isTarget     []bool
	tail         []float64 // seconds from its beginning to the end of a target
}

// newGraph returns the graph of the missing derivations of entries.
func newGraph(m *Missing, entries []job.Entry) *graph {
	g := &graph{
		Missing:    m,
		entries:    entries,
		dependants: make([][]int32, len(m.paths)),
		class:      make([]int32, len(m.paths)),
		whole:      make([]bool, len(m.paths)),
		isTarget:   make([]bool, len(m.paths)),
		tail:       make([]float64, len(m.paths)),
	}
	for i := range entries {
		g.entrySystems = append(g.entrySystems, entries[i].System)
		for _, t := range entries[i].Targets {
			if n, ok := m.numbers[t.DrvPath]; ok {
				g.isTarget[n] = true
			}
		}
	}
	slices.Sort(g.entrySystems)
	g.entrySystems = slices.Compact(g.entrySystems)
	for _, n := range m.order {
		g.whole[n] = m.outputs[n] != nil
		for _, input := range m.inputs[n] {
			g.whole[n] = g.whole[n] && g.whole[input]
			g.dependants[input] = append(g.dependants[input], n)
		}
	}
	classes := map[string]int32{}
	for n, by := range m.neededByEntries(entries) {
		key := by.key()
		class, ok := classes[key]
		if !ok {
			class = int32(len(g.needers)) //nolint:gosec // there are not so many
			classes[key] = class
			g.needers, g.systems = append(g.needers, by), append(g.systems, systemOf(entries, by))
		}
		g.class[n] = class
	}
	for _, n := range slices.Backward(m.order) {
		for _, dependant := range g.dependants[n] {
			g.tail[n] = max(g.tail[n], g.tail[dependant])
		}
		g.tail[n] += m.seconds[n]
	}
	return g
}

// mostUnits returns the most units of a system.
func (g *graph) mostUnits() int {
	const least = 16
	return max(least, min(maxUnits, maxBits/len(g.paths))/len(g.entrySystems))
}

// systemOf returns the system of entries, empty if they have several.
func systemOf(entries []job.Entry, numbers set) string {
	system := ""
	for e := range numbers.members() {
		if system != "" && entries[e].System != system {
			return ""
		}
		system = entries[e].System
	}
	return system
}

// A cluster is a set of derivations of a class, in an order in which each comes after its inputs.
type cluster struct {
	drvs    []int32
	seconds float64
	saves   float64 // seconds of all who would build it
}

// A cutting is the work of jobs of one system that begin at once, of which each takes a cluster
// when it is idle. The clusters come about as it goes on: a job takes the derivation
// with the longest tail of those whose inputs are finished, and adds to it what then can be
// built. So a cluster needs only those that were finished when it began, and there is no circle.
type cutting struct {
	*graph
	system  string
	private bool    // derivations that only one entry needs are cut too
	grain   float64 // seconds of a cluster, unless a part of it is heavier
	idle    int     // jobs

	waits   []int32 // inputs of each derivation that are not finished
	taken   []bool
	ready   queue
	count   int // derivations that are ready
	byClass map[int32]*queue
	running timetable
	now     float64
	all     []*cluster

	// Of the cluster that is being made:
	got    map[int32]int32 // inputs that are in it, by derivation outside of it
	open   int             // derivations that need some of it, and are not in it
	within queue           // derivations that can be added
}

// cut returns the clusters of a system that are worth a claim, each after those that it needs, for a
// number of jobs.
func (g *graph) cut(system string, jobs int, private bool) []*cluster {
	c := &cutting{
		graph: g, system: system, private: private, idle: jobs,
		waits: make([]int32, len(g.paths)), taken: make([]bool, len(g.paths)), byClass: map[int32]*queue{}, got: map[int32]int32{},
	}
	for _, q := range []*queue{&c.ready, &c.within} {
		q.tail = g.tail
	}
	work := 0.0
	for n := range g.paths {
		c.waits[n] = int32(len(g.inputs[n])) //nolint:gosec // there are not so many
		if c.cuts(int32(n)) {
			work += g.seconds[n]
		}
	}
	busy := min(float64(jobs), 2*work/max(1, slices.Max(g.tail))) // jobs at once, if the graph allows it
	least := float64(claimSeconds)
	if g.hasTimes { // else each may take far longer than is expected
		least = grainSeconds
	}
	c.grain = max(least, 3*busy, work/float64(rounds*jobs), work/float64(g.mostUnits()*3/4))
	for _, n := range g.order {
		if len(g.inputs[n]) == 0 {
			c.finished(n)
		}
	}
	for {
		for c.idle > 0 {
			if !c.begin() {
				break
			}
		}
		if len(c.running) == 0 {
			return slices.DeleteFunc(c.all, func(c *cluster) bool { return c.seconds < claimSeconds })
		}
		c.end()
	}
}

// cuts reports whether a derivation can be in a cluster. Others are nobody's: they are built, in no
// time, wherever they are needed.
func (c *cutting) cuts(n int32) bool {
	class := c.class[n]
	return c.seconds[n] > 0 && c.whole[n] && c.systems[class] == c.system && (c.private || c.needers[class].count() > 1)
}

// finished notes that the inputs of a derivation are finished. It is ready, or finished
// itself if it is nobody's.
func (c *cutting) finished(n int32) {
	if !c.cuts(n) {
		c.release(n)
		return
	}
	if c.taken[n] { // with its inputs
		return
	}
	c.count++
	heap.Push(&c.ready, n)
	class := c.class[n]
	if c.byClass[class] == nil {
		c.byClass[class] = &queue{tail: c.tail}
	}
	heap.Push(c.byClass[class], n)
}

// release notes that a derivation is finished.
func (c *cutting) release(n int32) {
	for _, dependant := range c.dependants[n] {
		if c.waits[dependant]--; c.waits[dependant] == 0 {
			c.finished(dependant)
		}
	}
}

// begin makes the next cluster. It reports whether something was ready.
func (c *cutting) begin() bool {
	first, ok := c.ready.next(c.taken)
	if !ok {
		return false
	}
	made := &cluster{}
	clear(c.got)
	c.open, c.within.drvs = 0, c.within.drvs[:0]
	same := c.byClass[c.class[first]]
	for n, ok := first, true; ok; n, ok = c.more(made, same) {
		c.taken[n] = true
		if c.waits[n] == 0 {
			c.count--
		}
		made.drvs, made.seconds = append(made.drvs, n), made.seconds+c.seconds[n]
		c.enter(n)
	}
	made.saves = made.seconds * float64(c.needers[c.class[first]].count())
	c.all = append(c.all, made)
	if made.seconds >= claimSeconds {
		c.idle--
	}
	heap.Push(&c.running, span{c.now + made.seconds, len(c.all) - 1})
	return true
}

// enter notes that a derivation is in the cluster, or can be built with it.
func (c *cutting) enter(n int32) {
	if c.got[n] > 0 {
		c.open--
	}
	for _, dependant := range c.dependants[n] {
		if c.got[dependant]++; c.got[dependant] == 1 {
			c.open++
		}
		if c.got[dependant] < c.waits[dependant] {
			continue
		}
		if c.cuts(dependant) {
			heap.Push(&c.within, dependant)
		} else {
			c.enter(dependant)
		}
	}
}

// more returns a derivation that is to be added: one that needs the cluster, else one
// that is ready and of the same class, while another job has no use for it.
func (c *cutting) more(made *cluster, same *queue) (int32, bool) {
	fits := func(n int32) bool { return made.seconds+c.seconds[n] <= c.grain || made.seconds < claimSeconds }
	class := c.class[made.drvs[0]]
	for {
		n, ok := c.within.next(c.taken)
		if !ok {
			break
		}
		// Where nothing else waits for the cluster, nobody loses by its being longer.
		if c.class[n] == class && (c.open == 1 || fits(n)) {
			return n, true
		}
	}
	wanted := made.seconds < claimSeconds || c.count >= c.idle // also by other jobs
	if n, ok := same.peek(c.taken); ok && fits(n) && wanted {
		return same.next(c.taken)
	}
	return 0, false
}

// end goes on to the time at which the next cluster is finished.
func (c *cutting) end() {
	done := heap.Pop(&c.running).(span) //nolint:forcetypeassert // there is nothing else
	c.now = done.end
	made := c.all[done.number]
	if made.seconds >= claimSeconds {
		c.idle++
	}
	for _, n := range made.drvs {
		c.release(n)
	}
}

// A queue has derivations by their tails, the longest first.
type queue struct {
	drvs []int32
	tail []float64
}

func (q *queue) Len() int { return len(q.drvs) }
func (q *queue) Less(i, j int) bool {
	a, b := q.drvs[i], q.drvs[j]
	return cmp.Or(cmp.Compare(q.tail[b], q.tail[a]), cmp.Compare(a, b)) < 0
}
func (q *queue) Swap(i, j int) { q.drvs[i], q.drvs[j] = q.drvs[j], q.drvs[i] }
func (q *queue) Push(x any)    { q.drvs = append(q.drvs, x.(int32)) } //nolint:forcetypeassert // there is nothing else
func (q *queue) Pop() any {
	last := len(q.drvs) - 1
	n := q.drvs[last]
	q.drvs = q.drvs[:last]
	return n
}

// peek returns the first that is not taken.
func (q *queue) peek(taken []bool) (int32, bool) {
	for len(q.drvs) > 0 && taken[q.drvs[0]] {
		heap.Pop(q)
	}
	if len(q.drvs) == 0 {
		return 0, false
	}
	return q.drvs[0], true
}

// next removes and returns the first that is not taken.
func (q *queue) next(taken []bool) (int32, bool) {
	n, ok := q.peek(taken)
	if ok {
		heap.Pop(q)
	}
	return n, ok
}

// A span is the time of a cluster.
type span struct {
	end    float64
	number int
}

// A timetable has spans by their ends.
type timetable []span

func (t timetable) Len() int { return len(t) }
func (t timetable) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(t[i].end, t[j].end), cmp.Compare(t[i].number, t[j].number)) < 0
}
func (t timetable) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timetable) Push(x any)   { *t = append(*t, x.(span)) } //nolint:forcetypeassert // there is nothing else
func (t *timetable) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}
