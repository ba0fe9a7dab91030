package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// drvPath returns a derivation's path for a number.
func drvPath(n int) string { return fmt.Sprintf("/nix/store/%032d-d.drv", n) }

func host(n int, attr string) job.Target {
	return job.Target{
		Attr: attr, Name: attr, Kind: job.NixOS, Host: attr[strings.LastIndexByte(attr, '.')+1:],
		System: "x86_64-linux", DrvPath: drvPath(n), Outputs: []string{"out"}, State: job.StateBuild,
	}
}

func pkg(n int, attr string) job.Target {
	return job.Target{Attr: attr, Name: attr, Kind: job.Package, System: "x86_64-linux", DrvPath: drvPath(n), Outputs: []string{"out"}, State: job.StateBuild}
}

func packages(count int) []job.Target {
	targets := make([]job.Target, count)
	for n := range targets {
		targets[n] = pkg(n, fmt.Sprintf("packages.x86_64-linux.p%d", n))
	}
	return targets
}

// node returns a target that is one of those for a host.
func node(name string, t job.Target) job.Target {
	t.Node = name
	return t
}

func grouped(name string, t job.Target) job.Target {
	t.Group = name
	return t
}

func within(seconds int, t job.Target) job.Target {
	t.Timeout = seconds
	return t
}

func before(priority int, t job.Target) job.Target {
	t.Priority = priority
	return t
}

func on(system string, t job.Target) job.Target {
	t.System = system
	return t
}

