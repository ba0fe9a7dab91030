package realise

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

const (
	logLines  = 25   // of a failed derivation that are kept
	lineBytes = 2000 // of each
)

// watch collects the events of a build.
type watch struct {
	running  map[string]time.Time
	local    map[string]bool // whether the last build was not on a remote builder
	finished []job.DrvBuild
	built    map[string]bool
	// interrupted are the builds that ended after a stop was requested: they may have no
	// outputs although they did not fail.
	interrupted map[string]bool
	spans       []span // of builds and fetches that have ended
	fetching    map[string]time.Time
	log         map[string][]string // last lines
	messages    []message
	round       int            // number of the call of Realise
	ended       int            // builds
	endedAt     map[string]int // value of ended after the last build of a derivation
	fetched     nix.Traffic
	promised    map[string]bool // paths that Nix began to fetch
}

// A message is an error of Nix, or of a builder in Nix's name.
type message struct {
	text  string
	round int    // in which it came
	ended int    // builds that had ended before
	drv   string // the derivation that it is about, set by assess; empty if there is none
}

func newWatch() *watch {
	return &watch{
		running:     map[string]time.Time{},
		local:       map[string]bool{},
		built:       map[string]bool{},
		interrupted: map[string]bool{},
		fetching:    map[string]time.Time{},
		log:         map[string][]string{},
		endedAt:     map[string]int{},
		promised:    map[string]bool{},
	}
}

func (w *watch) see(e nix.Event, stopping bool) {
	switch e.Kind {
	case nix.BuildStarted:
		_, within := w.running[e.Path] // a remote builder reports its build too
		w.running[e.Path], w.local[e.Path] = e.Time, !e.Remote && (!within || w.local[e.Path])
		delete(w.log, e.Path)
	case nix.BuildLine:
		kept := append(w.log[e.Path], text.Clip(e.Text, lineBytes))
		if len(kept) > logLines {
			kept = kept[1:]
		}
		w.log[e.Path] = kept
	case nix.BuildStopped:
		started, ok := w.running[e.Path]
		if !ok {
			return
		}
		delete(w.running, e.Path)
		w.built[e.Path] = true
		w.interrupted[e.Path] = stopping
		w.ended++
		w.endedAt[e.Path] = w.ended
		w.spans = append(w.spans, span{e.Path, started, e.Time})
		w.finished = append(w.finished, job.DrvBuild{DrvPath: e.Path, Started: started.UTC(), Seconds: e.Time.Sub(started).Seconds()})
	case nix.ErrorMessage:
		if e.Text != "" {
			w.messages = append(w.messages, message{text: e.Text, round: w.round, ended: w.ended})
		}
	case nix.FetchCounted:
		w.fetched.Add(e.Traffic)
	case nix.FetchStarted:
		w.promised[e.Path] = true
		w.fetching[e.Path] = e.Time
	case nix.FetchStopped:
		if started, ok := w.fetching[e.Path]; ok {
			delete(w.fetching, e.Path)
			w.spans = append(w.spans, span{e.Path, started, e.Time})
		}
	case nix.FetchProgress, nix.WarnMessage:
	}
}

// startRound begins a round, in which nothing runs yet.
func (w *watch) startRound() {
	w.round++
	clear(w.running)
	clear(w.fetching)
}

// unfinished returns the derivations whose build was interrupted.
func (w *watch) unfinished() []string {
	var drvs []string
	for drv, interrupted := range w.interrupted {
		if interrupted {
			drvs = append(drvs, drv)
		}
	}
	return slices.AppendSeq(drvs, maps.Keys(w.running))
}

// spansUntil returns the spans of all builds and fetches, sorted by their start.
func (w *watch) spansUntil(now time.Time) []span {
	spans := slices.Clone(w.spans)
	for _, unended := range []map[string]time.Time{w.running, w.fetching} {
		for path, from := range unended {
			spans = append(spans, span{path, from, now})
		}
	}
	slices.SortStableFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	return spans
}

// unattributed returns the first error message of the last round that is not about a
// derivation.
func (w *watch) unattributed() string {
	for _, m := range w.messages {
		if m.round == w.round && m.drv == "" && !nix.OnlyOthers(m.text) {
			return m.text
		}
	}
	return ""
}

// afterBuild reports whether a message came after the end of the build that it is about, which
// is when Nix reports the cause.
func (w *watch) afterBuild(m *message) bool {
	ended := w.endedAt[m.drv]
	return ended > 0 && m.ended >= ended
}

// attribute sets the derivation of the last round's messages with a text.
func (w *watch) attribute(text, drv string) {
	for i := range w.messages {
		if m := &w.messages[i]; m.round == w.round && m.text == text && m.drv == "" {
			m.drv = drv
		}
	}
}

// mention returns the first error message with the name of a derivation.
func (w *watch) mention(drv string) string {
	for _, m := range w.messages {
		if strings.Contains(m.text, drv) {
			return m.text
		}
	}
	return ""
}

// started reports whether the build of a derivation has started.
func (w *watch) started(drv string) bool {
	_, running := w.running[drv]
	return running || w.built[drv]
}
