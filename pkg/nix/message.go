package nix

import (
	"errors"
	"os/exec"
	"regexp"
	"slices"
)

var (
	// onlyOthers matches an error message that says no more than that other derivations
	// failed: those that one needs, or some of all that was asked for.
	onlyOthers = regexp.MustCompile(`(?m)^(?:Reason: )?\d+ dependenc(?:y|ies)\b.* failed|\Abuild of '.*' failed\z`)

	// logExcerpt is where a message begins to quote a builder's log.
	logExcerpt = regexp.MustCompile(`(?mi)^\s*last \d+ log lines?:`)

	// A path in a message may be that of a sandbox, DRV.chroot.
	namedPath = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-(?:[0-9a-zA-Z+._?=-]+\.drv\b|[0-9a-zA-Z+._?=-]+)`)
)

// foreignProgram matches what Linux and macOS say of a program for another machine.
var foreignProgram = regexp.MustCompile(`(?i)exec format error|bad CPU type in executable`)

// ForeignProgram returns what to do about a program that this machine can't run, or "" where
// none of the texts, which are messages and lines of logs, tells of one.
func ForeignProgram(texts ...string) string {
	if !slices.ContainsFunc(texts, foreignProgram.MatchString) {
		return ""
	}
	return "A program for another system can't run here: use a runner or a remote builder of that system, or register an emulator with binfmt_misc, as docker/setup-qemu-action does."
}

// OnlyOthers reports whether an error message of Nix says no more than that other
// derivations failed.
func OnlyOthers(message string) bool { return onlyOthers.MatchString(message) }

// Named returns the store paths that an error message of Nix names, in their order. Of
// the message of a failure, the first is the derivation that failed, or one of its
// outputs. A builder's log that the message quotes does not count, and a message about
// others names nothing.
func Named(message string) []string {
	if OnlyOthers(message) {
		return nil
	}
	if quoted := logExcerpt.FindStringIndex(message); quoted != nil {
		message = message[:quoted[0]]
	}
	const most = 100
	return namedPath.FindAllString(message, most)
}

// WentThroughAll reports whether Realise, which returned the error, went through all that
// it was asked for: Nix ends with a status of its own where builds failed and nothing
// else did. A store that does not keep going has the same status.
func WentThroughAll(err error) bool {
	const buildsFailed = 100
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() >= buildsFailed && exit.ExitCode() < buildsFailed+16
}
