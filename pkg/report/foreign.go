package report

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Escape sequences of terminals: CSI, OSC, and the short ones.
var escapes = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]?")

// maxForeign is how much of a foreign text is looked at, in bytes. Less of it is
// ever shown.
const maxForeign = 256 << 10

// oneLine makes foreign text fit to be shown: one line, without what is
// invisible, controls a terminal or turns the direction of writing.
func oneLine(s string) string {
	s = clip(s, maxForeign)
	if strings.Contains(s, "\x1b") {
		s = escapes.ReplaceAllString(s, "")
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

// lines takes foreign text apart. Indentation stays, blank lines at both ends go.
func lines(s string) []string {
	var all []string
	for l := range strings.SplitSeq(clip(s, maxForeign), "\n") {
		// A terminal shows what follows the last carriage return.
		l = strings.TrimRight(l, "\r")
		l = l[strings.LastIndexByte(l, '\r')+1:]
		text := oneLine(l)
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

// indentation is the number of columns before a line's text, within reason.
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

// clip cuts what is longer than limit bytes.
func clip(s string, limit int) string {
	const more = "…"
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:max(0, limit-len(more))], "") + more
}

// clipLines takes as many lines as fit into limit bytes: the last ones, and with
// both those of the beginning too. left says how many are left out, and cut how
// many of the taken ones come before the gap.
func clipLines(all []string, limit int, both bool) (taken []string, cut, left int) {
	const longest = 2000
	var head, tail []string
	room := limit
	take := func(l string) (string, bool) {
		l = clip(l, min(longest, max(limit/10, 120)))
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
