package nix

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/pkg/text"
)

// Numbers of Nix's internal-json log (src/libutil/logging.hh).
const (
	activityCopy       = 100 // of a path
	activityRealise    = 102
	activityCopies     = 103
	activityBuild      = 105
	activitySubstitute = 108
	resultBuildLogLine = 101
	resultProgress     = 105
	resultSetExpected  = 106
	levelError         = 0
	levelWarn          = 1
)

// EventKind is the kind of an Event.
type EventKind int

// The kinds of events while Nix realises.
const (
	BuildStarted EventKind = iota // of Path, a derivation
	BuildLine                     // Text is a line of the log of Path
	BuildStopped                  // of Path, whether it succeeded or failed
	FetchStarted                  // of Path, a store path
	FetchStopped
	FetchCounted  // Traffic has the change since the last event: paths that arrived, and expected bytes, negative if a fetch failed
	FetchProgress // Traffic has the bytes that arrived since the last event, also of fetches that fail later
	ErrorMessage  // Text
	WarnMessage   // Text
)

// An Event is something that happened while Nix realises.
type Event struct {
	Kind EventKind
	Time time.Time
	Path string
	Text string // without control sequences
	// Remote reports, in BuildStarted, whether a remote builder builds.
	Remote bool
	Traffic
}

// Traffic counts paths copied from one store to another.
type Traffic struct {
	Paths int
	Bytes int64 // of their NARs; 0 if not known
}

// Add adds traffic.
func (t *Traffic) Add(more Traffic) {
	t.Paths += more.Paths
	t.Bytes += more.Bytes
}

// logReader turns lines of Nix's internal-json log into events. Not all lines are Nix's own:
// Nix passes on a builder's "@nix {…}" messages as they are. With these a builder can't begin or
// end a build, but can print anything about any derivation.
type logReader struct {
	emit    func(Event)
	now     func() time.Time
	active  map[uint64]Event
	counts  map[uint64]*count // of activities
	partly  []byte            // a line that has not ended yet
	cut     bool              // the rest of the line was dropped
	emitted int               // messages that count against maxMessages
}

// Limits of buffers that builders can fill. Nix prints the cause of a failure after the build
// has ended, so that the end of a build makes room for more messages.
const (
	maxActivities  = 1 << 16
	maxMessages    = 1000
	maxMessageSize = 64 << 10 // bytes
	afterBuild     = 20       // messages
)

// A count is the progress of an activity that fetches: one activity counts paths, others bytes.
type count struct {
	kind int
	Traffic
	arrived int64 // bytes that no event has reported yet
}

// progressStep is the fewest bytes of a FetchProgress: Nix reports each 8 KiB.
const progressStep = 1 << 20

// A logLine is a line of the log. Only the first two fields matter to us: those of a build are
// the derivation and the remote builder, "" for none.
type logLine struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Text   string            `json:"text"`
	Msg    string            `json:"msg"`
	RawMsg string            `json:"raw_msg"`
	Fields []json.RawMessage `json:"fields"`
}

// maxLogLine is the most bytes of a line. Longer ones are cut.
const maxLogLine = 16 << 20

func (r *logReader) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := maxLogLine - len(r.partly); len(line) > room {
			line, r.cut = line[:room], true
		}
		r.partly = append(r.partly, line...)
		if !ended {
			break
		}
		r.line(string(r.partly))
		r.partly, r.cut = r.partly[:0], false
		rest = after
	}
	return len(p), nil
}

