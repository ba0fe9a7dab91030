package job_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
)

func numbered(n int) string { return fmt.Sprintf("/nix/store/%032d-d%d.drv", n, n) }

func unit(n int, after ...int) job.Unit {
	wanted := []job.Wanted{{DrvPath: numbered(n), Outputs: []string{"out"}}}
	return job.Unit{
		ID: job.NewUnitID(wanted), Name: fmt.Sprintf("d%d", n), System: "x86_64-linux", Drvs: []string{numbered(n)},
		Wanted: wanted, After: after, For: []int{0}, Seconds: 60, Tail: 90,
	}
}

// A Plan with a unit that a worker could not obey is refused.
func TestUnits(t *testing.T) {
	for name, change := range map[string]func(p *job.Plan){
		"":                              func(*job.Plan) {},
		"is not before it":              func(p *job.Plan) { p.Units[1].After = []int{1} },
		"there is no entry 1":           func(p *job.Plan) { p.Units[1].For = []int{1} },
		"is there twice":                func(p *job.Plan) { p.Units[1].ID = p.Units[0].ID },
		numbered(1) + " is there twice": func(p *job.Plan) { p.Units[1].Drvs = append(p.Units[1].Drvs, numbered(1)) },
		"it does not build":             func(p *job.Plan) { p.Units[0].Wanted[0].DrvPath = numbered(7) },
		"wanted: there is none":         func(p *job.Plan) { p.Units[0].Wanted = nil },
		"drvs: there is none":           func(p *job.Plan) { p.Units[0].Drvs, p.Units[0].Wanted = nil, nil },
		"is no id of a unit":            func(p *job.Plan) { p.Units[0].ID = "../" },
		"is no time in seconds":         func(p *job.Plan) { p.Units[0].Tail = -1 },
		"renewed every 0 seconds":       func(p *job.Plan) { p.Beat = 0 },
		"name: it is empty":             func(p *job.Plan) { p.Units[0].Name = " " },
		"it is not for the entry 1":     func(p *job.Plan) { p.Units[0].Direct = []int{1} },
		"for: there is none":            func(p *job.Plan) { p.Units[0].For = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := &job.Plan{
				Version: job.Version, ID: "nix-matrix", Beat: 60, Units: []job.Unit{unit(1), unit(2, 0)},
				Entries: []job.Entry{{
					Name: "helper 1 x86_64-linux", ID: "0123456789", Helper: true, Platform: "x86_64-linux", System: "x86_64-linux",
					Runner: []string{"ubuntu-latest"}, Targets: []job.Ref{},
				}},
			}
			change(p)
			data, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			_, err = job.ParsePlan(data)
			if name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), name)) {
				t.Errorf("ParsePlan: %v", err)
			}
		})
	}
}

// A helper with a target, and an entry without one, are refused: one would build what nobody asked
// for, the other nothing and be green.
func TestHelper(t *testing.T) {
	row := `{"name":"a","id":"a","platform":"x86_64-linux","system":"x86_64-linux","runner":["x"],%s}`
	for fields, want := range map[string]string{
		`"helper":true,"targets":[]`:        "",
		`"targets":[]`:                      "targets: there is none",
		`"helper":true,"targets":[{"n":0}]`: "a helper has none",
		`"helper":true,"targets":[],"drvPath":"` + numbered(1) + `"`: "a helper has none",
	} {
		_, err := job.ParseEntry([]byte(fmt.Sprintf(row, fields)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}

func TestDone(t *testing.T) {
	good := job.Done{Version: job.Version, Unit: unit(1).ID, Attempt: 1, Outcome: job.OutcomeBuilt, Entry: "a"}
	for want, change := range map[string]func(d *job.Done){
		"":                   func(*job.Done) {},
		"no id of a unit":    func(d *job.Done) { d.Unit = "x" },
		"cannot be present":  func(d *job.Done) { d.Outcome = job.OutcomePresent },
		"unknown outcome":    func(d *job.Done) { d.Outcome = "great" },
		"failed without":     func(d *job.Done) { d.Outcome = job.OutcomeFailed },
		"invalid store path": func(d *job.Done) { d.Failures = []job.Failure{{DrvPath: "/etc/passwd"}} },
		"no time in seconds": func(d *job.Done) { d.Seconds = math.MaxFloat64 },
		"entry: it is empty": func(d *job.Done) { d.Entry = "" },
		"unit has version 2": func(d *job.Done) { d.Version = 2 },
	} {
		d := good
		change(&d)
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = job.ParseDone(data)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("ParseDone: %v, want %q", err, want)
		}
	}
}

// The key of a claim can be parsed, is valid in every cache, and begins no other one.
func TestClaimKey(t *testing.T) {
	k := job.ClaimKey{ID: "nix-matrix", Run: 12, Attempt: 1, Unit: unit(1).ID, Try: 1}
	later, next := k, k
	later.Beat, next.Try = 10, 10
	for _, key := range []job.ClaimKey{k, later, next} {
		if err := cache.CheckKey(key.String()); err != nil {
			t.Error(err)
		}
		if parsed, ok := k.Parse(key.String()); !ok || parsed != key {
			t.Errorf("%s is %v, %v", key, parsed, ok)
		}
		if kind, ok := job.ParseKey("nix-matrix", key.String()); !ok || kind != job.KeyClaim {
			t.Errorf("%s has the kind %q", key, kind)
		}
		if kind, ok := job.ParseKey("nix-matrix", job.DoneKey(key)); !ok || kind != job.KeyDone {
			t.Errorf("%s has the kind %q", job.DoneKey(key), kind)
		}
		for _, other := range []job.ClaimKey{k, later, next} {
			if key != other && strings.HasPrefix(other.String(), key.String()) {
				t.Errorf("%s begins %s", key, other)
			}
		}
	}
	for _, wrong := range []string{"", "x", k.Prefix(), k.Prefix() + "1", k.Prefix() + "01-00000", k.Prefix() + "1-0", k.String() + "0x"} {
		if parsed, ok := k.Parse(wrong); ok {
			t.Errorf("%q is %v", wrong, parsed)
		}
	}
}

func TestParseDoneKey(t *testing.T) {
	prefix := job.DonePrefix("nix-matrix", 7, "00000000000000aa")
	if attempt, try, ok := job.ParseDoneKey(prefix, job.DoneKey(job.ClaimKey{ID: "nix-matrix", Run: 7, Attempt: 2, Unit: "00000000000000aa", Try: 13})); !ok || attempt != 2 || try != 13 {
		t.Error(attempt, try, ok)
	}
	for _, rest := range []string{"", "1", "1-", "-1", "1-01", "1-x", "1-2-3", "1-99999999999999999999"} {
		if _, _, ok := job.ParseDoneKey(prefix, prefix+rest); ok {
			t.Errorf("%q is taken for a key", rest)
		}
	}
}

func TestParseClaim(t *testing.T) {
	if c, err := job.ParseClaim([]byte(`{"holder":"x","entry":"host"}`)); err != nil || c.Entry != "host" {
		t.Error(c, err)
	}
	for _, text := range []string{"", "{}", `{"holder":"x"}`, `{"entry":"host"}`, `{"holder":"x","entry":"a\nb"}`, `{"holder":"x","entry":"a","url":"\u001b"}`} {
		if c, err := job.ParseClaim([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, c)
		}
	}
}
