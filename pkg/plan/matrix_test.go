package plan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// matrix returns the matrix of targets, as parsed from its JSON.
func matrix(t *testing.T, targets []job.Target) (data []byte, m job.Matrix) {
	t.Helper()
	p := &job.Plan{Targets: targets, Entries: entries(t, targets)}
	data, err := plan.Matrix(p, "nix-matrix-plan0-0")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if n := len(utf16.Encode([]rune(string(data)))); n > job.MaxMatrix {
		t.Errorf("the matrix has %d characters", n)
	}
	seen := map[int]bool{}
	for _, e := range m.Include {
		row, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := job.ParseEntry(row); err != nil {
			t.Error(err)
		}
		if len(row) > 64<<10 {
			t.Errorf("%s has %d bytes, too many for an environment variable", e.Name, len(row))
		}
		for _, r := range e.Targets {
			seen[r.N] = true
		}
	}
	if len(seen) != len(targets) {
		t.Errorf("the matrix has %d targets of %d", len(seen), len(targets))
	}
	return data, m
}

// The fields of a row are documented for workflows: a change here breaks users.
func TestMatrix(t *testing.T) {
	pi3 := on("aarch64-linux", host(3, "nixosConfigurations.pi3"))
	pi3.Attr += ".config.system.build.toplevel"
	data, _ := matrix(t, []job.Target{pi3, pkg(4, "packages.x86_64-linux.hello")})
	var got bytes.Buffer
	if err := json.Indent(&got, data, "", " "); err != nil {
		t.Fatal(err)
	}
	want := `{
 "include": [
  {
   "name": "nixosConfigurations.pi3",
   "id": "` + job.NewEntryID("nixosConfigurations.pi3") + `",
   "host": "pi3",
   "platform": "aarch64-linux",
   "system": "aarch64-linux",
   "attr": "nixosConfigurations.pi3.config.system.build.toplevel",
   "drvPath": "/nix/store/00000000000000000000000000000003-d.drv",
   "outputs": [
    "out"
   ],
   "runner": [
    "ubuntu-latest"
   ],
   "qemu": true,
   "plan": "nix-matrix-plan0-0",
   "targets": [
    {
     "n": 0,
     "attr": "nixosConfigurations.pi3.config.system.build.toplevel",
     "drvPath": "/nix/store/00000000000000000000000000000003-d.drv"
    }
   ]
  },
  {
   "name": "packages.x86_64-linux.hello",
   "id": "` + job.NewEntryID("packages.x86_64-linux.hello") + `",
   "host": null,
   "platform": "x86_64-linux",
   "system": "x86_64-linux",
   "attr": "packages.x86_64-linux.hello",
   "drvPath": "/nix/store/00000000000000000000000000000004-d.drv",
   "outputs": [
    "out"
   ],
   "runner": [
    "ubuntu-latest"
   ],
   "qemu": false,
   "plan": "nix-matrix-plan0-0",
   "targets": [
    {
     "n": 1,
     "attr": "packages.x86_64-linux.hello",
     "drvPath": "/nix/store/00000000000000000000000000000004-d.drv"
    }
   ]
  }
 ]
}`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMatrixOfNothing(t *testing.T) {
	data, _ := matrix(t, nil)
	if got := string(data); got != `{"include":[]}` {
		t.Errorf("got %s", got)
	}
}

func TestMatrixSize(t *testing.T) {
	_, m := matrix(t, packages(1000))
	if r := m.Include[0].Targets[0]; r.Attr == "" || r.DrvPath == "" {
		t.Errorf("%+v was shortened without need", r)
	}

	// A row becomes an environment variable, indented.
	_, m = matrix(t, packages(3000))
	for _, e := range m.Include {
		if row, err := json.MarshalIndent(e, "", "  "); err != nil || len(row) > 128<<10 {
			t.Errorf("the row %s has %d bytes (%v)", e.Name, len(row), err)
		}
	}

	// With names this long only numbers fit; an emoji counts twice.
	targets := packages(1000)
	for n := range targets {
		targets[n].Attr = "packages." + strings.Repeat("🚀", 300) + fmt.Sprint(n)
	}
	p := &job.Plan{Targets: targets, Entries: entries(t, targets)}
	if _, err := plan.Matrix(p, "key"); err != nil {
		t.Fatal(err)
	}
	if r := p.Entries[0].Targets[0]; r.Attr == "" || r.DrvPath == "" {
		t.Error("making the matrix changed the plan")
	}
	_, m = matrix(t, targets)
	for _, e := range m.Include {
		if e.Attr == "" || e.DrvPath == "" {
			t.Errorf("the row %s lost its first target without need", e.Name)
		}
		for _, r := range e.Targets {
			if r.Attr != "" || r.DrvPath != "" {
				t.Fatalf("%+v is not just a number", r)
			}
		}
	}
}

// Only rows that are too long for an environment variable are shortened.
func TestMatrixLongRows(t *testing.T) {
	targets := append(packages(16000), on("aarch64-linux", pkg(16000, "packages.aarch64-linux.p")))
	_, m := matrix(t, targets)
	for _, e := range m.Include {
		if long := len(e.Targets) > 1; long != (e.Targets[0].Attr == "") {
			t.Errorf("%s with %d targets begins with %+v", e.Name, len(e.Targets), e.Targets[0])
		}
	}
}

// A thousand targets fit, whatever their names. Long names that have to be escaped take most of a
// job's outputs.
func TestMatrixOfThousand(t *testing.T) {
	hostile := func(n int) string { return fmt.Sprintf("%s%04d", strings.Repeat(`"`, 296), n) }
	path := func(n int) string {
		return fmt.Sprintf("/nix/store/%032d-%s.drv", n, strings.Repeat("n", 211-len(".drv")))
	}
	targets := make([]job.Target, 1000)
	for n := range targets {
		targets[n] = host(n, "nixosConfigurations."+hostile(n))
		targets[n].Host, targets[n].DrvPath = hostile(n), path(n)
		targets[n].Attr += ".config.system.build.toplevel"
	}
	if _, m := matrix(t, targets); len(m.Include) != plan.MaxEntries {
		t.Errorf("a thousand hosts: %d entries", len(m.Include))
	}
	for n := range targets {
		if n%4 != 0 {
			targets[n] = pkg(n, "packages.x86_64-linux."+hostile(n))
			targets[n].DrvPath = path(n)
		}
	}
	_, m := matrix(t, targets)
	if len(m.Include) != plan.MaxEntries {
		t.Errorf("%d entries", len(m.Include))
	}
	for _, e := range m.Include {
		if e.Name == "" || e.DrvPath == "" || len(e.Runner) == 0 || (e.Host == nil) != (len(e.Targets) > 1) {
			t.Errorf("%+v lacks what a worker or a workflow wants", e)
		}
	}
}

func TestMatrixTooLarge(t *testing.T) {
	var targets []job.Target
	for n := range plan.MaxEntries {
		targets = append(targets, host(n, fmt.Sprint(n)))
		targets[n].Host = strings.Repeat("🚀", 1000)
	}
	p := &job.Plan{Targets: targets, Entries: entries(t, targets)}
	if _, err := plan.Matrix(p, "key"); err == nil || !strings.Contains(err.Error(), "fewer installables") {
		t.Errorf("got %v", err)
	}
}
