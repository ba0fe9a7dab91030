package plan

import (
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	// claimSeconds is the least time of a unit. A claim costs two requests of some 250 ms, and the
	// hand-over a pack that is sent once and read by all others.
	claimSeconds = 10
	// lightSeconds is the least time of a unit that only one entry needs: each job that builds a unit after it
	// would build it again.
	lightSeconds = 1
	// grainSeconds is the least time that a unit should have, so that this costs little.
	grainSeconds = 30
	// maxUnits is the most units of all systems together. The time to cut grows with their number
	// times that of derivations, which therefore is at most maxBits.
	maxUnits = 4096
	maxBits  = 64_000_000
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
	shared       []bool   // by class: several entries need it
	systems      []string // of all needers, by class, empty if they have several
	whole        []bool   // the derivation and all that it needs can be handed over
	isTarget     []bool
	last         []bool    // of an entry, which has one target: nothing else waits for it
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
		last:       make([]bool, len(m.paths)),
		tail:       make([]float64, len(m.paths)),
	}
	for i := range entries {
		g.entrySystems = append(g.entrySystems, entries[i].System)
		for _, t := range entries[i].Targets {
			if n, ok := m.numbers[t.DrvPath]; ok {
				g.isTarget[n], g.last[n] = true, len(entries[i].Targets) == 1
			}
		}
	}
	slices.Sort(g.entrySystems)
	g.entrySystems = slices.Compact(g.entrySystems)
	for _, n := range m.order {
		g.whole[n] = m.outputs[n] != nil
		for _, input := range m.inputs[n] {
			g.whole[n] = g.whole[n] && g.whole[input]
			g.dependants[input], g.last[input] = append(g.dependants[input], n), false
		}
	}
	classes := map[string]int32{}
	for n, by := range m.neededByEntries(entries) {
		key := by.key()
		class, ok := classes[key]
		if !ok {
			class = int32(len(g.needers)) //nolint:gosec // there are not so many
			classes[key] = class
			g.needers, g.shared, g.systems = append(g.needers, by), append(g.shared, by.count() > 1), append(g.systems, systemOf(entries, by))
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
	byClass []queue
	running heap[span]
	now     float64
	all     []*cluster

	// Of the cluster that is being made:
	got    []int32 // inputs that are in it, by derivation
	counts []int32 // the derivations that have some
	open   int     // derivations that need some of it, and are not in it
	within queue   // derivations that can be added
	near   queue   // derivations that are ready, and that others need together with the cluster
}

// A manner says how to cut.
type manner struct {
	jobs    int     // that begin at once
	private bool    // what only one entry needs, too
	coarse  float64 // the size of clusters, against that which lets each job take some in turn
}

// cut returns the clusters of a system that are worth a claim, each after those that it needs.
func (g *graph) cut(system string, how manner) []*cluster {
	jobs := how.jobs
	c := &cutting{
		graph: g, system: system, private: how.private, idle: jobs,
		waits: make([]int32, len(g.paths)), taken: make([]bool, len(g.paths)), byClass: make([]queue, len(g.needers)), got: make([]int32, len(g.paths)),
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
	c.grain = max(claimSeconds, how.coarse*max(least, 3*busy, work/float64(rounds*jobs), work/float64(g.mostUnits()*3/4)))
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
			return slices.DeleteFunc(c.all, c.isLight)
		}
		c.end()
	}
}

// isLight reports whether a cluster is not worth a claim.
func (c *cutting) isLight(made *cluster) bool {
	if c.shared[c.class[made.drvs[0]]] {
		return made.seconds < claimSeconds
	}
	return made.seconds < lightSeconds
}

