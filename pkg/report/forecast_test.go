package report

import (
	"regexp"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// ourFlowchart is a diagram of one unit and one entry with names that have no meaning to Mermaid.
var ourFlowchart = regexp.MustCompile(`^flowchart LR\n  u0\["[\pL\pN ._…+/@-]{0,48}<br>10s"\]\n  u0 --> e0\n  e0\(\["[\pL\pN ._…+/@-]{0,48}"\]\)\n$`)

func checkFlowchart(t *testing.T, name string) {
	f := &plan.Forecast{Units: []job.Unit{{Name: name, For: []int{0}, Seconds: 10}}, Entries: []string{name}}
	if got := ForecastMermaid(f); !ourFlowchart.MatchString(got) {
		t.Errorf("%q makes the diagram\n%s", name, got)
	}
}

func FuzzFlowchart(f *testing.F) {
	for _, name := range hostileTexts {
		f.Add(name)
	}
	f.Fuzz(checkFlowchart)
}
