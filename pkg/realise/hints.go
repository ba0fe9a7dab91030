package realise

import (
	"slices"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/nix"
)

// hints are advice about failures that are not the derivation's own.
var hints = []struct {
	sign   lazyregexp.Regexp
	logged bool // also in the log of a builder
	text   string
}{
	{lazyregexp.New(`No space left on device|Disk quota exceeded`), true,
		"The disk is full. On GitHub's runners, set reclaim_disk: true, which removes preinstalled software; else name a larger runner."},
	{lazyregexp.New(`signal 9|[Kk]illed(?: signal)? terminated program|Out of memory|out of memory|Cannot allocate memory`), true,
		"The builder was killed, most likely for want of memory. Let Nix build fewer at a time (nix_conf: max-jobs = 1), or name a larger runner."},
	{lazyregexp.New(`missing system features|a '[^']+' with features {[^}]+} is required to build`), false,
		"This machine lacks a feature. Name a runner that has it (input runners), or, if this one has it, set nix_conf: extra-system-features."},
	{lazyregexp.New(`Required system: |a '[^']+' with features {} is required to build`), false,
		"This machine builds other systems. Name a runner for that one (input runners), or a remote builder (builders)."},
	{lazyregexp.New(`timed out after \d+ seconds`), false,
		"The builder printed nothing for longer than max_silent_time, or took longer than Nix's own settings allow."},
}

func hint(message string, log []string) string {
	if foreign := nix.ForeignProgram(append(slices.Clone(log), message)...); foreign != "" {
		return foreign
	}
	for _, h := range hints {
		if h.sign().MatchString(message) || h.logged && slices.ContainsFunc(log, h.sign().MatchString) {
			return h.text
		}
	}
	return ""
}