func (r *logReader) line(line string) {
	doc, ok := strings.CutPrefix(line, "@nix ")
	var l logLine
	switch {
	case ok && r.cut: // the end would say what it is about
		r.message(WarnMessage, "a line of the log was left out because it is too long")
		return
	case !ok || json.Unmarshal([]byte(doc), &l) != nil:
		// Another program writes to the same stderr.
		if message := text.Plain(line); strings.TrimSpace(message) != "" {
			r.message(WarnMessage, message)
		}
		return
	}
	switch l.Action {
	case "start":
		e := Event{Time: r.now(), Path: l.field(0)}
		switch l.Type {
		case activityBuild:
			e.Kind, e.Remote = BuildStarted, l.field(1) != ""
		case activitySubstitute:
			e.Kind = FetchStarted
		case activityRealise, activityCopies:
			if l.Text == "" && len(r.counts) < maxActivities { // a copy to a builder has a text
				r.counts[l.ID] = &count{kind: l.Type}
			}
			return
		case activityCopy:
			if strings.Contains(l.Text, "' from '") && len(r.counts) < maxActivities { // else it is a copy to a builder
				r.counts[l.ID] = &count{kind: l.Type}
			}
			return
		default:
			return
		}
		if len(r.active) >= maxActivities || !storepath.Valid(e.Path) || e.Kind == BuildStarted && !strings.HasSuffix(e.Path, ".drv") {
			return
		}
		r.active[l.ID] = e
		r.emit(e)
	case "stop":
		r.progress(r.counts[l.ID], 1)
		delete(r.counts, l.ID)
		e, ok := r.active[l.ID]
		if !ok {
			return
		}
		delete(r.active, l.ID)
		e.Time = r.now()
		if e.Kind == FetchStarted {
			e.Kind = FetchStopped
		} else {
			e.Kind = BuildStopped
			r.emitted = min(r.emitted, maxMessages-afterBuild)
		}
		r.emit(e)
	case "result":
		r.count(&l)
		if e, ok := r.active[l.ID]; ok && l.Type == resultBuildLogLine {
			r.emit(Event{Kind: BuildLine, Time: r.now(), Path: e.Path, Text: text.Plain(l.field(0))})
		}
	case "msg":
		message := l.Msg
		if l.RawMsg != "" {
			message = l.RawMsg
		}
		message = strings.TrimSpace(text.Plain(message))
		switch l.Level {
		case levelError:
			r.message(ErrorMessage, unquoted(message))
		case levelWarn:
			r.message(WarnMessage, message)
		}
	}
}

// message emits a message, unless there are too many. Callers have temporary roots, so a warning
// about a missing root is none.
func (r *logReader) message(kind EventKind, message string) {
	if kind == WarnMessage && strings.Contains(message, "you did not specify '--add-root'") {
		return
	}
	if r.emitted++; r.emitted > maxMessages {
		return
	}
	if r.emitted == maxMessages {
		kind, message = WarnMessage, "further messages are left out until a build ends"
	}
	r.emit(Event{Kind: kind, Time: r.now(), Text: text.Clip(message, maxMessageSize)})
}

// count updates the progress of an activity that fetches.
func (r *logReader) count(l *logLine) {
	c := r.counts[l.ID]
	if c == nil || len(l.Fields) < 2 {
		return
	}
	var first, second int64
	if json.Unmarshal(l.Fields[0], &first) != nil || json.Unmarshal(l.Fields[1], &second) != nil {
		return
	}
	was := c.Traffic
	switch {
	case c.kind == activityCopy && l.Type == resultProgress:
		c.arrived += max(0, first-c.Bytes)
		c.Bytes = first
		r.progress(c, progressStep)
		return
	case c.kind == activityCopies && l.Type == resultProgress:
		c.Paths = int(first)
	case c.kind == activityRealise && l.Type == resultSetExpected && first == activityCopy:
		c.Bytes = second // includes the bytes that were copied already
	}
	if c.Traffic != was {
		r.emit(Event{Kind: FetchCounted, Time: r.now(), Traffic: Traffic{c.Paths - was.Paths, c.Bytes - was.Bytes}})
	}
}

// progress emits FetchProgress if at least so many bytes have arrived.
func (r *logReader) progress(c *count, least int64) {
	if c != nil && c.arrived >= least {
		r.emit(Event{Kind: FetchProgress, Time: r.now(), Traffic: Traffic{Bytes: c.arrived}})
		c.arrived = 0
	}
}

// unquoted removes the prefix and indentation that a client adds to the error of a daemon. The
// errors of a build's inputs have them, its own has not.
func unquoted(text string) string {
	if quoted, ok := strings.CutPrefix(text, "error: "); ok {
		return strings.ReplaceAll(quoted, "\n       ", "\n")
	}
	return text
}

func (l *logLine) field(n int) string {
	var s string
	if len(l.Fields) > n {
		_ = json.Unmarshal(l.Fields[n], &s) // our events have strings
	}
	return s
}
