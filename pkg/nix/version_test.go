package nix

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
)

// The features that follow from the version that each implementation prints.
func TestVersions(t *testing.T) {
	const (
		configShow = 1 << iota
		jsonFormat
		outputsSyntax
		wholeFlakes
		copiesInputs
		otherLocks
		updatesInputs
	)
	for _, test := range []struct {
		said, want string // for people; empty is an error
		can        int
	}{
		{"nix (Nix) 2.8.0", "2.8.0", copiesInputs},
		{"nix (Nix) 2.12.1", "2.12.1", copiesInputs},
		{"nix (Nix) 2.13.6", "2.13.6", outputsSyntax | copiesInputs},
		{"nix (Nix) 2.18.9", "2.18.9", outputsSyntax | copiesInputs | otherLocks},
		{"nix (Nix) 2.19.0pre20231107_a1b2.3", "2.19.0pre20231107", outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"nix (Nix) 2.24", "2.24", configShow | outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"nix (Nix) 2.26.3\n", "2.26.3", configShow | outputsSyntax | wholeFlakes | copiesInputs | otherLocks | updatesInputs},
		{"nix (Nix) 2.32pre20250908_24f4198", "2.32pre20250908", configShow | outputsSyntax | wholeFlakes | copiesInputs | otherLocks | updatesInputs},
		{"nix (Nix) 2.33.1", "2.33.1", configShow | outputsSyntax | wholeFlakes | copiesInputs | jsonFormat | otherLocks | updatesInputs},
		{"nix (Nix) 2.34.8+1", "2.34.8", configShow | outputsSyntax | wholeFlakes | copiesInputs | jsonFormat | otherLocks | updatesInputs},
		{"nix (Nix) 2.35.2", "2.35.2", configShow | outputsSyntax | wholeFlakes | jsonFormat | otherLocks | updatesInputs},
		{"nix (Nix) 3.0.1", "3.0.1", configShow | outputsSyntax | wholeFlakes | jsonFormat | otherLocks | updatesInputs},
		{"nix (Lix, like Nix) 2.90.0", "Lix 2.90.0", configShow | outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"nix (Lix, like Nix) 2.94.0-dev-pre20250901-a1b2", "Lix 2.94.0", configShow | outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"\x1b[1mnix (Lix, like Nix) 2.95.2\x1b[0m", "Lix 2.95.2", configShow | outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"nix (Lix) 2.96.0", "Lix 2.96.0", configShow | outputsSyntax | copiesInputs | otherLocks | updatesInputs},
		{"nix (Determinate Nix 3.5.2) 2.28.3", "Determinate Nix 2.28.3", configShow | outputsSyntax | wholeFlakes | otherLocks | updatesInputs},
		{"nix (Determinate Nix 3.19.1) 2.34.6", "Determinate Nix 2.34.6", configShow | outputsSyntax | wholeFlakes | jsonFormat | otherLocks | updatesInputs},
		{"nix (Another Nix) 2.50.0", "Another Nix 2.50.0", 0},
		{"nix (Determinate Nix 3.5.2) 2.7.3", "", 0},
		{"nix (Nix) 2.7.0", "", 0},
		{"nix (Nix) 1.11.16", "", 0},
		{"nix (Nix) unknown", "", 0},
		{"nix (Snix) 0.1.0", "", 0},
		{"tvix-store 0.1.0", "", 0},
		{"guix (GNU Guix) 1.4.0", "", 0},
		{"nix-store (Nix) 2.34.8", "", 0},
		{"nix 2.34.8", "", 0},
		{"", "", 0},
	} {
		t.Run(test.said, func(t *testing.T) {
			v, err := ParseVersion(test.said)
			if test.want == "" {
				if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "Install Nix 2.8 or newer") {
					t.Errorf("got %q, %v", v, err)
				}
				return
			}
			if err != nil || v.String() != test.want {
				t.Fatalf("got %q, %v, want %q", v, err, test.want)
			}
			for bit, can := range map[int]bool{
				configShow: v.HasConfigShow(), jsonFormat: v.HasJSONFormat(), outputsSyntax: v.HasOutputsSyntax(),
				wholeFlakes: v.EvaluatesWholeFlakes(), copiesInputs: v.CopiesInputs(), otherLocks: v.HasReferenceLockFile(), updatesInputs: v.UpdatesInputs(),
			} {
				if want := test.can&bit != 0; can != want {
					t.Errorf("capability %#x: %t, want %t", bit, can, want)
				}
			}
		})
	}
}

// The documentation names the versions that are tested, and how, and claims no others.
func TestVersionsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/nix-versions.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (Nix|Lix|Determinate Nix) \| ([0-9.]+).* \| (itself|a stand-in|not)\b`)
	tested := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		tested[m[3]] = append(tested[m[3]], m[1]+" "+m[2])
	}
	var itself []string
	for _, version := range testbench.NixVersions {
		itself = append(itself, "Nix "+version)
	}
	slices.Sort(itself)
	slices.Sort(tested["itself"])
	if diff := cmp.Diff(itself, tested["itself"]); diff != "" {
		t.Errorf("versions that are tested themselves:\n%s", diff)
	}
	stands := map[string]string{"lix": "Lix 2.94", "2.35": "Nix 2.35", "determinate": "Determinate Nix 3"}
	var forks []string
	for _, fork := range testbench.NixForks {
		forks = append(forks, stands[fork])
	}
	slices.Sort(forks)
	slices.Sort(tested["a stand-in"])
	if diff := cmp.Diff(forks, tested["a stand-in"]); diff != "" {
		t.Errorf("stand-ins:\n%s", diff)
	}
	if len(tested["not"]) == 0 {
		t.Error("the untested versions are not named")
	}
}
