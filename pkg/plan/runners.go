package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// Runners maps names to the labels of runners, as the workflow's input lists them. A
// name is a system, or a feature that a builder must have, such as kvm, or anything
// else for a runner that targets choose by its labels.
type Runners map[string][]string

// ParseRunners reads lines of `name=label[,label]`.
func ParseRunners(text string) (Runners, error) {
	runners := Runners{}
	for line := range strings.Lines(text) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
			continue
		}
		system, labels, ok := strings.Cut(line, "=")
		system = strings.TrimSpace(system)
		if !ok || system == "" {
			return nil, fmt.Errorf("runners: %q is not of the form system=label[,label], such as aarch64-linux=ubuntu-24.04-arm", strings.TrimSpace(line))
		}
		for label := range strings.SplitSeq(labels, ",") {
			if label = strings.TrimSpace(label); label != "" {
				runners[system] = append(runners[system], label)
			}
		}
		if len(runners[system]) == 0 {
			return nil, fmt.Errorf("runners: %s has no label; write %s=label[,label]", system, system)
		}
	}
	return runners, nil
}

// named returns the labels of the runner that the input lists for a target: the one
// that the target chooses itself, else the one for a feature that it needs. nil is the
// runner of its system.
func (r Runners) named(t *job.Target) []string {
	if labels := r.chosen(t.Runner); labels != nil {
		return labels
	}
	for _, feature := range t.Features {
		if labels := r[feature]; len(labels) > 0 {
			return labels
		}
	}
	return nil
}

// chosen returns the labels of the runner that a flake asks for, or nil where the input
// does not list them as one runner. The workflow's secrets go to the runner, so a flake
// may not even choose a part of such a list: "self-hosted" alone is any machine of an
// organisation.
func (r Runners) chosen(labels []string) []string {
	wanted := slices.Sorted(slices.Values(labels))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if len(wanted) > 0 && slices.Equal(slices.Sorted(slices.Values(r[name])), wanted) {
			return r[name]
		}
	}
	return nil
}

// Refused returns a notice about the targets to build that ask for a runner which the
// input does not list; it is empty if there are none.
func (r Runners) Refused(targets []job.Target) string {
	const most, longest = 5, 80
	var all []string
	for i := range targets {
		t := &targets[i]
		if t.State != job.Build || len(t.Runner) == 0 || r.chosen(t.Runner) != nil {
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
	return "Built on the ordinary runner of its system, because the input runners does not list what meta.nixMatrix.runner asks for: " +
		strings.Join(all, ", ") + ". To allow it, add a line NAME=LABEL[,LABEL] with exactly these labels to the input runners."
}
