package plan

// point is the time that counts as one derivation, in seconds: the estimate for one without a
// known duration.
const point = 10

// maxPoints is the most points of a derivation: an hour.
const maxPoints = 360

// maxSeconds is the most seconds of a derivation: no job of GitHub's runs longer than six hours.
const maxSeconds = 6 * 60 * 60

// Weigh sets the durations of earlier builds of derivations, by system, in seconds; 0 is unknown.
func (m *Missing) Weigh(took func(drv, system string) float64) {
	m.hasTimes, m.known = false, 0
	for n, drv := range m.paths {
		seconds := took(drv, m.systems[n])
		m.hasTimes = m.hasTimes || seconds > 0
		m.ends[n] = max(1, int(min(seconds/point+0.5, maxPoints)))
		switch {
		case m.light[n]: // a download has the name of many others
			m.seconds[n] = 0
			m.known++
		case seconds > 0:
			m.seconds[n] = min(seconds, maxSeconds)
			m.known++
		default:
			m.seconds[n] = point
		}
	}
	m.accumulate()
}

// Reused returns the time that earlier builds of the Available outputs took, by the durations of builds
// of derivations. Those of unknown duration, such as all that only a public cache has built, count
// nothing, and so do their own dependencies.
func (m *Missing) Reused(took func(drv, system string) float64) (seconds float64) {
	for drv, system := range m.available {
		seconds += min(took(drv, system), maxSeconds)
	}
	return seconds
}

// Seconds returns the expected duration of a missing derivation, 0 for a trifle.
func (m *Missing) Seconds(drv string) float64 {
	if n, ok := m.numbers[drv]; ok {
		return m.seconds[n]
	}
	return 0
}

// accumulate turns the points of each derivation into ends.
func (m *Missing) accumulate() {
	end := 0
	for n := range m.ends {
		end += m.ends[n]
		m.ends[n] = end
	}
}

// points returns those of all derivations together.
func (m *Missing) points() int {
	if len(m.ends) == 0 {
		return 0
	}
	return m.ends[len(m.ends)-1]
}
