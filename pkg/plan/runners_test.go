package plan_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

func runnerTarget(name string, features, runner []string) job.Target {
	return job.Target{
		Name: name, Attr: name, Kind: job.Package, System: "x86_64-linux", State: job.StateBuild, Outputs: []string{"out"},
		DrvPath: "/nix/store/00000000000000000000000000000000-" + name + ".drv", Features: features, Runner: runner,
	}
}

// A target that selects a runner of the input, or needs a feature of one, has an entry of its own.
// Any other choice is ignored.
func TestNamedRunners(t *testing.T) {
	targets := []job.Target{
		runnerTarget("plain", nil, nil), runnerTarget("vm", []string{"kvm"}, nil), runnerTarget("other", []string{"big-parallel"}, nil),
		runnerTarget("gpu", []string{"kvm"}, []string{"gpu", "self-hosted"}),
		runnerTarget("part", nil, []string{"self-hosted"}), runnerTarget("more", nil, []string{"self-hosted", "gpu", "prod"}),
		runnerTarget("joined", nil, []string{"self-hosted,gpu"}), runnerTarget("vm2", []string{"kvm"}, []string{"prod"}),
	}
	runners, err := plan.ParseRunners("kvm=with-kvm\ngpu=self-hosted,gpu\n")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := plan.Entries(targets, plan.Options{Runners: runners})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, e := range entries {
		for _, ref := range e.Targets {
			got[ref.Attr] = e.Runner
		}
	}
	ordinary, kvm := []string{"ubuntu-latest"}, []string{"with-kvm"}
	want := map[string][]string{
		"plain": ordinary, "other": ordinary, "vm": kvm, "gpu": {"self-hosted", "gpu"},
		"part": ordinary, "more": ordinary, "joined": ordinary, "vm2": kvm,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	notice := runners.Refused(targets)
	for _, name := range []string{`part asks for "self-hosted"`, `more asks for "self-hosted,gpu,prod"`, "joined", `vm2 asks for "prod"`, "input runners"} {
		if !strings.Contains(notice, name) {
			t.Errorf("%q does not say %s", notice, name)
		}
	}
	for _, name := range []string{"plain", "gpu asks", "vm asks"} {
		if strings.Contains(notice, name) {
			t.Errorf("%q says %s", notice, name)
		}
	}
	if got := runners.Refused(targets[:4]); got != "" {
		t.Errorf("nothing is refused, but: %s", got)
	}
}

// A feature without a system is one of x86_64-linux: a target of another system that needs
// it gets the runner of its own system, or that of a line with both.
func TestRunnersByFeature(t *testing.T) {
	runners, err := plan.ParseRunners("kvm=kvm-x86\naarch64-linux+kvm=kvm-arm\nx86_64-linux+big-parallel=big\naarch64-linux=arm\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, system string
		features     []string
		want         string
	}{
		{"x86", "x86_64-linux", []string{"kvm"}, "kvm-x86"},
		{"i686", "i686-linux", []string{"kvm"}, "kvm-x86"},
		{"arm", "aarch64-linux", []string{"kvm"}, "kvm-arm"},
		{"darwin", "aarch64-darwin", []string{"kvm"}, "macos-latest"},
		{"big", "x86_64-linux", []string{"big-parallel"}, "big"},
		{"big-i686", "i686-linux", []string{"big-parallel"}, "big"},
		{"big-arm", "aarch64-linux", []string{"big-parallel"}, "arm"},
		{"big-darwin", "x86_64-darwin", []string{"big-parallel"}, "macos-15-intel"},
		{"system-as-feature", "x86_64-linux", []string{"aarch64-linux"}, "ubuntu-latest"},
		{"line-as-feature", "x86_64-linux", []string{"aarch64-linux+kvm"}, "ubuntu-latest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := runnerTarget(test.name, test.features, nil)
			target.System = test.system
			entries, err := plan.Entries([]job.Target{target}, plan.Options{Runners: runners})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(entries[0].Runner, ","); got != test.want {
				t.Errorf("the runner is %s, want %s", got, test.want)
			}
		})
	}
}

func TestUnusedRunners(t *testing.T) {
	arm := runnerTarget("arm", []string{"kvm"}, nil)
	arm.System = "aarch64-linux"
	metal := runnerTarget("metal", nil, []string{"metal", "self-hosted"})
	skipped := runnerTarget("skipped", []string{"nixos-test"}, nil)
	skipped.State = job.StateSkip
	broken := job.Target{Name: "broken", State: job.StateFailed}
	for _, test := range []struct {
		name, lines string
		targets     []job.Target
		want        []string // nothing is no notice
	}{
		{"all used", "aarch64-linux=a\naarch64-linux+kvm=k\nx86_64-linux=x\nany=self-hosted,metal\nnixos-test=t", []job.Target{arm, metal, skipped}, nil},
		{"misspelt system", "aarch-64-linux=a", []job.Target{arm}, []string{"aarch-64-linux (did you mean aarch64-linux?)"}},
		{"feature of another system", "kvm=k", []job.Target{arm, metal}, []string{": kvm.", "SYSTEM+FEATURE=LABEL"}},
		{"misspelt feature", "aarch64-linux+kmv=k", []job.Target{arm}, []string{"aarch64-linux+kmv (did you mean aarch64-linux+kvm?)"}},
		{"labels that nobody asks for", "m=metal", []job.Target{metal}, []string{": m."}},
		{"a failed target may need it", "kvm=k", []job.Target{arm, broken}, nil},
		{"nothing there", "kvm=k", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			runners, err := plan.ParseRunners(test.lines)
			if err != nil {
				t.Fatal(err)
			}
			got := runners.Unused(test.targets)
			if (got == "") != (test.want == nil) {
				t.Fatalf("the notice is %q", got)
			}
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %s", got, want)
				}
			}
		})
	}
}

