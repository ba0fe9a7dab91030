package build

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

const (
	logLines  = 25   // of a failed derivation that are kept
	lineBytes = 2000 // of each
)

// watch keeps what the events say.
type watch struct {
	running  map[string]time.Time
	finished []job.DrvBuild
	built    map[string]bool
	// interrupted are the builds that ended after all was told to stop: that
	// they left no outputs says nothing.
	interrupted map[string]bool
	stopped     map[string]time.Time
	log         map[string][]string // last lines
	messages    []message
	fetched     nix.Traffic
}

// A message is one of Nix's, or of a builder that says something in its name.
type message struct {
	text  string
	after int // builds that had ended before
}

func newWatch() *watch {
	return &watch{
		running:     map[string]time.Time{},
		built:       map[string]bool{},
		interrupted: map[string]bool{},
		stopped:     map[string]time.Time{},
		log:         map[string][]string{},
	}
}

func (w *watch) see(e nix.Event, stopping bool) {
	switch e.Kind {
	case nix.BuildStarted:
		w.running[e.Path] = e.Time
		delete(w.log, e.Path)
	case nix.BuildLine:
		text := e.Text
		if len(text) > lineBytes {
			text = strings.ToValidUTF8(text[:lineBytes], "") + "…"
		}
		kept := append(w.log[e.Path], text)
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
		w.stopped[e.Path] = e.Time
		w.finished = append(w.finished, job.DrvBuild{DrvPath: e.Path, Started: started.UTC(), Seconds: e.Time.Sub(started).Seconds()})
	case nix.ErrorMessage:
		w.messages = append(w.messages, message{e.Text, len(w.finished)})
	case nix.FetchCounted:
		w.fetched.Add(e.Traffic)
	case nix.FetchStarted, nix.FetchStopped, nix.WarnMessage:
	}
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

// forget takes back what was said of derivations that are tried again.
func (w *watch) forget(drvs []string) {
	w.messages = slices.DeleteFunc(w.messages, func(m message) bool {
		return slices.ContainsFunc(drvs, func(drv string) bool { return strings.Contains(m.text, drv) }) || dependencies.MatchString(m.text)
	})
}

// until is how many seconds after start a derivation was done; of one that was
// not built, up to the last thing that was.
func (w *watch) until(drv string, start time.Time) float64 {
	if t, ok := w.stopped[drv]; ok {
		return t.Sub(start).Seconds()
	}
	var last time.Time
	for _, t := range w.stopped {
		if t.After(last) {
			last = t
		}
	}
	return max(0, last.Sub(start).Seconds())
}

// message returns the first error message that names a derivation since its build has
// ended, which is when Nix says why it failed, else the first that names it.
func (w *watch) message(drv string) string {
	ended := slices.IndexFunc(w.finished, func(b job.DrvBuild) bool { return b.DrvPath == drv })
	var early string
	for _, m := range w.messages {
		switch {
		case !strings.Contains(m.text, drv):
		case m.after > ended:
			return m.text
		case early == "":
			early = m.text
		}
	}
	return early
}

// nameless returns the first of Nix's error messages that names no derivation.
func (w *watch) nameless() string {
	for _, m := range w.messages {
		if !drvPattern.MatchString(m.text) && !dependencies.MatchString(m.text) {
			return m.text
		}
	}
	return ""
}
