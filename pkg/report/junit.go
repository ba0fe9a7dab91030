package report

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// The elements of a JUnit report, as Jenkins, GitLab and most actions read them.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		junitTotals
		Suite junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		junitTotals
		Timestamp string      `xml:"timestamp,attr,omitempty"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitTotals struct {
		Name     string `xml:"name,attr"`
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Time     string `xml:"time,attr"` // seconds
	}
	junitCase struct {
		Name    string      `xml:"name,attr"`
		Class   string      `xml:"classname,attr"`
		Time    string      `xml:"time,attr"` // seconds
		Skipped *junitWhy   `xml:"skipped"`
		Failure *junitCause `xml:"failure"`
		Error   *junitCause `xml:"error"`
	}
	junitWhy struct {
		Message string `xml:"message,attr"`
	}
	junitCause struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit returns the verdict as a JUnit report with a test case for each target, whose class is its
// kind and system. A target that failed to build is a failure; one that could not be evaluated, was
// cancelled or has no result is an error. An error outside of targets has a case of its own.
func JUnit(of *verdict.Verdict) ([]byte, error) {
	const (
		allText   = 8 << 20 // bytes, of all causes together
		leastText = 4 << 10
		mostText  = 64 << 10
	)
	v := view{of}
	suite := junitSuite{junitTotals: junitTotals{Name: "nix-matrix", Time: junitTime(v.JobSeconds)}}
	if v.Origin != nil && !v.Origin.Created.IsZero() {
		suite.Timestamp = v.Origin.Created.UTC().Format("2006-01-02T15:04:05")
	}
	each := min(max(allText/max(v.Counts.Failed, 1), leastText), mostText)
	one := v.single()
	for _, t := range v.HostsFirst() {
		suite.add(junitTarget(t, one, each))
	}
	problem := func(name, message string) {
		c := junitCase{Name: cmp.Or(text.Line(name), text.None), Class: "entry", Time: junitTime(0)}
		lines := text.Lines(message)
		c.Error = &junitCause{Type: "entry", Text: strings.Join(clipped(lines, each, true), "\n")}
		if len(lines) > 0 {
			c.Error.Message = text.Clip(strings.TrimSpace(lines[0]), longMessage)
		}
		suite.add(c)
	}
	for _, p := range v.Entries {
		if p.Status == verdict.Failure {
			problem(cmp.Or(p.Name, p.Entry), p.Message)
		}
	}
	if v.Status == verdict.Failure && suite.Failures+suite.Errors == 0 { // such as one without a plan
		problem("verdict", v.Reason+"\n"+v.Next)
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", " ")
	if err := e.Encode(junitSuites{junitTotals: suite.junitTotals, Suite: suite}); err != nil {
		return nil, fmt.Errorf("cannot write the JUnit report: %w", err)
	}
	b.WriteString("\n")
	return b.Bytes(), nil
}

// longMessage is the most bytes of a message, which readers show in a line.
const longMessage = 1000

func (s *junitSuite) add(c junitCase) {
	s.Tests++
	switch {
	case c.Skipped != nil:
		s.Skipped++
	case c.Failure != nil:
		s.Failures++
	case c.Error != nil:
		s.Errors++
	}
	s.Cases = append(s.Cases, c)
}

// junitTarget returns the test case of a target, whose cause has at most limit bytes.
func junitTarget(t *verdict.Target, one func(*verdict.Target) view, limit int) junitCase {
	c := junitCase{Name: cmp.Or(text.Line(t.Name()), text.None), Class: string(t.Target.Kind), Time: junitTime(0)}
	if system := text.Line(t.Target.System); system != "" {
		c.Class += "/" + system
	}
	if t.Result != nil {
		c.Time = junitTime(t.Result.Seconds)
	}
	why := text.Clip(text.Line(t.Why), longMessage)
	switch {
	case t.Status == verdict.TargetSkipped:
		c.Skipped = &junitWhy{Message: why}
	case t.Status == verdict.TargetFailed:
		cause := one(t).rootCauses(t.Unevaluated())[0]
		said := &junitCause{
			Message: text.Clip(cause.headline(text.Line), longMessage), Type: failureType(t),
			Text: strings.Join(clipped(cause.lines(maxLogLines), limit, true), "\n"),
		}
		if t.Unevaluated() {
			c.Error = said
		} else {
			c.Failure = said
		}
	case !t.Done():
		c.Error = &junitCause{Message: why, Type: string(t.Status)}
	}
	return c
}

// failureType returns how a target failed, in a word.
func failureType(t *verdict.Target) string {
	switch {
	case t.Unevaluated():
		return "evaluation"
	case t.StepFailed():
		return "post_build"
	case t.TimedOut:
		return "timeout"
	case t.BlockedBy() != "":
		return "dependency"
	default:
		return "build"
	}
}

func junitTime(seconds float64) string {
	return fmt.Sprintf("%.3f", verdict.Seconds(seconds).Seconds())
}
