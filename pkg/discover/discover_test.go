package discover

import (
	"errors"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/job"
)

// A Plan that can be read is written. For any other one, the error names its fault.
func TestMarshal(t *testing.T) {
	const path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a"
	good := job.Target{
		Attr: "packages.a", Name: "packages.a", Kind: job.Package, System: "x86_64-linux", DrvPath: path + ".drv", Outputs: []string{"out"},
		OutPaths: map[string]string{"out": path}, State: job.StateBuild,
	}
	p := &job.Plan{Version: job.Version, ID: "a", Targets: []job.Target{good, good}}
	if _, err := Marshal(p); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*job.Plan){
		`target 1 ("packages.a"): drvPath: invalid store path "--plugin-files"`: func(p *job.Plan) { p.Targets[1].DrvPath = "--plugin-files" },
		`target 1 ("packages.a\nb")`:  func(p *job.Plan) { p.Targets[1].Attr = "packages.a\nb" },
		"substituters":                func(p *job.Plan) { p.Substituters = []string{"--plugin-files"} },
		"it reads as another plan":    func(p *job.Plan) { p.Source = "\xff" },
		`entry 0: name: it is empty`:  func(p *job.Plan) { p.Entries = []job.Entry{{}} },
		"there is no target number 7": func(p *job.Plan) { p.Entries = []job.Entry{entryOf(&good, 7)} },
	} {
		odd := *p
		odd.Targets = []job.Target{good, good}
		change(&odd)
		if data, err := Marshal(&odd); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %q, %v, want %s", data, err, what)
		}
	}
}

func entryOf(t *job.Target, n int) job.Entry {
	return job.Entry{Name: t.Name, ID: "a", Platform: t.System, System: t.System, DrvPath: t.DrvPath, Outputs: t.Outputs, Runner: []string{"a"}, Targets: []job.Ref{{N: n}}}
}

// An installable that asks for another commit of a checkout than the one that is there is found.
func TestNamesCommit(t *testing.T) {
	for installable, want := range map[string]bool{
		".#a": false, "./repo#a": false, "repo?submodules=1&dir=a#a": false, "git+file:///repo?ref=main#a": true, "./repo?rev=0123#a": true,
		"./repo?%zz#a": true, "github:org/repo?ref=main#a": false, "nixpkgs#hello": false,
	} {
		t.Run(installable, func(t *testing.T) {
			if got := namesCommit(installable); got != want {
				t.Errorf("it names another commit: %t", got)
			}
		})
	}
}

// A mistake of the caller is wrong usage.
func TestAsUsage(t *testing.T) {
	for name, err := range map[string]error{
		"missing attribute":       &evaluate.MissingError{},
		"glob without a match":    &evaluate.GlobError{},
		"arguments of a function": &evaluate.ArgumentsError{Needs: []string{"x"}},
		"unreadable request":      &evaluate.RequestError{},
	} {
		t.Run(name, func(t *testing.T) {
			var wrong *usage.Error
			if !errors.As(asUsage(err), &wrong) {
				t.Error("it is not")
			}
		})
	}
	if err := asUsage(errors.New("x")); errors.As(err, new(*usage.Error)) {
		t.Error("every error is")
	}
}
