package job_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

func newPlan() *job.Plan {
	e := entry()
	e.Plan = ""
	return &job.Plan{
		Version: job.Version,
		ID:      job.DefaultID,
		Created: time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC),
		Nix:     "2.34.8", System: "x86_64-linux", Source: ".", Heads: []string{strings.Repeat("0a", 20), "", strings.Repeat("0a", 32)},
		Targets: []job.Target{
			{
				Attr: "nixosConfigurations.pi3", Name: "nixosConfigurations.pi3", Kind: job.NixOS, Host: "pi3", System: "aarch64-linux",
				DrvPath: drv, Outputs: []string{"out"}, OutPaths: map[string]string{"out": outPath}, State: job.StateBuild,
			},
			{
				Attr: "packages.x86_64-linux.other", Name: "packages.x86_64-linux.other", Kind: job.Package, System: "x86_64-linux",
				DrvPath: other, Outputs: []string{"out"}, State: job.StateSkip, Reason: "offered by a substituter",
				Description: "Another one", Features: []string{"kvm"}, Runner: []string{"big one"}, Reproduce: "nix build .#other",
			},
			{Attr: "checks.x86_64-linux.broken", Name: "checks.x86_64-linux.broken", Kind: job.Check, State: job.StateFailed, Error: "error: boom"},
		},
		Entries: []job.Entry{e},
		Savers:  map[string]string{drv: e.ID}, Took: map[string]job.EntryTime{e.ID: {Seconds: 1}},
		Substituters: []string{"https://cache.example.org?priority=1"}, PublicKeys: []string{"cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="},
		Drvs: &job.DrvPack{Key: "nix-matrix-drvs0-0", Size: 1, Paths: 2, SHA256: strings.Repeat("0", 64)},
		Programs: []job.Program{
			{Name: "cachix", System: "x86_64-linux", Nixpkgs: "nixpkgs", DrvPath: drv, Output: "bin", OutPath: outPath},
			{Name: "cachix", System: "aarch64-darwin", Nixpkgs: "nixpkgs", Output: "out", OutPath: outPath},
		},
		Notices: []string{"left out: aarch64-darwin"},
	}
}