func entries(t *testing.T, targets []job.Target) []job.Entry {
	t.Helper()
	got, err := plan.Entries(targets, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEntries(t *testing.T) {
	skipped, there, failed := host(9, "nixosConfigurations.done"), pkg(8, "packages.x86_64-linux.done"), host(9, "nixosConfigurations.broken")
	skipped.State, there.State, failed.State = job.StateSkip, job.StateSkip, job.StateFailed
	for _, test := range []struct {
		what    string
		targets []job.Target
		want    []string // name and numbers of the targets
	}{
		{"nothing", nil, nil},
		{"nothing to do", []job.Target{skipped, there, failed}, nil},
		{
			"a host is an entry of its own, a package alone keeps its name",
			[]job.Target{host(1, "nixosConfigurations.a"), skipped, host(2, "nixosConfigurations.b"), pkg(3, "packages.x86_64-linux.p")},
			[]string{"nixosConfigurations.a [0]", "nixosConfigurations.b [2]", "packages.x86_64-linux.p [3]"},
		},
		{
			"hosts with the same derivation are one entry",
			[]job.Target{host(1, "nixosConfigurations.a"), host(2, "nixosConfigurations.b"), host(1, "nixosConfigurations.c")},
			[]string{"nixosConfigurations.a [0 2]", "nixosConfigurations.b [1]"},
		},
		{
			"what a host builds anyway goes with it",
			[]job.Target{pkg(1, "checks.x86_64-linux.a"), host(1, "nixosConfigurations.a")},
			[]string{"nixosConfigurations.a [1 0]"},
		},
		{
			"all profiles of a host are one entry",
			[]job.Target{
				node("nodes.a", host(1, "nodes.a.backup")), node("nodes.b", host(1, "nodes.b")), node("nodes.a", host(3, "nodes.a")),
				node("nodes.b", host(4, "nodes.b.home")), pkg(3, "packages.x86_64-linux.p"), node("nodes.c", host(5, "nodes.c.home")),
				on("aarch64-linux", node("nodes.a", host(6, "nodes.a.arm"))),
			},
			// The derivation of the first of b is one of a.
			[]string{"nodes.a [0 1 2 4]", "nodes.b [3]", "nodes.c [5]", "nodes.a (2) [6]"},
		},
		{
			"hosts of the same name in different outputs",
			[]job.Target{host(1, "nixosConfigurations.a"), host(2, "homeConfigurations.a")},
			[]string{"nixosConfigurations.a [0]", "homeConfigurations.a [1]"},
		},
		{
			"the same name twice",
			[]job.Target{host(1, "a"), host(2, "a"), host(3, "a (2)"), host(4, "a")},
			[]string{"a [0]", "a (2) [1]", "a (2) (2) [2]", "a (3) [3]"},
		},
		{
			"what is no host is grouped by system",
			[]job.Target{
				pkg(1, "packages.x86_64-linux.p"), on("aarch64-linux", pkg(2, "packages.aarch64-linux.p")),
				pkg(3, "checks.x86_64-linux.p"), on("aarch64-linux", pkg(4, "packages.aarch64-linux.q")),
			},
			[]string{"packages aarch64-linux [1 3]", "packages and checks x86_64-linux [0 2]"},
		},
		{
			"targets of a group share an entry, hosts among them",
			[]job.Target{
				grouped("web", host(1, "nixosConfigurations.a")), host(2, "nixosConfigurations.b"), grouped("web", pkg(3, "packages.x86_64-linux.p")),
				pkg(4, "packages.x86_64-linux.q"), grouped("web", on("aarch64-linux", pkg(5, "packages.aarch64-linux.p"))), grouped("db", pkg(6, "checks.x86_64-linux.p")),
			},
			[]string{"nixosConfigurations.b [1]", "packages.x86_64-linux.q [3]", "web aarch64-linux [4]", "db x86_64-linux [5]", "web x86_64-linux [0 2]"},
		},
		{
			"the first group of a derivation counts, and a host has one group",
			[]job.Target{
				pkg(1, "packages.x86_64-linux.p"), grouped("x", pkg(1, "packages.x86_64-linux.q")), grouped("y", pkg(1, "packages.x86_64-linux.r")),
				node("nodes.a", host(2, "nodes.a")), grouped("z", node("nodes.a", host(3, "nodes.a.home"))),
			},
			[]string{"x x86_64-linux [0 1 2]", "z x86_64-linux [3 4]"},
		},
		{
			"a target with a timeout shares no entry but that of its group",
			[]job.Target{
				within(60, pkg(1, "packages.x86_64-linux.p")), pkg(2, "packages.x86_64-linux.q"), pkg(3, "packages.x86_64-linux.r"), pkg(1, "packages.x86_64-linux.same"),
				within(60, grouped("g", pkg(4, "checks.x86_64-linux.a"))), within(30, grouped("g", pkg(5, "checks.x86_64-linux.b"))), within(90, host(6, "nixosConfigurations.a")),
			},
			[]string{"nixosConfigurations.a [6] 90s", "packages x86_64-linux [1 2]", "packages x86_64-linux (2) [0 3] 60s", "g x86_64-linux [4 5] 90s"},
		},
		{
			"an entry has no timeout if a target has none, and none that is too long",
			[]job.Target{
				within(60, grouped("g", pkg(1, "checks.x86_64-linux.a"))), grouped("g", pkg(2, "checks.x86_64-linux.b")),
				within(job.MaxTimeout, grouped("h", pkg(3, "checks.x86_64-linux.c"))), within(1, grouped("h", pkg(4, "checks.x86_64-linux.d"))),
			},
			[]string{"g x86_64-linux [0 1]", "h x86_64-linux [2 3] 604800s"},
		},
		{
			"a higher priority comes first",
			[]job.Target{
				before(-1, host(1, "nixosConfigurations.a")), host(2, "nixosConfigurations.b"), before(5, host(3, "nixosConfigurations.c")),
				pkg(4, "packages.x86_64-linux.p"), before(3, pkg(5, "packages.x86_64-linux.q")),
			},
			[]string{"nixosConfigurations.c [2]", "packages x86_64-linux [3 4]", "nixosConfigurations.b [1]", "nixosConfigurations.a [0]"},
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			var got []string
			ids := map[string]bool{}
			for _, e := range entries(t, test.targets) {
				var numbers []int
				for _, r := range e.Targets {
					numbers = append(numbers, r.N)
				}
				line := fmt.Sprint(e.Name, " ", numbers)
				if e.Timeout > 0 {
					line += fmt.Sprint(" ", e.Timeout, "s")
				}
				got = append(got, line)
				if ids[e.ID] || job.CheckID(e.ID) != nil {
					t.Errorf("%s has the id %q", e.Name, e.ID)
				}
				ids[e.ID] = true
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Each target to build is in exactly one entry, those with the same derivation together, for any
// number of targets.
func TestEntriesShare(t *testing.T) {
	for _, test := range []struct{ targets, drvs, want int }{
		{1, 1, 1}, {8, 8, 1}, {9, 9, 2}, {16, 16, 2}, {17, 17, 3}, {25, 25, 4}, {100, 100, 8}, {1000, 1000, 16},
		{9, 1, 1}, {1000, 3, 1}, {1000, 12, 2},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.targets, test.drvs), func(t *testing.T) {
			targets := packages(test.targets)
			for n := range targets {
				targets[n].DrvPath = drvPath(n % test.drvs)
			}
			got := entries(t, targets)
			if len(got) != test.want {
				t.Errorf("%d entries, want %d", len(got), test.want)
			}
			count, at := map[int]int{}, map[string]string{}
			least, most := test.targets, 0
			for _, e := range got {
				least, most = min(least, len(e.Targets)), max(most, len(e.Targets))
				for _, r := range e.Targets {
					count[r.N]++
					if other, ok := at[r.DrvPath]; ok && other != e.ID {
						t.Errorf("%s is in two entries", r.DrvPath)
					}
					at[r.DrvPath] = e.ID
				}
			}
			for n := range targets {
				if count[n] != 1 {
					t.Errorf("target %d is in %d entries", n, count[n])
				}
			}
			if test.drvs == test.targets && most-least > 1 {
				t.Errorf("entries have %d to %d targets", least, most)
			}
		})
	}
}

func TestEntriesAreStable(t *testing.T) {
	targets := packages(9)
	for n := range targets {
		for _, system := range []string{"aarch64-linux", "i686-linux", "aarch64-darwin"} {
			targets = append(targets, on(system, targets[n]))
		}
	}
	var want []string
	for _, system := range []string{"aarch64-darwin", "aarch64-linux", "i686-linux", "x86_64-linux"} {
		want = append(want, "packages "+system+" 1/2", "packages "+system+" 2/2")
	}
	for range 5 {
		var got []string
		for _, e := range entries(t, targets) {
			got = append(got, e.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestEntriesTooMany(t *testing.T) {
	var targets []job.Target
	for n := range plan.MaxEntries {
		targets = append(targets, host(n, fmt.Sprint("nixosConfigurations.h", n)))
	}
	entries(t, targets)
	targets = append(targets, host(plan.MaxEntries, "nixosConfigurations.last"), host(plan.MaxEntries+1, "nixosConfigurations.arm"))
	targets[len(targets)-1].System = "aarch64-linux"
	shared := 0
	got := entries(t, targets)
	for _, e := range got {
		if (e.Host == nil) != (len(e.Targets) > 1) {
			t.Errorf("%s with %d targets has the host %v", e.Name, len(e.Targets), e.Host)
		}
		if e.Host == nil {
			shared++
			if e.System != "x86_64-linux" || !strings.HasPrefix(e.Name, "nixosConfigurations x86_64-linux") {
				t.Errorf("%s shares a job", e.Name)
			}
		}
	}
	if len(got) != plan.MaxEntries || shared == 0 || shared > 2 {
		t.Errorf("%d entries, %d of them shared by hosts", len(got), shared)
	}
	if _, err := plan.Entries(targets, plan.Options{MaxEntries: 1}); err == nil || !strings.Contains(err.Error(), "needs 2 entries") || !strings.Contains(err.Error(), "256 jobs") {
		t.Errorf("got %v for two systems and one entry", err)
	}
	if got, err := plan.Entries(targets, plan.Options{MaxEntries: 2}); err != nil || len(got) != 2 || len(got[0].Targets) != plan.MaxEntries+1 {
		t.Errorf("got %d entries, %v for two systems and two entries", len(got), err)
	}
}

// The user can set how many jobs share the packages of a system.
func TestJobsPerSystem(t *testing.T) {
	for most, want := range map[int]int{1: 1, 3: 3, 0: 16, 40: 22} {
		got, err := plan.Entries(packages(1000), plan.Options{JobsPerSystem: most})
		if err != nil || len(got) != want {
			t.Errorf("at most %d: %d entries, %v, want %d", most, len(got), err, want)
		}
	}
}

func TestRunners(t *testing.T) {
	given, err := plan.ParseRunners("aarch64-linux=ubuntu-24.04-arm\nriscv64-linux = self-hosted, riscv # ours\n\n# none\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		runners plan.Runners
		system  string
		labels  []string
		qemu    bool
	}{
		{nil, "x86_64-linux", []string{"ubuntu-latest"}, false},
		{nil, "i686-linux", []string{"ubuntu-latest"}, false},
		{nil, "aarch64-linux", []string{"ubuntu-latest"}, true},
		{nil, "aarch64-darwin", []string{"macos-latest"}, false},
		{nil, "x86_64-darwin", []string{"macos-15-intel"}, false},
		{given, "x86_64-linux", []string{"ubuntu-latest"}, false},
		{given, "aarch64-linux", []string{"ubuntu-24.04-arm"}, false},
		{given, "riscv64-linux", []string{"self-hosted", "riscv"}, false},
	} {
		got, err := plan.Entries([]job.Target{on(test.system, host(1, "nixosConfigurations.a"))}, plan.Options{Runners: test.runners})
		if err != nil {
			t.Error(err)
			continue
		}
		e := got[0]
		if e.System != test.system || e.Platform != test.system || e.QEMU != test.qemu || !cmp.Equal(e.Runner, test.labels) {
			t.Errorf("%s: got %+v, want the labels %q, qemu %t", test.system, e, test.labels, test.qemu)
		}
	}
}

func TestUnknownSystem(t *testing.T) {
	for _, target := range []job.Target{host(1, "nixosConfigurations.a"), pkg(1, "packages.riscv64-linux.a")} {
		_, err := plan.Entries([]job.Target{on("riscv64-linux", target)}, plan.Options{})
		if err == nil {
			t.Fatal("a system without a runner passes")
		}
		for _, want := range []string{target.Name, "input runners", "riscv64-linux=label"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q says nothing of %q", err, want)
			}
		}
	}
}

func TestParseRunners(t *testing.T) {
	for text, want := range map[string]plan.Runners{
		"":                          {},
		"# a comment\n \t\n":        {},
		"a=b":                       {"a": {"b"}},
		" a = b , c ,\r\nd=e=f\r\n": {"a": {"b", "c"}, "d": {"e=f"}},
		"a=b # because\na=c":        {"a": {"b", "c"}},
		"a":                         nil, "=b": nil, "a=": nil, "a=,": nil, "a=b\nc": nil, "a=#b": nil,
	} {
		got, err := plan.ParseRunners(text)
		if (err != nil) != (want == nil) || !cmp.Equal(got, want) {
			t.Errorf("ParseRunners(%q) = %v, %v, want %v", text, got, err, want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "must be of the form NAME=LABEL") {
			t.Errorf("%q does not say what a line must be", err)
		}
	}
}

// Without known durations of derivations, those of entries decide which come first.
func TestEntriesThatTookLonger(t *testing.T) {
	targets := []job.Target{host(0, "nixosConfigurations.a"), host(1, "nixosConfigurations.b"), host(2, "nixosConfigurations.c")}
	took := map[string]float64{"nixosConfigurations.b": 60, "nixosConfigurations.c": 700}
	got, err := plan.Entries(targets, plan.Options{Took: func(e *job.Entry) float64 { return took[e.Name] }})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range got {
		names = append(names, e.Name)
	}
	if diff := cmp.Diff([]string{"nixosConfigurations.c", "nixosConfigurations.b", "nixosConfigurations.a"}, names); diff != "" {
		t.Error(diff)
	}
}
