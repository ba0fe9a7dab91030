package evaluate

import (
	"bytes"
	"errors"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// maxLocated is how many assertions of a source are evaluated again, each by an evaluator of
// its own, because Nix prints the position of a failed assertion only if it ends the
// evaluator. It never prints the position of a throw.
const maxLocated = 8

// threw notes that the attribute that the evaluator is at has thrown.
func (w *worker) threw() {
	p := w.pool
	switch {
	case w.told > 0: // only its description is missing
		p.Incomplete = true
	case w.from != nil && !w.from.before(w.at):
		at := w.at
		p.recordLost(w, &at, errors.New("a set that holds it was evaluated before, and now it throws"))
	}
	w.finished++
	w.thrown = append(w.thrown, w.spot)
}

// explain records the attributes that have thrown with the messages that the evaluator has
// reported, and notes those that need another evaluator for their message. It reports whether
// no message is missing, which may also be because the first one ended the evaluator.
func (p *pool) explain(w *worker) bool {
	if len(w.thrown) == 0 {
		return w.result == nil
	}
	found := w.messages.end()
	complete := true
	// Nix may end with the first error, whose message is that of the first attribute then.
	var failed *nix.Error
	first := w.done && w.again == 1 && len(found) == 0 && errors.As(w.result, &failed) && !failed.Signaled() && !errors.Is(w.result, nix.ErrMemory)
	if first {
		p.catch = false
		found[0] = failed.Message
	}
	var alone []position
	for i, s := range w.thrown {
		message, ok := found[i]
		switch {
		case s.told != 0 || w.from != nil && !w.from.before(s.at):
		case !ok && w.done:
			complete = false
			alone = append(alone, s.at)
		case !ok:
			complete = false
			p.unexplained = append(p.unexplained, s.at)
		case first:
			p.recordFailure(w, s, w.result)
		case strings.HasPrefix(message, "assertion '") && p.located < maxLocated:
			p.located++
			alone = append(alone, s.at)
		default:
			p.recordFailure(w, s, &nix.Error{Program: "nix", Message: message, Stderr: "error: " + message, Err: errThrown})
		}
	}
	if len(alone) > 0 {
		p.waiting = append(p.waiting, span{only: alone, alone: true})
	}
	return complete || first
}

var errThrown = errors.New("the evaluation throws")

// nextUnexplained returns a span for the missing messages, once the walk has come to its end.
func (p *pool) nextUnexplained() (span, bool) {
	if len(p.unexplained) == 0 || len(p.workers) > 0 {
		return span{}, false
	}
	s := span{only: p.unexplained}
	p.unexplained = nil
	return s, true
}

// maxMessage is the longest message, in bytes. The rest of a longer one is dropped.
const maxMessage = 16 << 10

// messages reads a list of errors as Nix prints it, in which a string that nothing else can
// contain precedes each error. See evaluate.nix.
type messages struct {
	mark  []byte
	part  []byte // after the last mark
	count int    // marks
	found map[int]string
}

func newMessages(nonce string) *messages {
	return &messages{mark: []byte(`"` + nonce + `"`), found: map[int]string{}}
}

func (m *messages) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxMessage)
		m.part = append(m.part, rest[:n]...)
		rest = rest[n:]
		for {
			part, after, ok := bytes.Cut(m.part, m.mark)
			if !ok {
				break
			}
			m.take(part)
			m.count++
			m.part = bytes.Clone(after)
		}
		// The middle of a long part is dropped; its end may be the beginning of a mark.
		if tail := len(m.mark); len(m.part) > maxMessage+tail {
			m.part = append(m.part[:maxMessage], m.part[len(m.part)-tail:]...)
		}
	}
	return len(p), nil
}

// take parses an item: « error: MESSAGE ».
func (m *messages) take(part []byte) {
	said, ok := strings.CutPrefix(strings.TrimSpace(string(part)), "«error:")
	if ok && m.count > 0 {
		said = strings.TrimSuffix(said, "»")
		m.found[m.count-1] = strings.TrimSpace(text.Plain(text.Clip(said, maxMessage)))
	}
}

// end returns the messages by the numbers of their marks, from 0.
func (m *messages) end() map[int]string {
	m.take(bytes.TrimSuffix(bytes.TrimSpace(m.part), []byte("]")))
	m.part = nil
	return m.found
}
