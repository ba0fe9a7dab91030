package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/pkg/job"
)

// Runners maps names to the labels of runners, as the workflow's input lists them. A name is a
// system, a feature that a builder must have on a system, such as aarch64-linux+kvm, a bare
// feature of x86_64-linux, such as kvm, or any other name for a runner that targets select by its
// labels.
type Runners map[string][]string

// errRunners is the error of ParseRunners for an invalid line.
var errRunners = errors.New("must be of the form NAME=LABEL[,LABEL], such as aarch64-linux=ubuntu-24.04-arm, kvm=LABEL or aarch64-linux+kvm=LABEL")

// ParseRunners reads lines of `name=label[,label]`.
func ParseRunners(text string) (Runners, error) {
	runners := Runners{}
	for line := range strings.Lines(text) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
			continue
		}
		system, labels, ok := strings.Cut(line, "=")
		system = strings.TrimSpace(system)
		platform, feature, qualified := strings.Cut(system, "+")
		if !ok || system == "" || qualified && (!isSystem(platform) || feature == "") {
			return nil, errRunners
		}
		for label := range strings.SplitSeq(labels, ",") {
			if label = strings.TrimSpace(label); label != "" {
				runners[system] = append(runners[system], label)
			}
		}
		if len(runners[system]) == 0 {
			return nil, errRunners
		}
	}
	return runners, nil
}

// named returns the labels of the runner that the input lists for a target: the one that the
// target selects itself, else the one for a feature that it needs. nil is the runner of its
// system.
func (r Runners) named(t *job.Target) []string {
	if labels := r.chosen(t.Runner); labels != nil {
		return labels
	}
	for _, feature := range t.Features {
		for _, name := range featureLines(t.System, feature) {
			if labels := r[name]; len(labels) > 0 {
				return labels
			}
		}
	}
	return nil
}

// isSystem reports whether the name of a line is that of a system.
func isSystem(name string) bool {
	cpu, os, ok := strings.Cut(name, "-")
	return ok && cpu != "" && !strings.Contains(cpu, "+") && slices.Contains([]string{"linux", "darwin", "freebsd", "netbsd", "openbsd", "windows"}, os)
}

// featureLines returns the names of the lines for targets of a system that need a
// feature, the most exact first. A line without a system is for the runner's own, which
// is x86_64-linux and builds i686-linux as well.
func featureLines(system, feature string) []string {
	names := []string{system + "+" + feature}
	if system == "i686-linux" {
		names = append(names, "x86_64-linux+"+feature)
	}
	if (system == "x86_64-linux" || system == "i686-linux") && !isSystem(feature) && !strings.Contains(feature, "+") {
		names = append(names, feature)
	}
	return names
}

// Unused returns a notice about the lines that no target uses, by its system, its features or its
// own choice, with the nearest name in use. It is empty if there are none, and if a target
// failed, because its features are unknown.
func (r Runners) Unused(targets []job.Target) string {
	used, names := map[string]bool{}, map[string]bool{}
	for i := range targets {
		t := &targets[i]
		if t.State == job.StateFailed {
			return ""
		}
		used[t.System], names[t.System] = true, true
		for _, feature := range t.Features {
			lines := featureLines(t.System, feature)
			names[lines[len(lines)-1]] = true
			for _, name := range lines {
				used[name] = true
			}
		}
		for name, labels := range r {
			used[name] = used[name] || sameLabels(labels, t.Runner)
		}
	}
	var unused []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if !used[name] {
			unused = append(unused, name+nearest.Hint(name, slices.Collect(maps.Keys(names))))
		}
	}
	if len(unused) == 0 || len(targets) == 0 {
		return ""
	}
	return "No target uses these lines of the input runners, by its system, a feature that it requires or meta.nixMatrix.runner: " +
		strings.Join(unused, ", ") + ". A feature without a system is for x86_64-linux; for another system, write SYSTEM+FEATURE=LABEL. Correct the lines, or remove them."
}

// chosen returns the labels of the runner that a flake asks for, or nil if the input does not
// list them as one runner. The workflow's secrets go to the runner, so a flake may not even
// select a part of such a list: "self-hosted" alone is any machine of an organisation.
func (r Runners) chosen(labels []string) []string {
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if sameLabels(r[name], labels) {
			return r[name]
		}
	}
	return nil
}

// sameLabels reports whether a flake that asks for labels asks for the runner of a line.
func sameLabels(line, labels []string) bool {
	return len(labels) > 0 && slices.Equal(slices.Sorted(slices.Values(line)), slices.Sorted(slices.Values(labels)))
}

// Refused returns a notice about the targets to build that ask for a runner which the
// input does not list; it is empty if there are none.
func (r Runners) Refused(targets []job.Target) string {
	const most, longest = 5, 80
	var all []string
	for i := range targets {
		t := &targets[i]
		if t.State != job.StateBuild || len(t.Runner) == 0 || r.chosen(t.Runner) != nil {
			continue
		}
		labels := []rune(strings.Join(t.Runner, ","))
		if len(labels) > longest {
			labels = append(labels[:longest], '…')
		}
		all = append(all, fmt.Sprintf("%s asks for %q", t.Name, string(labels)))
	}
	if len(all) == 0 {
		return ""
	}
	if more := len(all) - most; more > 0 {
		all = append(all[:most], fmt.Sprintf("%d more", more))
	}
	return "Built on the ordinary runner of its system, because the input runners does not list the labels in meta.nixMatrix.runner: " +
		strings.Join(all, ", ") + ". To allow it, add a line NAME=LABEL[,LABEL] with exactly these labels to the input runners."
}
