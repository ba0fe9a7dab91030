package nix

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// Environ is the environment of this process without what evaluators and builders may not
// see: an impure evaluation reads its environment, and where Nix has no daemon, a
// derivation can ask for variables of it (impureEnvVars).
func Environ() []string { return environ(own, workflow) }

// StepEnviron is the environment of this process for scripts of the user's: what a step of
// the workflow would have, without what is only for this program.
func StepEnviron() []string {
	env := environ(own)
	for _, name := range []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

var (
	// own are the variables that this program is told by, secrets among them.
	own = regexp.MustCompile(`^(?:ACTIONS_.*|INPUT_.*|ATTIC_TOKEN|CACHIX_.*|NIX_MATRIX_.*)$`)
	// workflow are tokens for GitHub, and the files by which a step tells the runner what
	// later steps are to do.
	workflow = regexp.MustCompile(`^(?:GITHUB|GH)(?:_ENTERPRISE)?_TOKEN$|^GITHUB_(?:ENV|PATH|OUTPUT|STATE|STEP_SUMMARY)$`)
)

func environ(without ...*regexp.Regexp) []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.ContainsFunc(without, func(names *regexp.Regexp) bool { return names.MatchString(name) })
	})
}
