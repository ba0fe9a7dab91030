package nix

import (
	"errors"
	"os/exec"
	"slices"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

var (
	// onlyOthers matches an error message that only says that other derivations failed: inputs
	// of one, or some of the requested ones.
	onlyOthers = lazyregexp.New(`(?m)^(?:Reason: )?\d+ dependenc(?:y|ies)\b.* failed|\Abuild of '.*' failed\z`)

	// logExcerpt matches where a message begins to quote a builder's log.
	logExcerpt = lazyregexp.New(`(?mi)^\s*last \d+ log lines?:`)

	// namedPath matches a store path. A message may have that of a sandbox, DRV.chroot.
	namedPath = lazyregexp.New(`/nix/store/[0-9a-z]{32}-(?:[0-9a-zA-Z+._?=-]+\.drv\b|[0-9a-zA-Z+._?=-]+)`)
)

// foreignProgram matches the errors of Linux and macOS about a program for another system.
var foreignProgram = lazyregexp.New(`(?i)exec format error|bad CPU type in executable`)

// ForeignProgram returns advice about a program that this machine can't run, or "" if none of
// the texts, which are messages and lines of logs, mentions one.
func ForeignProgram(texts ...string) string {
	if !slices.ContainsFunc(texts, foreignProgram().MatchString) {
		return ""
	}
	return "A program for another system can't run here: use a runner or a remote builder of that system, or register an emulator with binfmt_misc, as docker/setup-qemu-action does."
}

// OnlyOthers reports whether an error message of Nix only says that other derivations failed.
func OnlyOthers(message string) bool { return onlyOthers().MatchString(message) }

// Named returns the store paths that an error message of Nix names, in order. The first one is
// the derivation that failed, or one of its outputs. A quoted log of a builder does not count,
// and a message for which OnlyOthers is true names nothing.
func Named(message string) []string {
	if OnlyOthers(message) {
		return nil
	}
	if quoted := logExcerpt().FindStringIndex(message); quoted != nil {
		message = message[:quoted[0]]
	}
	const most = 100
	return namedPath().FindAllString(message, most)
}

// WentThroughAll reports whether Realise, which returned the error, tried all derivations: Nix
// has exit codes for the case that only builds failed. A store that does not keep going has the
// same ones.
func WentThroughAll(err error) bool {
	const buildsFailed = 100
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() >= buildsFailed && exit.ExitCode() < buildsFailed+16
}