// cuts reports whether a derivation can be in a cluster. Others are nobody's: they are built, in no
// time, wherever they are needed.
func (c *cutting) cuts(n int32) bool {
	class := c.class[n]
	if c.seconds[n] == 0 || !c.whole[n] || c.systems[class] != c.system {
		return false
	}
	return c.shared[class] || c.private && !c.isLast(n)
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
	c.ready.push(queued{c.tail[n], n})
	c.byClass[c.class[n]].push(queued{c.tail[n], n})
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
	for _, n := range c.counts {
		c.got[n] = 0
	}
	c.counts = c.counts[:0]
	c.open, c.within.heap, c.near.heap = 0, c.within.heap[:0], c.near.heap[:0]
	same := &c.byClass[c.class[first]]
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
	c.running.push(span{c.now + made.seconds, len(c.all) - 1})
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
			c.counts = append(c.counts, dependant)
		}
		if missing := c.waits[dependant] - c.got[dependant]; missing > 0 {
			c.approach(dependant, missing)
			continue
		}
		if c.cuts(dependant) {
			c.within.push(queued{c.tail[dependant], dependant})
		} else {
			c.enter(dependant)
		}
	}
}

// approach notes what is ready of the inputs of a derivation that needs the cluster, if it lacks few: with them in
// the cluster as well, the derivation can be added.
func (c *cutting) approach(dependant, missing int32) {
	const few, inputs = 4, 64 // so that it takes little time
	if missing > few || len(c.inputs[dependant]) > inputs || !c.cuts(dependant) {
		return
	}
	for _, input := range c.inputs[dependant] {
		if c.waits[input] == 0 && !c.taken[input] && c.cuts(input) {
			c.near.push(queued{c.tail[dependant] / float64(missing), input})
		}
	}
}

// more returns a derivation that is to be added: one that needs the cluster, else one of the same class that is
// ready, and that others need together with the cluster or no other job has a use for.
func (c *cutting) more(made *cluster, same *queue) (int32, bool) {
	fits := func(n int32) bool { return made.seconds+c.seconds[n] <= c.grain || made.seconds < claimSeconds }
	class := c.class[made.drvs[0]]
	// Where nothing else waits for the cluster, nobody loses by its being longer.
	if n, ok := c.of(class, &c.within, func(n int32) bool { return c.open == 1 || fits(n) }); ok {
		return n, true
	}
	if n, ok := c.of(class, &c.near, fits); ok {
		return n, true
	}
	wanted := made.seconds < claimSeconds || c.count >= c.idle // also by other jobs
	if n, ok := same.peek(c.taken); ok && fits(n) && wanted {
		return same.next(c.taken)
	}
	return 0, false
}

// of takes derivations off a queue up to one of a class that fits, and returns that.
func (c *cutting) of(class int32, q *queue, fits func(int32) bool) (int32, bool) {
	for {
		n, ok := q.next(c.taken)
		if !ok || c.class[n] == class && fits(n) {
			return n, ok
		}
	}
}

// end goes on to the time at which the next cluster is finished.
func (c *cutting) end() {
	done := c.running.pop()
	c.now = done.end
	made := c.all[done.number]
	if made.seconds >= claimSeconds {
		c.idle++
	}
	for _, n := range made.drvs {
		c.release(n)
	}
}

// A queued derivation. The one with the longest tail comes first.
type queued struct {
	tail float64
	drv  int32
}

func (a queued) before(b queued) bool { return a.tail > b.tail || a.tail == b.tail && a.drv < b.drv }

// A queue has derivations by their tails.
type queue struct{ heap[queued] }

// peek returns the first that is not taken.
func (q *queue) peek(taken []bool) (int32, bool) {
	for len(q.heap) > 0 && taken[q.heap[0].drv] {
		q.pop()
	}
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].drv, true
}

// next removes and returns the first that is not taken.
func (q *queue) next(taken []bool) (int32, bool) {
	n, ok := q.peek(taken)
	if ok {
		q.pop()
	}
	return n, ok
}

// A span is the time of a cluster.
type span struct {
	end    float64
	number int
}

func (a span) before(b span) bool { return a.end < b.end || a.end == b.end && a.number < b.number }
