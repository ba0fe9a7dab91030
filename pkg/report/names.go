package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// names returns the names of failed targets and entries as code spans, within a limit of bytes for
// all of them. Names are cut before any of them is left out.
type names struct {
	longest    int // bytes of a name
	room       int
	repeatRoom int // of room, for names that are repeated
	titles     int // bytes for titles
}

// nameCost is the most bytes around a name.
const nameCost = len(blockTitle + "\n\n")

// newNames returns names with the longest limit at which all of them fit.
func (v view) newNames(room int) *names {
	n := &names{titles: room / 4}
	for _, n.longest = range []int{200, 120, 80, 48, 24, 16} {
		size := 0
		for _, name := range v.failedNames() {
			size += len(text.CodeName(name, n.longest)) + nameCost
		}
		if n.room, n.repeatRoom = min(size, room), max(0, room-size); size <= room {
			break
		}
	}
	return n
}

func (v view) failedNames() []string {
	all := targetNames(v.HostsFirst(verdict.TargetFailed, verdict.TargetMissing, verdict.TargetCancelled))
	for _, p := range v.Entries {
		all = append(all, cmp.Or(p.Name, p.Entry))
	}
	return all
}

func targetNames(targets []*verdict.Target) []string {
	all := make([]string, len(targets))
	for i, t := range targets {
		all[i] = t.Name()
	}
	return all
}

func (n *names) of(targets []*verdict.Target) nameList { return n.take(targetNames(targets)) }

// repeated returns names that are also written elsewhere.
func (n *names) repeated(targets []*verdict.Target) nameList {
	return n.within(&n.repeatRoom, targetNames(targets))
}

func (n *names) take(all []string) nameList { return n.within(&n.room, all) }

func (n *names) within(room *int, all []string) nameList {
	var l nameList
	for i, name := range all {
		name = text.CodeName(name, n.longest)
		if *room -= len(name) + nameCost; *room < 0 {
			l.more = len(all) - i
			break
		}
		l.shown = append(l.shown, name)
	}
	return l
}

// add adds further names to a list.
func (l *nameList) add(more nameList) {
	l.shown = append(l.shown, more.shown...)
	l.more += more.more
}

// title returns the root cause in a line, or "" if there is no room.
func (n *names) title(c *rootCause) string {
	title := c.headline(func(s string) string { return text.Code(s, max(n.longest, 80)) })
	if n.titles -= len(title); n.titles < 0 {
		return ""
	}
	return title
}

// A nameList has as many names as there was room for, and the number of the others.
type nameList struct {
	shown []string // Markdown
	more  int
}

func (l nameList) inline() string {
	line := strings.Join(l.shown, ", ")
	if l.more > 0 {
		line += fmt.Sprintf(" and %d more", l.more)
	}
	return line
}

// paragraph returns the list as a paragraph with a label, "" without one.
func (l nameList) paragraph(how string) string {
	const open = 20
	count := len(l.shown) + l.more
	if how == "" || count == 0 {
		return ""
	}
	how = strings.ToUpper(how[:1]) + how[1:] + ": "
	switch {
	case len(l.shown) == 0:
		return fmt.Sprintf("%s%s\n\n", how, text.Plural(count, "target"))
	case count <= open:
		return how + l.inline() + "\n\n"
	default:
		return fmt.Sprintf("%s%d targets\n\n%s", how, count, folded("Their names", l.inline()+"\n\n"))
	}
}

// block returns the list as a heading, or below a heading with their number if there are many.
func (l nameList) block() string {
	const inTitle, open = 3, 20
	count := len(l.shown) + l.more
	switch {
	case len(l.shown) == 0:
		return ""
	case count <= inTitle:
		return blockTitle + l.inline() + "\n\n"
	case count <= open:
		return fmt.Sprintf("%s%d targets\n\n%s\n\n", blockTitle, count, l.inline())
	default:
		return fmt.Sprintf("%s%d targets\n\n%s", blockTitle, count, folded("Their names", l.inline()+"\n\n"))
	}
}