func planJSON(t *testing.T, p *job.Plan) []byte {
	t.Helper()
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPlanRoundTrip(t *testing.T) {
	want := newPlan()
	got, err := job.ParsePlan(planJSON(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a plan comes back as another one:\n%s", diff)
	}
}

func TestParsePlanRefuses(t *testing.T) {
	refuse := func(what string, change func(*job.Plan)) {
		t.Helper()
		p := newPlan()
		change(p)
		if _, err := job.ParsePlan(planJSON(t, p)); err == nil {
			t.Errorf("a plan with %s passes", what)
		}
	}
	for _, version := range []int{0, -1, job.Version + 1} {
		refuse(fmt.Sprint("version ", version), func(p *job.Plan) { p.Version = version })
	}
	for _, n := range []int{-1, 3, 1 << 40} {
		refuse(fmt.Sprint("target number ", n), func(p *job.Plan) { p.Entries[0].Targets[0].N = n })
	}
	refuse("the same entry twice", func(p *job.Plan) { p.Entries = append(p.Entries, p.Entries[0]) })
	refuse("the same id twice", func(p *job.Plan) {
		p.Entries = append(p.Entries, p.Entries[0])
		p.Entries[1].Name = "another"
	})
	refuse("the same name twice", func(p *job.Plan) {
		p.Entries = append(p.Entries, p.Entries[0])
		p.Entries[1].ID = "another"
	})
	for _, head := range []string{"main", "0a", strings.Repeat("0A", 20), strings.Repeat("0a", 20) + "\n"} {
		refuse("the head "+head, func(p *job.Plan) { p.Heads = append(p.Heads, head) })
	}
	for _, took := range []job.EntryTime{{Seconds: -1}, {Seconds: 1e300}, {Fetched: -1}} {
		refuse(fmt.Sprintf("the time %+v", took), func(p *job.Plan) { p.Took[p.Entries[0].ID] = took })
	}
	refuse("no state", func(p *job.Plan) { p.Targets[0].State = "" })
	refuse("an unknown state", func(p *job.Plan) { p.Targets[2].State = "maybe" })
	refuse("no derivation to build", func(p *job.Plan) { p.Targets[0].DrvPath = "" })
	refuse("no derivation to skip", func(p *job.Plan) { p.Targets[1].DrvPath = "" })
	for _, bad := range badIDs {
		refuse("the id "+bad, func(p *job.Plan) { p.ID = bad })
		refuse("an entry's id "+bad, func(p *job.Plan) { p.Entries[0].ID = bad })
	}
	for _, bad := range badDrvs {
		for i := range 3 {
			refuse("the derivation "+bad, func(p *job.Plan) { p.Targets[i].DrvPath = bad })
		}
	}
	for _, bad := range badDrvs {
		if bad != "" {
			refuse("a program's derivation "+bad, func(p *job.Plan) { p.Programs[0].DrvPath = bad })
		}
	}
	for _, bad := range []string{"", "--help", "../sh", "cachix\n", "cachix push", strings.Repeat("a", 1<<20)} {
		refuse("the program "+bad, func(p *job.Plan) { p.Programs[0].Name = bad })
		refuse("a program for "+bad, func(p *job.Plan) { p.Programs[0].System = bad })
	}
	refuse("a program of too much", func(p *job.Plan) { p.Programs[0].Nixpkgs = strings.Repeat("a", 1<<20) })
	refuse("too many programs", func(p *job.Plan) { p.Programs = slices.Repeat(p.Programs[:1], 65) })
	for _, bad := range badOutputs {
		refuse("a program's output "+bad, func(p *job.Plan) { p.Programs[0].Output = bad })
		refuse("the output "+bad, func(p *job.Plan) { p.Targets[0].Outputs = []string{bad} })
		refuse("the path of an output "+bad, func(p *job.Plan) { p.Targets[0].OutPaths[bad] = outPath })
	}
	for _, bad := range []string{"", "/etc/passwd", outPath + "/bin", outPath + "\n"} {
		refuse("a program's path "+bad, func(p *job.Plan) { p.Programs[1].OutPath = bad })
		refuse("the output path "+bad, func(p *job.Plan) { p.Targets[0].OutPaths["out"] = bad })
	}
}

func TestParseText(t *testing.T) {
	plan, result := string(planJSON(t, newPlan())), string(resultJSON(t, newResult()))
	for text, want := range map[string]string{
		"":                     "not valid JSON",
		plan[:len(plan)-1]:     "not valid JSON",
		result[:len(result)-1]: "not valid JSON",
		plan + "{}":            "not valid JSON",
		"null":                 "version 0",
		"{}":                   "version 0",
		`{"version":2}`:        "Use the same nix-matrix in all jobs",
		`{"version":"1"}`:      "not valid JSON",
		`{"version":1}`:        "the id is empty",
	} {
		for what, parse := range map[string]func() error{
			"ParsePlan":   func() error { _, err := job.ParsePlan([]byte(text)); return err },
			"ParseResult": func() error { _, err := job.ParseResult([]byte(text)); return err },
		} {
			if err := parse(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s(%.40q) = %v, want it to say %q", what, text, err, want)
			}
		}
	}
}

func TestEntryByID(t *testing.T) {
	p := newPlan()
	if e, ok := p.EntryByID("7f3a"); !ok || e != &p.Entries[0] {
		t.Errorf("got %v, %t", e, ok)
	}
	if e, ok := p.EntryByID("7f3"); ok {
		t.Errorf("got %v for an id that is not there", e)
	}
}

func TestProgram(t *testing.T) {
	p := newPlan()
	if got, ok := p.Program("cachix", "aarch64-darwin"); !ok || got != p.Programs[1] {
		t.Errorf("got %v, %t", got, ok)
	}
	for name, system := range map[string]string{"cachix": "aarch64-linux", "git-crypt": "x86_64-linux"} {
		if got, ok := p.Program(name, system); ok {
			t.Errorf("got %v for %s on %s, which is not there", got, name, system)
		}
	}
}

func TestMatrix(t *testing.T) {
	p := newPlan()
	m := p.Matrix("key")
	if len(m.Include) != 1 || m.Include[0].Plan != "key" {
		t.Errorf("rows don't name their plan: %+v", m)
	}
	if p.Entries[0].Plan != "" {
		t.Error("making the matrix changed the plan")
	}
	if got := string(marshal(t, new(job.Plan).Matrix("key"))); got != `{"include":[]}` {
		t.Errorf("nothing to do gives %s", got)
	}
}

func TestPlanKey(t *testing.T) {
	one, two := []byte("one"), []byte("two")
	first, second := job.PlanKey("id", "", one)(0), job.PlanKey("id", "", one)(1)
	foreign := job.PlanKey("id", "", two)(0)
	if want := "id-plan0-7692c3ad3540bb803c020b3aee66cd88"; first != want {
		t.Errorf("got %s, want %s", first, want)
	}
	for _, key := range []string{first, second, job.PlanKey("other-id", "", one)(0), job.PlanKey("id", "0123456789abcdef", one)(0)} {
		if err := job.CheckPlanKey(key, one); err != nil {
			t.Error(err)
		}
		if !job.SamePlan(first, key) {
			t.Errorf("%s and %s are not of the same plan", first, key)
		}
	}
	if sealed := job.PlanKey("id", "0123456789abcdef", one)(0); sealed == first {
		t.Errorf("sealed and in clear, a plan has the key %s", sealed)
	}
	for _, key := range []string{foreign, "", first[:len(first)-1], first + "-", "id-plan0-"} {
		if job.CheckPlanKey(key, one) == nil {
			t.Errorf("%q is the key of %q", key, one)
		}
		if job.SamePlan(first, key) {
			t.Errorf("%s and %q are of the same plan", first, key)
		}
	}
	if job.SamePlan("", "") || job.SamePlan("a-", "b-") || job.SamePlan("2 to add", "2 to add") || job.SamePlan("a-plan0-5f0c", "a-plan0-5f0c") {
		t.Error("two that name no plan name the same")
	}
}

func TestPlanKeyID(t *testing.T) {
	data := []byte("one")
	for _, id := range []string{"id", "nix-matrix", "a_b-2", "x-plan0-y", "a-plan0-" + strings.Repeat("0", 32)} {
		for try, key := range []string{job.PlanKey(id, "", data)(0), job.PlanKey(id, "0123456789abcdef", data)(12)} {
			if got, ok := job.PlanKeyID(key); !ok || got != id {
				t.Errorf("%s (%d): the id is %q, %t", key, try, got, ok)
			}
		}
	}
	good := job.PlanKey("id", "", data)(0)
	for _, bad := range []string{"", "2 to add", good + "\n", " " + good, good + "0", good[:len(good)-1], strings.ToUpper(good), "-plan0-" + strings.Repeat("0", 32), strings.Repeat("a", 65) + good[2:]} {
		if id, ok := job.PlanKeyID(bad); ok {
			t.Errorf("%q passes for the key of a plan with the id %q", bad, id)
		}
	}
}

// FuzzParsePlan: a Plan that passes is safe and survives the way to the next job.
func FuzzParsePlan(f *testing.F) {
	data, _ := newPlan().Marshal()
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"version":1,"id":"a","created":"9999-12-31T23:59:59.999999999+23:59","targets":[{"state":"failed","outPaths":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := job.ParsePlan(data)
		if err != nil {
			return
		}
		safeID(t, p.ID)
		seen := map[string]bool{}
		for i := range p.Entries {
			e := &p.Entries[i]
			safeEntry(t, e)
			if seen[e.ID] {
				t.Errorf("the id %s passed twice", e.ID)
			}
			seen[e.ID] = true
			for _, r := range e.Targets {
				_ = p.Targets[r.N]
			}
		}
		for _, target := range p.Targets {
			if target.DrvPath != "" {
				safePath(t, target.DrvPath, ".drv")
			}
			for name, path := range target.OutPaths {
				safeOutput(t, name)
				safePath(t, path, "")
			}
			for _, o := range target.Outputs {
				safeOutput(t, o)
			}
		}
		for _, program := range p.Programs {
			if program.DrvPath != "" {
				safePath(t, program.DrvPath, ".drv")
			}
			safeOutput(t, program.Output)
			safePath(t, program.OutPath, "")
		}
		once := planJSON(t, p)
		again, err := job.ParsePlan(once)
		if err != nil {
			t.Fatalf("what passed once does not pass again: %v\n%s", err, once)
		}
		if diff := cmp.Diff(string(once), string(planJSON(t, again))); diff != "" {
			t.Error(diff)
		}
	})
}
