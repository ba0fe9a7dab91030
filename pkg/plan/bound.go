package plan

import "math"

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
