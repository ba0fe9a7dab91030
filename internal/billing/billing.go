// Package billing knows how GitHub bills the time of runners, as of November 2026:
// https://docs.github.com/billing/reference/actions-runner-pricing
//
// Each job is rounded up to whole minutes. Minutes of standard runners count against those that an
// account has free, those of Windows twice and those of macOS ten times; they cost nothing in a public
// repository. Larger runners cost money anywhere, by their size. A runner of one's own costs GitHub's
// customers nothing.
package billing

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// The operating systems of runners, as GitHub's variable RUNNER_OS names them.
const (
	Linux   = "Linux"
	Windows = "Windows"
	MacOS   = "macOS"
)

// A Machine is a runner, as far as is known: the zero value says nothing.
type Machine struct {
	OS     string   // Linux, Windows or MacOS
	ARM    bool     // it has ARM processors
	Hosted bool     // GitHub hosts it
	Own    bool     // somebody else does
	Cores  int      // 0 is unknown
	Labels []string // of runs-on, as far as known
}

// A Kind is a kind of runner that GitHub bills alike.
type Kind struct {
	Name   string
	Factor float64 // as many minutes of a standard Linux runner cost as much as one of it
	Larger bool    // it costs money in a public repository, too
	Own    bool    // it is none of GitHub's
	Known  bool    // the Factor is; else it is 1
}

// standardLabel matches the labels of standard runners.
var standardLabel = lazyregexp.New(`^(?:ubuntu-(?:latest|\d+\.\d+(?:-arm)?)|windows-(?:latest|\d+(?:-arm)?)|macos-(?:latest|\d+(?:-intel)?))$`)

// coresLabel matches the size in the label of a larger runner, as GitHub's own examples write it.
var coresLabel = lazyregexp.New(`(?:^|-)(\d{1,3})-?cores?(?:-|$)`)

// KindOf returns the kind of a machine, of which everything or only the labels may be known.
func KindOf(m Machine) Kind {
	label := ""
	if len(m.Labels) == 1 {
		label = m.Labels[0]
	}
	switch {
	case m.Own || slices.Contains(m.Labels, "self-hosted"):
		return Kind{Name: "self-hosted", Own: true, Known: true}
	case label == "ubuntu-slim":
		return Kind{Name: Linux + " 1-core", Factor: slimRate / linuxRate, Known: true}
	case standardLabel().MatchString(label):
		return standard(labelOS(label), strings.HasSuffix(label, "-arm"))
	case label == "" && m.Hosted && m.Cores <= mostStandard:
		return standard(m.OS, m.ARM)
	case !m.Hosted && labelOS(label) == "":
		return Kind{Name: "other runners", Factor: 1}
	}
	os, cores := cmp.Or(m.OS, labelOS(label)), m.Cores
	arm := m.ARM || strings.Contains(label, "arm")
	if os == MacOS {
		arm = strings.Contains(label, "xlarge") || !strings.Contains(label, "large") && m.ARM
	}
	if found := coresLabel().FindStringSubmatch(label); found != nil && cores == 0 {
		cores, _ = strconv.Atoi(found[1]) // a short number
	}
	return larger(os, arm, cores)
}

// mostStandard is the most cores of a standard runner, which those of public repositories have.
const mostStandard = 4

// labelOS returns the operating system that a label of GitHub's begins with, else "".
func labelOS(label string) string {
	name, _, _ := strings.Cut(label, "-")
	return map[string]string{"ubuntu": Linux, "linux": Linux, "windows": Windows, "macos": MacOS}[name]
}

func standard(os string, arm bool) Kind {
	k := Kind{Name: cmp.Or(os, "hosted"), Factor: map[string]float64{Linux: 1, Windows: 2, MacOS: 10}[os], Known: true}
	if k.Factor == 0 {
		k.Factor, k.Known = 1, false
	}
	if arm && os != MacOS {
		k.Name += " arm64"
	}
	return k
}

// rates are tenths of cents for a minute, by operating system and cores.
var rates = map[string]map[int]float64{
	Linux:              {2: 6, 4: 12, 8: 22, 16: 42, 32: 82, 64: 162, 96: 252},
	Linux + " arm64":   {2: 5, 4: 8, 8: 14, 16: 26, 32: 50, 64: 98},
	Windows:            {4: 22, 8: 42, 16: 82, 32: 162, 64: 322, 96: 552},
	Windows + " arm64": {2: 8, 4: 14, 8: 26, 16: 50, 32: 98, 64: 194},
	MacOS:              {12: 77},
	MacOS + " arm64":   {5: 102, 6: 102},
}

const (
	linuxRate = 6.0 // of a standard Linux runner
	slimRate  = 2.0 // of one with a single core
)

func larger(os string, arm bool, cores int) Kind {
	name := cmp.Or(os, "hosted")
	if arm {
		name += " arm64"
	}
	k := Kind{Name: name + ", larger", Factor: 1, Larger: true}
	if os == MacOS && cores == 0 { // there is one of each
		cores = 12
		if arm {
			cores = 5
		}
	}
	if cores > 0 {
		k.Name = fmt.Sprintf("%s %d-core", name, cores)
	}
	if rate := rates[name][cores]; rate > 0 {
		k.Factor, k.Known = rate/linuxRate, true
	}
	return k
}

// Minutes returns the minutes that a job is billed for: at least one.
func Minutes(d time.Duration) int { return max(1, int(math.Ceil(d.Minutes()))) }

// A Line is the bill for the jobs on a kind of runner.
type Line struct {
	Runner  string  `json:"runner"`           // the kind
	Jobs    int     `json:"jobs"`             // on it
	Minutes int     `json:"minutes"`          // each job rounded up
	Factor  float64 `json:"factor"`           // 0 for runners that are not GitHub's
	Billed  float64 `json:"billed"`           // minutes of a standard Linux runner that cost as much
	Larger  bool    `json:"larger,omitempty"` // costs money in a public repository, too
	Unknown bool    `json:"unknown,omitempty"`
}

// A Bill has a line for each kind of runner.
type Bill struct {
	Lines  []Line  `json:"lines"`
	Billed float64 `json:"billed"` // of all lines
}

// Add adds a job on a machine.
func (b *Bill) Add(m Machine, took time.Duration) {
	k := KindOf(m)
	i := slices.IndexFunc(b.Lines, func(l Line) bool { return l.Runner == k.Name })
	if i < 0 {
		i = len(b.Lines)
		b.Lines = append(b.Lines, Line{Runner: k.Name, Factor: k.Factor, Larger: k.Larger, Unknown: !k.Known})
	}
	l, minutes := &b.Lines[i], Minutes(took)
	l.Jobs, l.Minutes = l.Jobs+1, l.Minutes+minutes
	l.Billed += float64(minutes) * k.Factor
	b.Billed += float64(minutes) * k.Factor
}
