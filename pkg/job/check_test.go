package job_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
)

// Texts that are invalid wherever a name is shown, and others that are invalid where a name
// becomes a word of a program's arguments or settings.
var (
	badText = slices.Clip([]string{strings.Repeat("a", 1<<20)})
	badLine = slices.Clip(append([]string{"a\nb", "a\x00", "\x1b[2Jred", "a\u202eb", "a\u2028b", "\u009b"}, badText...))
	badWord = slices.Clip(append([]string{"--plugin-files", "-o x", "a b", "../a", "a/../b", "${x}", "$(id)", `"`, "'", "a;b", "\ufffd"}, badLine...))
)

// A targetField changes a field of a target.
var targetFields = map[string]struct {
	bad    []string
	change func(t *job.Target, s string)
}{
	"attr":        {badLine, func(t *job.Target, s string) { t.Attr = s }},
	"name":        {append(badLine, "", " "), func(t *job.Target, s string) { t.Name = s }},
	"kind":        {append(badWord, "", "NixOS"), func(t *job.Target, s string) { t.Kind = job.Kind(s) }},
	"host":        {badLine, func(t *job.Target, s string) { t.Host = s }},
	"system":      {badWord, func(t *job.Target, s string) { t.System = s }},
	"drvPath":     {append(badWord, badDrvs...), func(t *job.Target, s string) { t.DrvPath = s }},
	"outputs":     {slices.Concat(badOutputs, badText), func(t *job.Target, s string) { t.Outputs = []string{"out", s} }},
	"outPaths":    {append(badWord, "", "out!", "dev"), func(t *job.Target, s string) { t.OutPaths = map[string]string{s: outPath} }},
	"path":        {append(badWord, "", "/etc/passwd", outPath+"/bin"), func(t *job.Target, s string) { t.OutPaths = map[string]string{"out": s} }},
	"description": {append(badText, "a\nb", "\x1b"), func(t *job.Target, s string) { t.Description = s }},
	"features":    {append(badLine, "", "a b"), func(t *job.Target, s string) { t.Features = []string{s} }},
	"runner":      {append(badLine, "", " "), func(t *job.Target, s string) { t.Runner = []string{s} }},
	"group":       {slices.Concat(badLine, []string{" a", "a ", "-a", "../a", "${{ a }}", strings.Repeat("a", 65)}), func(t *job.Target, s string) { t.Group = s }},
	"reproduce":   {badLine, func(t *job.Target, s string) { t.Reproduce = s }},
	"state":       {append(badWord, "", "Build"), func(t *job.Target, s string) { t.State = job.State(s) }},
	"error":       {badText, func(t *job.Target, s string) { t.Error = s }},
	"needsSecret": {badWord, func(t *job.Target, s string) { t.NeedsSecret = s }},
	"reason":      {badText, func(t *job.Target, s string) { t.Reason = s }},
}

func TestParsePlanRefusesTargets(t *testing.T) {
	for name, field := range targetFields {
		t.Run(name, func(t *testing.T) {
			for _, bad := range field.bad {
				p := newPlan()
				field.change(&p.Targets[1], bad)
				_, err := job.ParsePlan(planJSON(t, p))
				if err == nil {
					t.Errorf("%.50q passes", bad)
				} else if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
					t.Errorf("%.50q has the error %.300q of %d bytes", bad, err, len(err.Error()))
				}
			}
		})
	}
}

