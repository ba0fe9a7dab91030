package realise

import (
	"regexp"
	"slices"

	"github.com/org/nix-matrix/pkg/nix"
)

// hints are what to do about failures that are not the derivation's own.
var hints = []struct {
	sign   *regexp.Regexp
	logged bool // the log of a builder may say so too, and mean the same
	text   string
}{
	{regexp.MustCompile(`No space left on device|Disk quota exceeded`), true,
		"The disk is full. On GitHub's runners, reclaim_disk: true removes what is preinstalled; else take a larger one."},
	{regexp.MustCompile(`signal 9|[Kk]illed(?: signal)? terminated program|Out of memory|out of memory|Cannot allocate memory`), true,
		"It was killed, most likely for want of memory: let Nix build fewer at a time (nix_conf: max-jobs = 1), or name a larger runner."},
	{regexp.MustCompile(`missing system features|a '[^']+' with features {[^}]+} is required to build`), false,
		"This machine lacks a feature: name a runner that has it (input runners), or, if this one has, say so to Nix (nix_conf: extra-system-features)."},
	{regexp.MustCompile(`Required system: |a '[^']+' with features {} is required to build`), false,
		"This machine builds other systems: name a runner for that one (input runners), or a remote builder (builders)."},
	{regexp.MustCompile(`timed out after \d+ seconds`), false,
		"It printed nothing for longer than max_silent_time, or took longer than Nix's own settings let it."},
}

func hint(message string, log []string) string {
	if foreign := nix.ForeignProgram(append(slices.Clone(log), message)...); foreign != "" {
		return foreign
	}
	for _, h := range hints {
		if h.sign.MatchString(message) || h.logged && slices.ContainsFunc(log, h.sign.MatchString) {
			return h.text
		}
	}
	return ""
}
