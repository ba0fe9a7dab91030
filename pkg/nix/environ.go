package nix

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// Environ returns the environment of this process without the variables that evaluators and
// builders must not see: an impure evaluation can read its environment, and where Nix has no
// daemon, so can a derivation (impureEnvVars).
func Environ() []string { return environ(own(), workflow()) }

// StepEnviron returns the environment of this process for the user's scripts: that of a step
// of the workflow, without the variables that are only for this program.
func StepEnviron() []string {
	env := environ(own())
	for _, name := range []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

var (
	// own matches the variables that configure this program, secrets among them.
	own = lazyregexp.New(`^(?:ACTIONS_.*|INPUT_.*|ATTIC_TOKEN|NIKS3_AUTH_TOKEN|CACHIX_.*|NIX_MATRIX_.*)$`)
	// workflow matches tokens for GitHub, and the files through which a step affects later
	// steps.
	workflow = lazyregexp.New(`^(?:GITHUB|GH)(?:_ENTERPRISE)?_TOKEN$|^GITHUB_(?:ENV|PATH|OUTPUT|STATE|STEP_SUMMARY)$`)
)

func environ(without ...*regexp.Regexp) []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.ContainsFunc(without, func(names *regexp.Regexp) bool { return names.MatchString(name) })
	})
}
