package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
)

// A section lists failures, each in a block of its own.
type section struct {
	title  string
	blocks []block
}

// A block is a failure of one or more targets.
type block struct {
	title  string // empty: the names are the title
	groups []nameGroup
	body   func(limit int) string // the details, in about limit bytes
}

// A nameGroup is a group of targets with a label, which is empty if the title names them.
type nameGroup struct {
	label string
	names nameList
}

// names returns the names of all groups.
func (b *block) names() nameList {
	var all nameList
	for _, g := range b.groups {
		all.add(g.names)
	}
	return all
}

// head returns the block's heading and names.
func (b *block) head() string {
	if b.title == "" {
		return b.names().block()
	}
	md := blockTitle + b.title + "\n\n"
	for _, g := range b.groups {
		md += g.names.paragraph(g.label)
	}
	return md
}

// line returns the block in a line, without a body.
func (b *block) line() string {
	if b.title == "" {
		return b.names().inline()
	}
	md := b.title
	for _, g := range b.groups {
		if g.label != "" {
			md += "; " + g.label + ": " + g.names.inline()
		}
	}
	return md
}

const (
	blockTitle   = "#### "
	leftOutTitle = "#### Errors and logs left out, because there are too many\n\n"
	minBody      = 1 << 10 // less of a body is not worth showing
	sectionEnd   = 100     // bytes for the number of blocks that are left out
)

// minSize returns the size of a section without bodies.
func (s *section) minSize() int {
	if len(s.blocks) == 0 {
		return 0
	}
	size := len("### "+s.title+"\n\n") + len(leftOutTitle) + sectionEnd
	for _, b := range s.blocks {
		size += len(b.head())
	}
	return size
}

// render returns the section, with bodies of about each bytes, and takes their size from room.
// Blocks without a body come last, as a list.
func (s *section) render(each int, room *int) string {
	if len(s.blocks) == 0 {
		return ""
	}
	var b, rest strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", s.title)
	unnamed := 0
	for _, block := range s.blocks {
		if names := block.names(); len(names.shown) == 0 {
			unnamed += names.more
			continue
		}
		if *room >= minBody {
			if body := block.body(min(each, *room)); len(body) <= *room {
				*room -= len(body)
				b.WriteString(block.head() + body)
				continue
			}
		}
		fmt.Fprintf(&rest, "- %s\n", block.line())
	}
	if unnamed > 0 {
		fmt.Fprintf(&rest, "- and %d more\n", unnamed)
	}
	if rest.Len() > 0 {
		b.WriteString(leftOutTitle + rest.String() + "\n")
	}
	return b.String()
}

// blockOf returns the block of a root cause, without a body.
func (n *names) blockOf(c *rootCause) block {
	var b block
	for _, group := range c.affectedTargets() {
		names := n.of(group.targets)
		names.add(n.repeated(group.alsoBlocked))
		b.groups = append(b.groups, nameGroup{group.label, names})
	}
	b.title = n.title(c)
	return b
}

func (v view) failedSection(n *names, l map[string]string) *section {
	s := &section{title: "Failed"}
	causes := v.rootCauses(false)
	const open = 3 // logs of so few are not folded
	for _, c := range causes {
		block := n.blockOf(c)
		block.body = func(limit int) string {
			var b strings.Builder
			if c.drv != "" {
				fmt.Fprintf(&b, "Derivation: %s\n\n", text.Code(c.drv, 300))
			}
			if file, line := c.location(); file != "" {
				fmt.Fprintf(&b, "The log names %s.\n\n", text.Code(position(file, line), 300))
			}
			b.WriteString(excerpt(c.detail(block.title), limit/4, true))
			if log := excerpt(c.log(), limit/2, false); log != "" {
				if len(causes) > open {
					log = folded("The end of its log", log)
				}
				b.WriteString(log)
			}
			if c.silent() {
				b.WriteString(printedNothing + "\n\n")
			}
			b.WriteString(c.othersList(limit / 8))
			return b.String() + reproduction(c, limit/8) + jobLinks(c.entries(), l)
		}
		s.blocks = append(s.blocks, block)
	}
	return s
}

// openOthers is the number of further causes that are not folded.
const openOthers = 3

// othersList returns the list of the further causes.
func (c *rootCause) othersList(limit int) string {
	if len(c.further) == 0 {
		return ""
	}
	others := c.others(func(s string) string { return text.Code(s, 200) })
	for i := range others {
		others[i] = "- " + others[i]
	}
	md := list(others, "\n", max(limit, 500)) + "\n\n"
	if len(others) <= openOthers {
		return c.othersTitle() + ":\n\n" + md
	}
	return folded(c.othersTitle(), md)
}

func (v view) unevaluatedSection(n *names) *section {
	s := &section{title: "Could not be evaluated"}
	for _, c := range v.rootCauses(true) {
		block := n.blockOf(c)
		block.body = func(limit int) string {
			return excerpt(c.detail(block.title), limit*3/4, true) + reproduction(c, limit/8)
		}
		s.blocks = append(s.blocks, block)
	}
	return s
}

// detail returns the part of the message that is not in the title.
func (c *rootCause) detail(title string) []string {
	if title == "" {
		return c.message()
	}
	_, detail := c.statement()
	return detail
}

func reproduction(c *rootCause, limit int) string {
	md := ""
	if block := excerpt(c.reproduce(), max(limit, 500), false); block != "" {
		md = "Reproduce locally:\n\n" + block
	}
	for _, where := range c.wholeLog() {
		md += "Its log: " + text.Code(where, 500) + "\n\n"
	}
	return md
}

// fewJobs is the most jobs that an error links to.
const fewJobs = 3

// jobLinks returns links to the jobs of the first few entries with a known page.
func jobLinks(entries []string, l map[string]string) string {
	var links []string
	for _, entry := range entries {
		if address := l[entry]; address != "" && len(links) < fewJobs {
			links = append(links, "["+text.CodeName(entry, 100)+"]("+address+")")
		}
	}
	if len(links) == 0 {
		return ""
	}
	return "The job and its log: " + strings.Join(links, ", ") + "\n\n"
}

const entriesTitle = "Errors outside of targets"

func (v view) entriesSection(n *names, l map[string]string) *section {
	s := &section{title: entriesTitle}
	for _, p := range v.Entries {
		groups := []nameGroup{{"", n.take([]string{cmp.Or(p.Name, p.Entry)})}}
		s.blocks = append(s.blocks, block{groups: groups, body: func(limit int) string {
			return excerpt(text.Lines(p.Message), limit*3/4, true) + jobLinks([]string{p.Name}, l)
		}})
	}
	return s
}
