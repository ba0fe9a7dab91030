// Package text makes texts fit for people to read: foreign ones safe to show, in a log, in Markdown
// or on a terminal, and numbers short.
//
// Foreign text comes from a flake, a builder, a server or another job: it may be of any size,
// and hostile. A caller bounds it with [Clip], makes one line of it with [Line] or [Words],
// or several with [Lines], and puts it into Markdown with [Code] and [Fenced]. A line of a
// log passes [NoCommands] too.
package text

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// escapes matches the escape sequences of terminals: CSI, OSC, and the short ones.
const escapes = "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)?|\x1b[ -/]+[0-~]"

var (
	escaped  = lazyregexp.New(escapes)
	controls = lazyregexp.New(escapes + "|[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f]")
)

// maxForeign is how much of a foreign text is read, in bytes. All limits for showing are lower.
const maxForeign = 256 << 10

// Plain returns text without escape sequences and without control characters but newlines and
// tabs. Invalid UTF-8 becomes U+FFFD, because its bytes could be a control character.
func Plain(s string) string { return controls().ReplaceAllString(strings.ToValidUTF8(s, "\ufffd"), "") }

// Line returns text as one line, without characters that are invisible, control a terminal or
// change the direction of writing. Each kind of white space becomes a blank.
func Line(s string) string {
	s = Clip(s, maxForeign)
	if strings.Contains(s, "\x1b") {
		s = escaped().ReplaceAllString(s, "")
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r >= ' ' && r < 0x7f:
			return r
		case unicode.IsSpace(r), unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf):
			return -1
		default:
			return r
		}
	}, s))
}

// Words returns text as one line, as Line does, with single blanks.
func Words(s string) string { return strings.Join(strings.Fields(Line(s)), " ") }

// Message returns at most limit bytes of a server's text as a part of a message: its words,
// without the secrets, which the server may quote.
func Message(s string, limit int, secrets ...string) string {
	s = Words(s) // else an invisible character could hide a secret
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return Clip(s, limit)
}

// Lines returns the lines of text, each as Line does, with their indentation and without blank
// lines at both ends.
func Lines(s string) []string {
	var all []string
	for l := range strings.SplitSeq(Clip(s, maxForeign), "\n") {
		// A terminal shows what follows the last carriage return.
		l = strings.TrimRight(l, "\r")
		l = l[strings.LastIndexByte(l, '\r')+1:]
		text := Line(l)
		if text != "" {
			text = strings.Repeat(" ", indentation(l)) + text
		}
		if text != "" || len(all) > 0 {
			all = append(all, text)
		}
	}
	for len(all) > 0 && all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

// indentation returns the number of columns before the text of a line, within reason.
func indentation(l string) int {
	n := 0
	for _, c := range l {
		switch c {
		case ' ':
			n++
		case '\t':
			n += 8 - n%8
		default:
			return min(n, 40)
		}
	}
	return 0
}

// Clip returns text that is cut to at most limit bytes, the ellipsis included. Cut text is
// valid UTF-8, and shares no memory with s.
func Clip(s string, limit int) string {
	const more = "…"
	if len(s) <= limit {
		return s
	}
	end := max(0, limit-len(more))
	for end > 0 && end > limit-len(more)-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.ToValidUTF8(s[:end], "") + more
}

// ClipName returns a name of at most limit bytes, the ellipsis included. It is cut in the middle,
// because the names of one list often begin alike.
func ClipName(s string, limit int) string {
	const more = "…"
	half := (limit - len(more)) / 2
	if len(s) <= limit || half < 1 {
		return Clip(s, limit)
	}
	return strings.ToValidUTF8(s[:half], "") + more + strings.ToValidUTF8(s[len(s)-half:], "")
}

// ClipLines returns as many lines as fit into limit bytes: the last ones, and with both the
// first ones too. cut is the number of lines before the gap, left the number in it. Lines are
// clipped to a part of the limit if not all of them fit.
func ClipLines(all []string, limit int, both bool) (taken []string, cut, left int) {
	longest := 2000
	size := 0
	for _, l := range all {
		size += min(len(l), longest) + 1
	}
	if size > limit {
		longest = min(longest, max(limit/10, 120))
	}
	var head, tail []string
	room := limit
	take := func(l string) (string, bool) {
		l = Clip(l, longest)
		room -= len(l) + 1
		return l, room >= 0
	}
	for len(head)+len(tail) < len(all) {
		if l, ok := take(all[len(all)-1-len(tail)]); ok {
			tail = append(tail, l)
		} else {
			break
		}
		if !both || len(head)+len(tail) == len(all) {
			continue
		}
		if l, ok := take(all[len(head)]); ok {
			head = append(head, l)
		} else {
			break
		}
	}
	slices.Reverse(tail)
	return append(head, tail...), len(head), len(all) - len(head) - len(tail)
}

// Some returns the first most of the names, separated by commas, and the number of the others.
func Some(names []string, most int) string {
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
