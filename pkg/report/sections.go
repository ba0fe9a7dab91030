package report

import (
	"cmp"
	"fmt"
	"strings"
)

// A section lists failures, each in a block of its own.
type section struct {
	title  string
	blocks []block
}

// A block is something that went wrong with one or more targets.
type block struct {
	names nameList
	body  func(limit int) string // says why, in no more than about as many bytes
}

const (
	blockTitle = "#### "
	leftOut    = "#### Errors and logs left out, since there are too many\n\n"
	minBody    = 1 << 10 // less of a body is not worth showing
	sectionEnd = 100     // bytes that the count of what is left out may take
)

// least is how many bytes a section takes without any body.
func (s *section) least() int {
	if len(s.blocks) == 0 {
		return 0
	}
	size := len("### "+s.title+"\n\n") + len(leftOut) + sectionEnd
	for _, b := range s.blocks {
		size += len(b.names.block())
	}
	return size
}

// render gives the section, with bodies of about each bytes, and takes what they
// need from room. Blocks without a body come last, as a list.
func (s *section) render(each int, room *int) string {
	if len(s.blocks) == 0 {
		return ""
	}
	var b, rest strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", s.title)
	unnamed := 0
	for _, block := range s.blocks {
		if len(block.names.shown) == 0 {
			unnamed += block.names.more
			continue
		}
		if *room >= minBody {
			if body := block.body(min(each, *room)); len(body) <= *room {
				*room -= len(body)
				b.WriteString(block.names.block() + body)
				continue
			}
		}
		fmt.Fprintf(&rest, "- %s\n", block.names.inline())
	}
	if unnamed > 0 {
		fmt.Fprintf(&rest, "- and %d more\n", unnamed)
	}
	if rest.Len() > 0 {
		b.WriteString(leftOut + rest.String() + "\n")
	}
	return b.String()
}

func (v *Verdict) failedSection(n *names) *section {
	s := &section{title: "Failed"}
	causes := v.rootCauses(false)
	const open = 3 // so few are read without a click
	for _, c := range causes {
		s.blocks = append(s.blocks, block{names: n.of(c.targets), body: func(limit int) string {
			var b strings.Builder
			if c.drv != "" {
				fmt.Fprintf(&b, "Root cause: %s\n\n", code(c.drv, 300))
			}
			b.WriteString(excerpt(c.message(), limit/4, true))
			if log := excerpt(c.log(), limit/2, false); log != "" {
				if len(causes) > open {
					log = folded("The end of its log", log)
				}
				b.WriteString(log)
			}
			return b.String() + reproduction(c, limit/8)
		}})
	}
	return s
}

func (v *Verdict) unevaluatedSection(n *names) *section {
	s := &section{title: "Could not be evaluated"}
	for _, c := range v.rootCauses(true) {
		s.blocks = append(s.blocks, block{names: n.of(c.targets), body: func(limit int) string {
			return excerpt(c.message(), limit*3/4, true) + reproduction(c, limit/8)
		}})
	}
	return s
}

func reproduction(c *rootCause, limit int) string {
	if block := excerpt(c.reproduce(), max(limit, 500), false); block != "" {
		return "To see it at home:\n\n" + block
	}
	return ""
}

func (v *Verdict) entriesSection(n *names) *section {
	s := &section{title: "Errors beside the targets"}
	for _, p := range v.Entries {
		s.blocks = append(s.blocks, block{names: n.take([]string{cmp.Or(p.Name, p.Entry)}), body: func(limit int) string {
			return excerpt(lines(p.Message), limit*3/4, true)
		}})
	}
	return s
}
