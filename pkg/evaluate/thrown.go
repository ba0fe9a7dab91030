package evaluate

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// maxExact is how many assertions of a source are evaluated once more, each by an
// evaluator of its own, because only an error that ends an evaluator says where in which
// file it is from. Of what throws, Nix does not tell that either way.
const maxExact = 8

// threw notes that what the evaluator is at has thrown.
func (w *worker) threw() {
	c := w.crew
	switch {
	case w.told > 0: // it is only its description that is not known
		c.Incomplete = true
	case w.from != nil && !w.from.before(w.at):
		at := w.at
		c.lose(w, &at, errors.New("a set that holds it was evaluated before, and now it throws"))
	}
	w.finished++
	w.thrown = append(w.thrown, w.spot)
}

// explain records what has thrown with the messages that the evaluator has told, and
// notes what needs another one for that. It reports whether the evaluator has told all
// that it had to tell, which is why it may have failed.
func (c *crew) explain(w *worker) bool {
	if len(w.thrown) == 0 {
		return w.result == nil
	}
	found := w.messages.end()
	complete := true
	// Nix may give up at the first, which has that message then.
	var failed *nix.Error
	first := w.done && w.again == 1 && len(found) == 0 && errors.As(w.result, &failed) && !failed.Signaled() && !errors.Is(w.result, nix.ErrMemory)
	if first {
		c.catch = false
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
			c.owed = append(c.owed, s.at)
		case first:
			c.blame(w, s, w.result)
		case strings.HasPrefix(message, "assertion '") && c.exact < maxExact:
			c.exact++
			alone = append(alone, s.at)
		default:
			c.blame(w, s, &nix.Error{Program: "nix", Message: message, Stderr: "error: " + message, Err: errThrown})
		}
	}
	if len(alone) > 0 {
		c.waiting = append(c.waiting, span{only: alone, alone: true})
	}
	return complete || first
}

var errThrown = errors.New("the evaluation throws")

// settle finds work for an evaluator once all is walked to: the messages that others owe.
func (c *crew) settle() (span, bool) {
	if len(c.owed) == 0 || len(c.workers) > 0 {
		return span{}, false
	}
	s := span{only: c.owed}
	c.owed = nil
	return s, true
}

// tree makes nested sets of positions, as evaluate.nix takes them, and null of none.
func tree(all []position) map[string]any {
	if all == nil {
		return nil
	}
	top := map[string]any{}
	for _, p := range all {
		set := top
		for _, name := range append([]string{strconv.Itoa(p.root)}, p.path...) {
			below, ok := set[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				set[name] = below
			}
			set = below
		}
	}
	return top
}

// maxMessage is how many bytes of a message are kept.
const maxMessage = 16 << 10

// messages reads what Nix prints of a list of errors, each of which is preceded by a
// string that nothing else can contain. See evaluate.nix.
type messages struct {
	mark  []byte
	part  []byte // behind the mark that was read last
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
		// The middle of what is too long is left out, but not the beginning of a mark.
		if tail := len(m.mark); len(m.part) > maxMessage+tail {
			m.part = append(m.part[:maxMessage], m.part[len(m.part)-tail:]...)
		}
	}
	return len(p), nil
}

// take reads an item: « error: MESSAGE ».
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
