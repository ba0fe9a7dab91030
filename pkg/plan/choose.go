package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// A Chooser selects and names targets by jq expressions. The input of an expression is an object
// with the fields top_attr, system, attr, name, host, kind, description, meta, drvPath and
// requiredSystemFeatures; the first three and name are as nixbuild-action documents them.
type Chooser struct {
	filter, label *expression
}

// expressionTime is the timeout of an expression for one target.
const expressionTime = 10 * time.Second

// maxLabel is the longest label, in bytes: it becomes the name of a job.
const maxLabel = 100

// NewChooser parses the expressions: filter returns true for a wanted target, label a name. An
// empty one changes nothing. An error has the position in the expression.
func NewChooser(filter, label string) (*Chooser, error) {
	c := &Chooser{}
	var err error
	if c.filter, err = compile("filter_builds", filter); err != nil {
		return nil, err
	}
	c.label, err = compile("label_builds", label)
	return c, err
}

// parseError returns an error with its position in an expression.
func parseError(name, text string, err error) error {
	var at *gojq.ParseError
	if !errors.As(err, &at) {
		return fmt.Errorf("%s: %w", name, err)
	}
	offset := min(max(0, at.Offset-len(at.Token)), len(text)) // gojq has the offset of the end
	line := strings.Count(text[:offset], "\n") + 1
	column := offset - strings.LastIndexByte(text[:offset], '\n')
	return fmt.Errorf("%s: line %d, column %d of the jq expression: %w", name, line, column, err)
}

// Choose returns the wanted targets, with their new names, which begin with the flake where targets of
// several flakes have the same, and the names of the others. Targets
// that could not be evaluated are always wanted. metas are the meta of the targets' packages, as
// JSON objects; a missing one is empty to the expressions.
func (c *Chooser) Choose(ctx context.Context, targets []job.Target, metas []json.RawMessage) (wanted []job.Target, left []string, err error) {
	for n, t := range targets {
		if t.State == job.StateFailed {
			wanted = append(wanted, t)
			continue
		}
		meta := map[string]any{}
		if n < len(metas) && len(metas[n]) > 0 {
			if err := json.Unmarshal(metas[n], &meta); err != nil {
				return nil, nil, fmt.Errorf("cannot read the meta of %s: %w", t.Name, err)
			}
		}
		keep, err := c.wants(ctx, &t, meta)
		if err != nil {
			return nil, nil, err
		}
		if !keep {
			left = append(left, t.Name)
			continue
		}
		if err := c.name(ctx, &t, meta); err != nil {
			return nil, nil, err
		}
		wanted = append(wanted, t)
	}
	distinguish(wanted)
	return wanted, left, nil
}

// distinguish puts the flake before the names that targets of several flakes have, and before those of
// their hosts.
func distinguish(targets []job.Target) {
	names, nodes := map[string]string{}, map[string]string{}
	const several = "\n" // no reference of a flake
	add := func(all map[string]string, name, flake string) {
		if other, ok := all[name]; ok && other != flake {
			flake = several
		}
		all[name] = flake
	}
	for i := range targets {
		add(names, targets[i].Name, targets[i].Flake)
		add(nodes, targets[i].Node, targets[i].Flake)
	}
	for i := range targets {
		t := &targets[i]
		if names[t.Name] == several {
			t.Name = text.Clip(t.Flake+"#"+t.Name, job.MaxName)
		}
		if t.Node != "" && nodes[t.Node] == several {
			t.Node = text.Clip(t.Flake+"#"+t.Node, job.MaxName)
		}
	}
}

func (c *Chooser) wants(ctx context.Context, t *job.Target, meta map[string]any) (bool, error) {
	if c.filter == nil {
		return true, nil
	}
	value, err := evaluate(ctx, c.filter, fields(t, meta))
	if err != nil {
		return false, fmt.Errorf("filter_builds, for %s: %w", t.Name, err)
	}
	keep, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("invalid result %s of filter_builds for %s: must be true or false", gojq.Preview(value), t.Name)
	}
	return keep, nil
}

func (c *Chooser) name(ctx context.Context, t *job.Target, meta map[string]any) error {
	if c.label == nil {
		return nil
	}
	value, err := evaluate(ctx, c.label, fields(t, meta))
	if err != nil {
		return fmt.Errorf("label_builds, for %s: %w", t.Name, err)
	}
	label, ok := value.(string)
	if ok {
		label = text.Line(label)
	}
	if label == "" || len(label) > maxLabel {
		return fmt.Errorf("invalid result %s of label_builds for %s: must be a string of at most %d characters", gojq.Preview(value), t.Name, maxLabel)
	}
	t.Name = label
	return nil
}

// evaluate returns the first value of an expression. An unknown field of a target is an error,
// whatever the value.
func evaluate(ctx context.Context, e *expression, target map[string]any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, expressionTime)
	defer cancel()
	e.target, e.unknown = target, ""
	value, ok := e.code.RunWithContext(ctx, target).Next()
	if err := e.err(); err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("the expression has no result")
	}
	if err, ok := value.(error); ok {
		return nil, err
	}
	return value, nil
}

// fields returns the input of an expression for a target.
func fields(t *job.Target, meta map[string]any) map[string]any {
	segments := strings.Split(t.Name, ".")
	top, attr := segments[0], t.Name
	if len(segments) > 1 {
		attr = strings.TrimPrefix(strings.TrimPrefix(t.Name, top+"."), t.System+".")
	}
	return map[string]any{
		"flake":                  flake(t),
		"top_attr":               top,
		"system":                 t.System,
		"attr":                   attr,
		"name":                   job.DrvName(t.DrvPath),
		"host":                   host(t),
		"kind":                   string(t.Kind),
		"drvPath":                t.DrvPath,
		"description":            t.Description,
		"meta":                   meta,
		"requiredSystemFeatures": anyOf(t.Features),
	}
}

func flake(t *job.Target) any {
	if t.Flake == "" {
		return nil
	}
	return t.Flake
}

func host(t *job.Target) any {
	if t.Host == "" {
		return nil
	}
	return t.Host
}

// anyOf returns a list as jq's type.
func anyOf(words []string) []any {
	list := make([]any, len(words))
	for i, word := range words {
		list[i] = word
	}
	return list
}
