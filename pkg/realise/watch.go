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

// watch keeps what the events say.
type watch struct {
	running  map[string]time.Time
	here     map[string]bool // builds that no remote builder did, the last time
	finished []job.DrvBuild
	built    map[string]bool
	// interrupted are the builds that ended after all was told to stop: that
	// they left no outputs says nothing.
	interrupted map[string]bool
	spans       []span // of what has ended
	fetching    map[string]time.Time
	log         map[string][]string // last lines
	messages    []message
	round       int            // number of the call of Realise
	ended       int            // builds
	endedAt     map[string]int // what ended was with its last build
	fetched     nix.Traffic
	promised    map[string]bool // paths that Nix began to fetch
}

// A message is an error of Nix, or of a builder that says something in its name.
type message struct {
	text  string
	round int    // in which it was said
	ended int    // builds that had before
	of    string // the derivation that failed, once that was looked for; empty if it names none
}

func newWatch() *watch {
	return &watch{
		running:     map[string]time.Time{},
		here:        map[string]bool{},
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
		_, within := w.running[e.Path] // the builder tells of its own build too
		w.running[e.Path], w.here[e.Path] = e.Time, !e.Remote && (!within || w.here[e.Path])
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

// begin begins a round: what the last one left running does so no more.
func (w *watch) begin() {
	w.round++
	clear(w.running)
	clear(w.fetching)
}

// unfinished are the derivations whose build all was told to stop in.
func (w *watch) unfinished() []string {
	var drvs []string
	for drv, interrupted := range w.interrupted {
		if interrupted {
			drvs = append(drvs, drv)
		}
	}
	return slices.AppendSeq(drvs, maps.Keys(w.running))
}

// spansUntil returns when something was built or fetched, in the order of the begin.
func (w *watch) spansUntil(now time.Time) []span {
	spans := slices.Clone(w.spans)
	for _, unended := range []map[string]time.Time{w.running, w.fetching} {
		for path, from := range unended {
			spans = append(spans, span{path, from, now})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	return spans
}

// nameless returns the first error message of the last round that is not about a
// derivation.
func (w *watch) nameless() string {
	for _, m := range w.messages {
		if m.round == w.round && m.of == "" && !nix.OnlyOthers(m.text) {
			return m.text
		}
	}
	return ""
}

// late says whether a message was said after the build that it is about had ended, which
// is when Nix says why it failed.
func (w *watch) late(m *message) bool {
	ended := w.endedAt[m.of]
	return ended > 0 && m.ended >= ended
}

// attribute notes what the messages of the last round with a text are about.
func (w *watch) attribute(text, drv string) {
	for i := range w.messages {
		if m := &w.messages[i]; m.round == w.round && m.text == text && m.of == "" {
			m.of = drv
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

// begun says whether the build of a derivation was begun.
func (w *watch) begun(drv string) bool {
	_, running := w.running[drv]
	return running || w.built[drv]
}
