package build

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// failures are the derivations that failed, the first one first.
type failures struct {
	store   Store
	drvs    []string
	watch   *watch
	logs    *logs
	realise error

	resolved map[string]bool // those of drvs that were built in place of others
}

// failures finds them out: those that were built and whose outputs are not
// there. That holds for every version of Nix, whatever its messages are like.
func (r *realisation) failures(ctx context.Context, realiseErr error) (*failures, error) {
	if realiseErr != nil {
		r.err = realiseErr
	}
	f := &failures{store: r.store, watch: r.watch, logs: r.logs, realise: r.err}
	if r.err == nil { // in any of the tries
		return f, nil
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	var drvs, paths []string
	for _, b := range r.watch.finished {
		drvs = append(drvs, b.DrvPath)
	}
	outputs, err := r.store.Outputs(ctx, drvs...)
	if err != nil {
		return nil, errors.Join(r.err, err) // what ended the build says most
	}
	for _, byName := range outputs {
		for _, path := range byName {
			paths = append(paths, path)
		}
	}
	valid, err := r.store.Valid(ctx, slices.DeleteFunc(paths, func(path string) bool { return path == "" })...)
	if err != nil {
		return nil, err
	}
	for i := range r.watch.finished {
		b := &r.watch.finished[i]
		failed := false
		for _, path := range outputs[b.DrvPath] {
			failed = failed || !valid[path]
		}
		if failed && isImpure(r.store, b.DrvPath) { // whose outputs nobody remembers
			failed = f.watch.message(b.DrvPath) != ""
		}
		failed = failed && !r.watch.interrupted[b.DrvPath]
		if failed && !slices.Contains(f.drvs, b.DrvPath) {
			f.drvs = append(f.drvs, b.DrvPath)
		}
		if i >= r.judged { // what was tried again has succeeded since
			b.Failed = failed
		}
	}
	r.judged = len(r.watch.finished)
	f.findResolved(r.targets)
	return f, nil
}

// findResolved finds which of the derivations that failed nobody needs: they were
// built in place of others, with the inputs' paths put in.
func (f *failures) findResolved(targets []Target) {
	f.resolved = map[string]bool{}
	for _, drv := range f.drvs {
		f.resolved[drv] = true
	}
	for _, t := range targets {
		if len(f.drvs) == 0 {
			return
		}
		for drv := range f.needs(t.DrvPath) {
			delete(f.resolved, drv)
		}
	}
}

// among says whether a derivation that failed is one of those that are needed, or
// was built in place of one, whose name it has then.
func (f *failures) among(needs map[string]bool, drv string) bool {
	if !f.resolved[drv] {
		return needs[drv]
	}
	for needed := range needs {
		if job.DrvName(needed) == job.DrvName(drv) {
			return true
		}
	}
	return false
}

// message is what Nix says of a derivation that failed in being built. From 2.30
// on, it does not say what has timed out.
func (f *failures) message(drv string) string {
	if message := f.watch.message(drv); message != "" {
		return message
	}
	return f.watch.nameless()
}

// fetches gives the targets that failed for nothing but what could not be
// fetched, and the derivations that were to fetch it.
func (f *failures) fetches(targets []Target) (again []Target, drvs []string) {
	fetching := map[string]bool{}
	for _, drv := range f.drvs {
		fetching[drv] = f.fetch(drv)
	}
	for _, t := range targets {
		needs := f.needs(t.DrvPath)
		var of []string
		for _, drv := range f.drvs {
			if f.among(needs, drv) {
				of = append(of, drv)
			}
		}
		if len(of) == 0 || slices.ContainsFunc(of, func(drv string) bool { return !fetching[drv] }) {
			continue
		}
		again = append(again, t)
		for _, drv := range of {
			if !slices.Contains(drvs, drv) {
				drvs = append(drvs, drv)
			}
		}
	}
	return again, drvs
}

// fetch says whether a derivation fetches something whose hash is known, and
// failed in doing so: not since it got something else, nor since there was no
// room or time.
func (f *failures) fetch(drv string) bool {
	d, err := f.store.Derivation(drv)
	message := f.message(drv)
	if err != nil || hint(message, f.watch.log[drv]) != "" || mismatch.MatchString(message) {
		return false
	}
	out, ok := d.Outputs["out"]
	return ok && out.Hash != "" && out.Hash != impureHash
}

// cause names the derivation whose failure kept a target from being built, if
// there is one.
func (f *failures) cause(result *job.TargetResult) bool {
	if len(f.drvs) == 0 {
		return false
	}
	needs := f.needs(result.DrvPath)
	for _, drv := range f.drvs {
		if f.among(needs, drv) {
			f.blame(result, drv, f.message(drv))
			return true
		}
	}
	return false
}

// blame says of a target which derivation it failed by, and how that looked.
func (f *failures) blame(result *job.TargetResult, drv, message string) {
	result.Cause = drv
	result.Log = f.watch.log[drv]
	result.File, result.Line = position(result.Log)
	result.Error = condense(message)
	switch {
	case result.Error == "":
		result.Error = fmt.Sprintf("builder of %s failed", drv)
	case !strings.Contains(result.Error, drv):
		result.Error += ": " + drv
	}
	if hint := hint(message, result.Log); hint != "" {
		result.Error += "\n" + hint
	}
}

// A message that tells of a derivation only that it needs another one.
var dependencies = regexp.MustCompile(`(?m)^(?:Reason: )?\d+ dependenc(?:y|ies)\b.* failed`)

var drvPattern = regexp.MustCompile(`/nix/store/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]+\.drv`)

// explain says why a target was not built for which nothing failed in being
// built: Nix may have refused to begin.
func (f *failures) explain(result *job.TargetResult) {
	needs := f.needs(result.DrvPath)
	for _, message := range f.watch.messages {
		if dependencies.MatchString(message.text) {
			continue
		}
		for _, drv := range drvPattern.FindAllString(message.text, -1) {
			if needs[drv] {
				f.blame(result, drv, message.text)
				return
			}
		}
	}
	result.Error = f.watch.message(result.DrvPath)
	if result.Error == "" && f.realise != nil {
		result.Error = f.realise.Error()
	}
	if result.Error == "" {
		result.Error = "nix-store --realise succeeded, but its outputs are not in the store"
	}
	if hint := hint(result.Error, nil); hint != "" {
		result.Error += "\n" + hint
	}
}

// needs gives the derivations that a derivation needs, itself included.
func (f *failures) needs(drv string) map[string]bool {
	needs := map[string]bool{drv: true}
	for todo := []string{drv}; len(todo) > 0; {
		d, err := f.store.Derivation(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if err != nil {
			continue // it is not here, so nothing of it was built
		}
		for input := range d.InputDerivations {
			if !needs[input] {
				needs[input] = true
				todo = append(todo, input)
			}
		}
	}
	return needs
}

// A fixed-output derivation that gave something else. The hashes are as Nix
// writes them, wanted and got.
var mismatch = regexp.MustCompile(`(?s)hash mismatch in fixed-output derivation '([^']+)':?\s+(?:specified|wanted|likely URL.*?specified):\s*(\S+)\s+got:\s*(\S+)`)

// What Nix from 2.30 on says of a builder that failed, or that can't be begun. Where
// outputs are is not said if it is not known, or if there will be none.
var reason = regexp.MustCompile(`(?s)^Cannot build '([^']+)'\.\s+Reason: ([^\n]+?)\.?((?:\n(?:Required|Current|Available) [^\n]+)*)(?:\nOutput paths:(?:\n +/[^\n]+)*)?(\nLast \d+ log lines:.*)?$`)

// condense puts what matters of a message first, where Nix has it in further lines.
func condense(message string) string {
	if m := reason.FindStringSubmatch(message); m != nil {
		return m[2] + ": " + m[1] + m[3] + m[4]
	}
	if m := mismatch.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("hash mismatch in %s: wanted %s, got %s", m[1], m[2], m[3])
	}
	return message
}

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
	for _, h := range hints {
		if h.sign.MatchString(message) || h.logged && slices.ContainsFunc(log, h.sign.MatchString) {
			return h.text
		}
	}
	return ""
}
