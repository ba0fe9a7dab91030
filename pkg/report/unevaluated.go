package report

import (
	"fmt"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// failedToEvaluate returns a view of the targets of a Plan that cannot be evaluated.
func failedToEvaluate(p *job.Plan) view {
	v := view{&verdict.Verdict{}}
	for i, t := range p.Targets {
		if t.State == job.StateFailed {
			v.Targets = append(v.Targets, verdict.Target{N: i, Target: t, Status: verdict.TargetFailed, Why: t.Error})
		}
	}
	return v
}

// UnevaluatedAnnotations returns an annotation for each cause for which targets of the Plan cannot be
// evaluated, within the bounds of [Annotations].
func UnevaluatedAnnotations(p *job.Plan) []Annotation {
	var all []Annotation
	for _, c := range failedToEvaluate(p).rootCauses(true) {
		all = append(all, c.annotation())
	}
	return atLevel("error", all)
}

// causeLines returns the causes of targets that cannot be evaluated for a log, each as lines: the
// cause, the names of several targets, and the message of Nix. The messages share a limit, so that
// the whole message of a usual error is there unless there are very many.
func (v view) causeLines() []string {
	const (
		most               = 50       // causes
		room               = 48 << 10 // bytes of all messages
		shortest, longest  = 1 << 10, 4 << 10
		maxNames, maxPlace = 4 << 10, 200
	)
	causes := v.rootCauses(true)
	each := min(max(room/max(1, len(causes)), shortest), longest)
	all := make([]string, 0, min(len(causes), most+1))
	for i, c := range causes {
		if i == most {
			return append(all, fmt.Sprintf("and %d more", len(causes)-most))
		}
		lines := []string{c.headline(plain)}
		_, detail := c.statement()
		if len(detail) > 0 && strings.Contains(lines[0], plain(detail[0])) {
			detail = detail[1:]
		}
		if place := position(sourcePosition(c.targets[0].Why)); place != "" {
			lines[0] += " (" + inlineText(place, maxPlace) + ")"
		}
		if len(c.targets) > 1 {
			lines = append(lines, "targets: "+text.NoCommandsWithin(text.Line(list(targetNames(c.targets), ", ", maxNames))))
		}
		for _, line := range clipped(detail, each, true) {
			lines = append(lines, strings.TrimRight("| "+text.NoCommandsWithin(line), " "))
		}
		all = append(all, strings.Join(lines, "\n"))
	}
	return all
}

// causeSection returns the causes of targets that cannot be evaluated as Markdown, as the report
// shows them, of at most limit bytes.
func (v view) causeSection(limit int) string {
	n := v.newNames(limit / 2)
	s := v.unevaluatedSection(n)
	room := limit - s.minSize()
	return s.render(room/max(1, len(s.blocks)), &room)
}

// nixPosition matches a position in an error of Nix.
var nixPosition = lazyregexp.New(`(?m)^\s*at (/\S.*?):(\d+)(?::\d+)?:?$`)

// storeSource matches the store path of a flake's source.
var storeSource = lazyregexp.New(`^/nix/store/[0-9a-z]{32}-source/`)

// sourcePosition returns the first position in a message of Nix.
func sourcePosition(message string) (file string, line int) {
	const maxMessage = 256 << 10
	m := nixPosition().FindStringSubmatch(text.Clip(message, maxMessage))
	if m == nil {
		return "", 0
	}
	_, _ = fmt.Sscan(m[2], &line) // 0 if the number is too large
	return storeSource().ReplaceAllLiteralString(m[1], ""), line
}