func TestParseRunnersRefuses(t *testing.T) {
	for _, line := range []string{"=x", "aarch64-linux", "kvm=", "+kvm=x", "aarch64-linux+=x", "kvm+aarch64-linux=x", "linux+kvm=x"} {
		t.Run(line, func(t *testing.T) {
			if got, err := plan.ParseRunners(line); err == nil {
				t.Errorf("it is read as %v", got)
			}
		})
	}
}

// The notice is short for any request of a flake.
func TestRefusedIsBounded(t *testing.T) {
	var targets []job.Target
	for n := range 1000 {
		targets = append(targets, runnerTarget("t"+strconv.Itoa(n), nil, []string{strings.Repeat("ä\n", 1000)}))
	}
	notice := plan.Runners{}.Refused(targets)
	if len(notice) > 2000 || !strings.Contains(notice, "995 more") || strings.Contains(notice, "\n") {
		t.Errorf("%d bytes: %.3000s", len(notice), notice)
	}
}

// Whatever the meta of packages, the matrix only has runners that the input lists, each with all
// its labels, and the default ones.
func TestRunnersOfMatrix(t *testing.T) {
	r := testbench.Random(t)
	labels := []string{"self-hosted", "gpu", "arm", "Linux", "ubuntu-24.04-arm", "big"}
	hostile := []string{
		"prod", "SELF-HOSTED", "self-hosted ", "self-hosted,gpu", "gpu\nself-hosted", "group:prod", "ubuntu-latest-64-cores", "",
		"${{ secrets.CACHIX_AUTH_TOKEN }}", `{"group":"prod"}`, `["self-hosted"]`, "\x00", "\xff", strings.Repeat("x", 1<<10), "--labels", "ſelf-hosted",
	}
	some := func(from []string, least int) []string {
		from = slices.Clone(from)
		r.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		return from[:least+r.IntN(3)]
	}
	builtIn := map[string]bool{"ubuntu-latest": true, "macos-latest": true, "macos-15-intel": true}
	heeded := 0
	for range 300 {
		systems := []string{"x86_64-linux", "i686-linux", "aarch64-linux", "aarch64-darwin", "x86_64-darwin"}
		allowed := map[string]bool{}
		for label := range builtIn {
			allowed[label] = true
		}
		var input string
		listed := []string{}
		for _, name := range some(append([]string{"kvm", "gpu", "any"}, systems...), 0) {
			line := strings.Join(some(labels, 1), ",")
			input += name + "=" + line + "\n"
			allowed[line] = true
			listed = append(listed, line)
		}
		runners, err := plan.ParseRunners(input)
		if err != nil {
			t.Fatal(err)
		}
		var targets []job.Target
		for n := range 1 + r.IntN(6) {
			wanted := some(append(slices.Clone(labels), hostile...), 0)
			if len(listed) > 0 && r.IntN(3) == 0 {
				wanted = strings.Split(listed[r.IntN(len(listed))], ",")
			}
			target := runnerTarget(fmt.Sprintf("t%d", n), some(append([]string{"kvm"}, hostile...), 0), wanted)
			target.System = systems[r.IntN(len(systems))]
			if r.IntN(3) == 0 {
				target.Kind, target.Host = job.NixOS, target.Name
			}
			targets = append(targets, target)
		}
		entries, err := plan.Entries(targets, plan.Options{Runners: runners})
		if err != nil {
			t.Fatal(err)
		}
		data, err := plan.Matrix(&job.Plan{Targets: targets, Entries: entries}, "key")
		if err != nil {
			t.Fatal(err)
		}
		var matrix struct {
			Include []struct {
				Runner  []string
				Targets []job.Ref
			}
		}
		if err := json.Unmarshal(data, &matrix); err != nil {
			t.Fatal(err)
		}
		for _, row := range matrix.Include {
			got := strings.Join(row.Runner, ",")
			if !allowed[got] {
				t.Fatalf("the runner %q is neither built in nor in the input\n%s\nof %+v", row.Runner, input, targets)
			}
			for _, ref := range row.Targets {
				wanted := slices.Sorted(slices.Values(targets[ref.N].Runner))
				isListed := slices.ContainsFunc(listed, func(line string) bool {
					return slices.Equal(slices.Sorted(strings.SplitSeq(line, ",")), wanted)
				})
				if isListed {
					heeded++
					if !slices.Equal(slices.Sorted(slices.Values(row.Runner)), wanted) {
						t.Fatalf("%q is listed, but the runner is %q\n%s", wanted, row.Runner, input)
					}
				}
			}
		}
	}
	if heeded == 0 {
		t.Error("no target has ever got the runner that it asked for")
	}
}
