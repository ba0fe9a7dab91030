package report

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A failed push is in every report, whether it makes the verdict red or not.
func TestPushesThatCannotHappen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		push job.Push
		want verdict.Status
		kind string
	}{
		"a secret is missing":            {job.Push{Error: "ATTIC_TOKEN is not set", Reason: job.PushNoSecret}, verdict.Failure, ""},
		"that need not be":               {job.Push{Error: "ATTIC_TOKEN is not set", Reason: job.PushNoSecret, Optional: true}, verdict.Success, " (optional)"},
		"the run has none":               {job.Push{Error: "ATTIC_TOKEN is not set", Reason: job.PushNoSecret, Optional: true, Withheld: true}, verdict.Success, " (optional, because GitHub gives the run no secrets)"},
		"it is refused":                  {job.Push{Error: "the server answers 403", Reason: job.PushRefused, Status: 403}, verdict.Failure, ""},
		"it is refused, and need not be": {job.Push{Error: "the server answers 403", Reason: job.PushRefused, Status: 403, Optional: true}, verdict.Success, " (optional)"},
		"it is refused without secrets":  {job.Push{Error: "the server answers 403", Reason: job.PushRefused, Status: 403, Optional: true, Withheld: true}, verdict.Success, " (optional, because GitHub gives the run no secrets)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planOf(host("nas", ""))
			results := resultsOf(p)
			test.push.Destination = "attic:https://attic.example.org/fleet"
			results[0].Pushes = []job.Push{test.push}
			if !test.push.Optional {
				results[0].Outcome = job.OutcomeFailed
			}
			v := verdict.Judge(p, planKey, results, nil)
			if v.Status != test.want {
				t.Errorf("%s: %s", v.Status, v.Reason)
			}
			html := HTML(v, SummaryOptions{})
			data, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			full := Summary(v, SummaryOptions{})
			v.Change = &verdict.Change{}
			brief := Summary(v, SummaryOptions{Brief: true})
			if brief == full {
				t.Fatal("the brief summary is the whole one")
			}
			for where, text := range map[string]string{
				"the summary": full, "the comment": brief, "the log": Text(v), "the page": string(html), "the JSON": string(data),
			} {
				if !strings.Contains(text, test.push.Destination) || !strings.Contains(text, test.push.Error) {
					t.Errorf("%s does not say it:\n%s", where, text)
				}
			}
			for where, text := range map[string]string{"the summary": full, "the comment": brief, "the log": Text(v), "the page": string(html)} {
				if where == "the comment" && !test.push.Optional {
					continue // it is among the errors there
				}
				if !strings.Contains(text, test.kind+": ") {
					t.Errorf("%s does not say%s:\n%s", where, test.kind, text)
				}
			}
			for _, want := range []string{`"reason":"` + string(test.push.Reason) + `"`} {
				if !strings.Contains(string(data), want) {
					t.Errorf("the JSON does not have %s: %s", want, data)
				}
			}
		})
	}
}