func TestParsePlanRefusesLists(t *testing.T) {
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint("x", i)
	}
	for name, change := range map[string]func(p *job.Plan, t *job.Target){
		"many outputs":          func(_ *job.Plan, t *job.Target) { t.Outputs = many },
		"many features":         func(_ *job.Plan, t *job.Target) { t.Features = many },
		"many labels":           func(_ *job.Plan, t *job.Target) { t.Runner = many },
		"nothing to build":      func(_ *job.Plan, t *job.Target) { t.State, t.Outputs, t.OutPaths = job.StateBuild, nil, nil },
		"nothing that is there": func(_ *job.Plan, t *job.Target) { t.Outputs, t.OutPaths = nil, nil },
		"a reason like a refusal": func(_ *job.Plan, t *job.Target) {
			*t = job.Target{Name: "a", Kind: job.Other, State: job.StateSkip, Reason: "because it is broken"}
		},
		"a reason like a secret": func(_ *job.Plan, t *job.Target) {
			*t = job.Target{Name: "a", Kind: job.Other, State: job.StateSkip, Reason: "needs a secret: x"}
		},
		"refused and built":        func(_ *job.Plan, t *job.Target) { t.State, t.Refused = job.StateBuild, true },
		"built without its secret": func(_ *job.Plan, t *job.Target) { t.State, t.NeedsSecret = job.StateBuild, "x" },
		"no system that is one":    func(p *job.Plan, _ *job.Target) { p.Emulated = []string{"--x"} },
		"a timeout without end":    func(_ *job.Plan, t *job.Target) { t.Timeout = job.MaxTimeout + 1 },
		"a timeout before it":      func(_ *job.Plan, t *job.Target) { t.Timeout = -1 },
		"an entry without end":     func(p *job.Plan, _ *job.Target) { p.Entries[0].Timeout = job.MaxTimeout + 1 },
		"first of all":             func(_ *job.Plan, t *job.Target) { t.Priority = job.MaxPriority + 1 },
		"last of all":              func(_ *job.Plan, t *job.Target) { t.Priority = -job.MaxPriority - 1 },
		"no system":                func(_ *job.Plan, t *job.Target) { t.System = "" },
		"a list as substituter":    func(p *job.Plan, _ *job.Target) { p.Substituters = []string{"https://a https://b"} },
		"an option as substituter": func(p *job.Plan, _ *job.Target) { p.Substituters = []string{"--plugin-files"} },
		"a line as substituter":    func(p *job.Plan, _ *job.Target) { p.Substituters = []string{"https://a\nplugin-files = /x"} },
		"a list as key":            func(p *job.Plan, _ *job.Target) { p.PublicKeys = []string{"a:aaaa b:bbbb"} },
		"no key":                   func(p *job.Plan, _ *job.Target) { p.PublicKeys = []string{"a"} },
		"no entry that saves":      func(p *job.Plan, _ *job.Target) { p.Savers = map[string]string{drv: "../x"} },
		"no derivation to save":    func(p *job.Plan, _ *job.Target) { p.Savers = map[string]string{"--x": "x"} },
		"no entry that took":       func(p *job.Plan, _ *job.Target) { p.Took = map[string]job.EntryTime{"../x": {}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlan()
			change(p, &p.Targets[1])
			if _, err := job.ParsePlan(planJSON(t, p)); err == nil {
				t.Error("it passes")
			}
		})
	}
}

// A target that is refused, or that cannot be evaluated, needs no derivation.
func TestParsePlanWithoutDerivation(t *testing.T) {
	for _, target := range []job.Target{
		{Name: "a", Kind: job.Other, State: job.StateFailed, Error: "x"},
		{Name: "a", Kind: job.Other, State: job.StateSkip, Refused: true, Reason: "because it is broken"},
		{Name: "a", Kind: job.Other, State: job.StateSkip, NeedsSecret: "x", Reason: "needs a secret: x"},
	} {
		p := newPlan()
		p.Targets[1] = target
		if _, err := job.ParsePlan(planJSON(t, p)); err != nil {
			t.Error(err)
		}
	}
}

func TestParseEntryRefusesFields(t *testing.T) {
	for name, field := range map[string]struct {
		bad    []string
		change func(e *job.Entry, s string)
	}{
		"name":           {append(badLine, "", " "), func(e *job.Entry, s string) { e.Name = s }},
		"host":           {badLine, func(e *job.Entry, s string) { e.Host = &s }},
		"platform":       {append(badWord, ""), func(e *job.Entry, s string) { e.Platform = s }},
		"system":         {append(badWord, ""), func(e *job.Entry, s string) { e.System = s }},
		"attr":           {badLine, func(e *job.Entry, s string) { e.Attr = s }},
		"runner":         {append(badLine, ""), func(e *job.Entry, s string) { e.Runner = []string{s} }},
		"plan":           {badLine, func(e *job.Entry, s string) { e.Plan = s }},
		"a target's":     {badLine, func(e *job.Entry, s string) { e.Targets[1].Attr = s }},
		"no runner":      {[]string{""}, func(e *job.Entry, _ string) { e.Runner = nil }},
		"no outputs":     {[]string{""}, func(e *job.Entry, _ string) { e.Outputs = nil }},
		"a large output": {badText, func(e *job.Entry, s string) { e.Outputs = []string{s} }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, bad := range field.bad {
				e := entry()
				field.change(&e, bad)
				if _, err := job.ParseEntry(marshal(t, e)); err == nil {
					t.Errorf("%.50q passes", bad)
				} else if len(err.Error()) > 1000 {
					t.Errorf("%.50q has an error of %d bytes", bad, len(err.Error()))
				}
			}
		})
	}
}
