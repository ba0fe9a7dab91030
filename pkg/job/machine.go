package job

import (
	"cmp"
	"fmt"
	"time"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/internal/valid"
)

// A Machine is the runner of a job of GitHub Actions, as the job itself sees it.
type Machine struct {
	OS     string `json:"os"`   // GitHub's name for it, such as Linux
	Arch   string `json:"arch"` // likewise, such as X64 or ARM64
	Hosted bool   `json:"hosted"`
	Cores  int    `json:"cores,omitempty"`
	// Began is when the runner began the job, before any of its steps; zero if unknown.
	Began time.Time `json:"began,omitzero"`
}

func (m *Machine) check() error {
	const longest, mostCores = 64, 1 << 16
	if m == nil {
		return nil
	}
	if m.Cores < 0 || m.Cores > mostCores {
		return fmt.Errorf("it has %d cores", m.Cores)
	}
	return cmp.Or(valid.Line(m.OS, longest), valid.Line(m.Arch, longest))
}

// Billing returns the machine with the labels of its job, for its price.
func (m *Machine) Billing(labels []string) billing.Machine {
	os := m.OS
	switch os {
	case billing.Linux, billing.Windows, billing.MacOS:
	default:
		os = "" // foreign text
	}
	return billing.Machine{OS: os, ARM: m.Arch == "ARM64", Hosted: m.Hosted, Own: !m.Hosted, Cores: m.Cores, Labels: labels}
}

// Since returns when the machine began its job, if that is at most a day before another time of it, else
// that time.
func (m *Machine) Since(started time.Time) time.Time {
	const day = 24 * time.Hour
	if m.Began.IsZero() || m.Began.After(started) || started.Sub(m.Began) > day {
		return started
	}
	return m.Began
}

// Saved is the time of builds that a run does without, as far as earlier runs have left their times.
type Saved struct {
	// Skipped counts the targets that the Plan skips because they are built, and SkippedUnknown those of
	// them whose time is unknown. SkippedSeconds is that of the others: of a host the job that built it
	// the last time, of another target its own derivation.
	Skipped        int     `json:"skipped,omitempty"`
	SkippedSeconds float64 `json:"skippedSeconds,omitempty"`
	SkippedUnknown int     `json:"skippedUnknown,omitempty"`
	// ReusedSeconds is the time of builds by earlier runs whose outputs the entries need and take from
	// a cache.
	ReusedSeconds float64 `json:"reusedSeconds,omitempty"`
}

func (s *Saved) check() error {
	if s == nil {
		return nil
	}
	if s.Skipped < 0 || s.SkippedUnknown < 0 || s.SkippedUnknown > s.Skipped {
		return fmt.Errorf("%d of %d targets have no time", s.SkippedUnknown, s.Skipped)
	}
	return cmp.Or(seconds(s.SkippedSeconds), seconds(s.ReusedSeconds))
}

// AddSkipped adds the targets that are skipped because they are built, with the times in a Record, which
// may be nil. emulated reports whether a system is emulated.
func (s *Saved) AddSkipped(targets []Target, r *Record, emulated func(system string) bool) {
	jobs := map[string]bool{} // of hosts
	for i := range targets {
		t := &targets[i]
		if t.State != StateSkip || !t.Available && !t.Proved {
			continue
		}
		s.Skipped++
		took := 0.0
		if r != nil {
			took = r.Seconds[TimeKey(t.DrvPath, t.System, emulated(t.System))]
		}
		if t.Kind.IsHost() {
			name := t.entryName()
			if jobs[name] {
				continue // all of a node share a job
			}
			jobs[name] = true
			if took = 0; r != nil {
				took = r.Entries[EntryKey(name, t.System, emulated(t.System))].Seconds
			}
		}
		if took > 0 {
			s.SkippedSeconds += took
		} else {
			s.SkippedUnknown++
		}
	}
}
