package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// An askedField is a field of a target's meta.nixMatrix.
type askedField struct {
	Value json.RawMessage `json:"value"` // a string, an integer or a Boolean
	Kind  string          `json:"kind"`  // in place of any other value, what it is: "a list"
}

// fields are those of meta.nixMatrix, with what their values must be.
var fields = []struct {
	name, must string
	set        func(t *job.Target, value json.RawMessage) error
}{
	{"group", "a name of at most 64 letters, digits, blanks and . _ -", setGroup},
	{"priority", fmt.Sprintf("an integer from -%d to %[1]d", job.MaxPriority), setPriority},
	{"runner", "a label or a list of labels", setRunner},
	{"skip", "true, false or a reason", setSkip},
	{"timeout", `a time of at most 7 days, such as "90m", or a number of seconds`, setTimeout},
}

var errValue = errors.New("invalid value")

// ask sets the fields of a target that its meta.nixMatrix asks for, and returns those that are ignored
// because of their values.
func (a *aboutEvent) ask(t *job.Target) (odd []string) {
	for _, f := range fields {
		asked, ok := a.Asked[f.name]
		if !ok || asked.Kind == "null" {
			continue
		}
		is := text.Clip(asked.Kind, 40)
		if is == "" && f.set(t, asked.Value) != nil {
			is = text.Clip(string(asked.Value), 40)
		}
		if is != "" {
			odd = append(odd, fmt.Sprintf("meta.nixMatrix.%s of %s (%s, not %s)", f.name, t.Name, text.Line(is), f.must))
		}
	}
	return odd
}

func setGroup(t *job.Target, value json.RawMessage) error {
	group, err := read[string](value)
	if err == nil {
		err = job.CheckGroup(group)
	}
	if err == nil {
		t.Group = group
	}
	return err
}

func setPriority(t *job.Target, value json.RawMessage) error {
	priority, err := read[int](value)
	if err == nil && (priority < -job.MaxPriority || priority > job.MaxPriority) {
		err = errValue
	}
	if err == nil {
		t.Priority = priority
	}
	return err
}

// setRunner checks only the type: the labels are reported apart.
func setRunner(_ *job.Target, value json.RawMessage) error {
	_, err := read[string](value)
	return err
}

// setSkip checks only the type: a target that is skipped is not described.
func setSkip(_ *job.Target, value json.RawMessage) error {
	skip, err := read[bool](value)
	if err == nil && skip {
		err = errValue
	}
	return err
}

func setTimeout(t *job.Target, value json.RawMessage) error {
	seconds, err := read[int](value)
	if err != nil {
		var words string
		var limit time.Duration
		if words, err = read[string](value); err == nil {
			limit, err = time.ParseDuration(words)
		}
		seconds = int((limit + time.Second - 1) / time.Second)
	}
	if err == nil && (seconds < 1 || seconds > job.MaxTimeout) {
		err = errValue
	}
	if err == nil {
		t.Timeout = seconds
	}
	return err
}

// skipReason returns the Reason of a target whose meta.nixMatrix.skip is a reason, or true.
func skipReason(reason string) string {
	const because = "because of meta.nixMatrix.skip"
	if reason = text.Words(reason); reason == "" {
		return because
	}
	return because + ": " + text.Clip(reason, maxShown)
}
