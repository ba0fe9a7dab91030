package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// notes returns the Plan's notices, and remarks about successful targets. quote makes foreign text
// safe for its format.
func (v view) notes(quote func(string) string) []string {
	ours := v.emulated(quote)
	var notes []string
	unsaid := slices.DeleteFunc(slices.Clone(v.Emulated), func(system string) bool { return ours[system] != "" })
	for _, notice := range notices(v.Notices, unsaid) {
		notes = append(notes, quote(notice))
	}
	for _, system := range slices.Sorted(maps.Keys(ours)) {
		notes = append(notes, ours[system])
	}
	notes = append(notes, v.skippedSteps(quote)...)
	if slower := v.slower(quote); slower != "" {
		notes = append(notes, slower)
	}
	return notes
}

// Notices returns the notices of a Plan, and those about its emulated systems.
func Notices(p *job.Plan) []string { return notices(p.Notices, p.Emulated) }

func notices(own, emulated []string) []string {
	all := slices.Clone(own)
	for _, system := range emulated {
		all = append(all, fmt.Sprintf("%s is emulated, which is slow. If your GitHub plan has the runner, name it in the input runners: %s", system, nativeRunner(system)))
	}
	return all
}

// slower returns a remark about the entries that took much longer to build than the last time on
// the default branch, the worst first; empty if there are none.
func (v view) slower(quote func(string) string) string {
	const (
		most  = 5
		times = 1.5 // as long, at least
		least = 60  // seconds more
	)
	var all []verdict.Work
	for _, w := range v.Work {
		if w.Outcome == job.OutcomeBuilt && w.Before > 0 && w.Seconds >= times*w.Before && w.Seconds >= w.Before+least {
			all = append(all, w)
		}
	}
	slices.SortStableFunc(all, func(a, b verdict.Work) int { return cmp.Compare(b.Seconds-b.Before, a.Seconds-a.Before) })
	var names []string
	for _, w := range all {
		names = append(names, fmt.Sprintf("%s %s (%s)", quote(w.Entry), duration(w.Seconds), duration(w.Before)))
	}
	if len(names) == 0 {
		return ""
	}
	return "took much longer than the last time on the default branch: " + text.Some(names, most)
}

// nativeRunners are labels of GitHub's own runners.
var nativeRunners = map[string]string{
	"aarch64-linux": "ubuntu-24.04-arm", "x86_64-linux": "ubuntu-latest", "aarch64-darwin": "macos-latest",
}

// nativeRunner returns a line of the input runners for a system.
func nativeRunner(system string) string { return system + "=" + cmp.Or(nativeRunners[system], "LABEL") }

// emulated returns a remark for each system about the targets that were built under emulation.
func (v view) emulated(quote func(string) string) map[string]string {
	by := map[string][]*verdict.Target{}
	for _, t := range v.HostsFirst() {
		if t.Emulated {
			by[t.Target.System] = append(by[t.Target.System], t)
		}
	}
	notes := map[string]string{}
	for system, targets := range by {
		notes[system] = fmt.Sprintf("built under emulation (qemu), which is slow: %s. Name a native runner in the input runners: %s", firstNames(targets, quote), quote(nativeRunner(system)))
	}
	return notes
}

// skippedStep returns the reason why the step after the build was skipped, "" if it was not.
func skippedStep(t *verdict.Target) string {
	if t.Result == nil || t.Result.PostBuild == nil || t.Result.PostBuild.Outcome != job.StepSkipped {
		return ""
	}
	return cmp.Or(t.Result.PostBuild.Error, "no reason was given")
}

func (v view) skippedSteps(quote func(string) string) []string {
	by := map[string][]*verdict.Target{}
	for _, t := range v.HostsFirst() {
		if why := skippedStep(t); why != "" {
			by[why] = append(by[why], t)
		}
	}
	var notes []string
	for _, why := range slices.Sorted(maps.Keys(by)) {
		notes = append(notes, fmt.Sprintf("post_build was skipped for %s: %s", firstNames(by[why], quote), quote(why)))
	}
	return notes
}

// firstNames returns the names of the first targets, and the number of the others.
func firstNames(targets []*verdict.Target, quote func(string) string) string {
	const most = 10
	names := targetNames(targets)
	for i := range names {
		names[i] = quote(names[i])
	}
	return text.Some(names, most)
}

// position returns a position in a file as compilers write it.
func position(file string, line int) string {
	if line > 0 {
		file += fmt.Sprintf(":%d", line)
	}
	return file
}
