package job

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
)

// Limits of values from a flake.
const (
	// MaxName is the most bytes of an attribute path, and of a name made of one.
	MaxName = 2048
	// MaxText is the most bytes of an error, a reason or a command.
	MaxText = 64 << 10
	// MaxDescription is how many characters a Description may have.
	MaxDescription = 200

	// MaxPriority is the highest priority of a target, and -MaxPriority the lowest.
	MaxPriority = 1000
	// MaxTimeout is the longest timeout of a target and of an entry, in seconds.
	MaxTimeout = 7 * 24 * 60 * 60

	maxHost  = 1024 // bytes
	maxLabel = 256  // bytes of the label of a runner, and of a system feature
	maxList  = 256  // of outputs, labels, features
)

// Check returns an error unless a target is valid. All fields can come from a flake: those that
// become arguments must have their format, those that are shown must be printable and of
// bounded size.
func (t *Target) Check() error {
	return cmp.Or(
		field("flake", valid.Line(t.Flake, MaxName)),
		field("attr", valid.Line(t.Attr, MaxName)),
		field("name", line(t.Name, MaxName)),
		field("kind", t.Kind.check()),
		field("host", valid.Line(t.Host, maxHost)),
		field("node", valid.Line(t.Node, MaxName)),
		field("state", t.checkState()),
		field("system", optional(valid.System, t.System)),
		field("drvPath", optional(valid.Derivation, t.DrvPath)),
		field("outputs", list(valid.Output, t.Outputs)),
		field("outPaths", t.checkOutPaths()),
		field("description", checkDescription(t.Description)),
		field("features", list(word, t.Features)),
		field("runner", list(label, t.Runner)),
		field("group", optional(CheckGroup, t.Group)),
		field("timeout", between(t.Timeout, 0, MaxTimeout)),
		field("priority", between(t.Priority, -MaxPriority, MaxPriority)),
		field("reproduce", valid.Line(t.Reproduce, MaxText)),
		field("needsSecret", optional(valid.Name, t.NeedsSecret)),
		field("error", checkText(t.Error)),
		field("reason", checkText(t.Reason)),
	)
}

// checkState returns an error unless the target has the fields that its state needs.
func (t *Target) checkState() error {
	if t.Refused && t.State != StateSkip {
		return errors.New("it is refused, but not skipped")
	}
	switch t.State {
	case StateFailed:
		return nil
	case StateSkip:
		if t.Refused || t.NeedsSecret != "" {
			return nil
		}
	case StateBuild:
		if t.NeedsSecret != "" {
			return errors.New("it is built, but needs a secret that is missing")
		}
	default:
		return fmt.Errorf("unknown state %s", valid.Quote(string(t.State)))
	}
	switch {
	case t.DrvPath == "":
		return errors.New("there is no derivation")
	case len(t.Outputs) == 0:
		return errors.New("no output of the derivation is wanted")
	case t.System == "":
		return errors.New("the derivation has no system")
	}
	return nil
}

func (t *Target) checkOutPaths() error {
	for name, path := range t.OutPaths {
		if !slices.Contains(t.Outputs, name) {
			return fmt.Errorf("%s is not one of the outputs", valid.Quote(name))
		}
		if err := field(name, valid.StorePath(path)); err != nil {
			return err
		}
	}
	return nil
}

func (k Kind) check() error {
	switch k {
	case NixOS, Darwin, Home, Package, Check, Other:
		return nil
	}
	return fmt.Errorf("unknown kind %s", valid.Quote(string(k)))
}

func (e *Entry) check() error {
	if err := cmp.Or(field("name", line(e.Name, MaxName)), CheckID(e.ID)); err != nil {
		return err
	}
	host := ""
	if e.Host != nil {
		host = *e.Host
	}
	err := cmp.Or(
		field("host", valid.Line(host, maxHost)),
		field("platform", valid.System(e.Platform)),
		field("system", valid.System(e.System)),
		field("attr", valid.Line(e.Attr, MaxName)),
		field("outputs", list(valid.Output, e.Outputs)),
		field("runner", some(e.Runner)),
		field("runner", list(label, e.Runner)),
		field("timeout", between(e.Timeout, 0, MaxTimeout)),
		field("plan", valid.Line(e.Plan, MaxName)),
		e.checkTargets(),
	)
	for _, t := range e.Targets {
		err = cmp.Or(err, field("attr", valid.Line(t.Attr, MaxName)), field("drvPath", optional(valid.Derivation, t.DrvPath)))
	}
	if err != nil {
		return fmt.Errorf("%q: %w", e.Name, err)
	}
	return nil
}

// checkTargets returns an error unless an entry has a target, and a helper none.
func (e *Entry) checkTargets() error {
	if !e.Helper {
		return cmp.Or(field("targets", some(e.Targets)), field("drvPath", valid.Derivation(e.DrvPath)), field("outputs", some(e.Outputs)))
	}
	if len(e.Targets) > 0 || e.DrvPath != "" || len(e.Outputs) > 0 {
		return errors.New("targets: a helper has none")
	}
	return nil
}

// CheckSources returns an error unless substituters and public keys are valid. They become words
// of Nix's settings.
func CheckSources(substituters, keys []string) error {
	return cmp.Or(field("substituters", list(valid.Substituter, substituters)), field("publicKeys", list(valid.Key, keys)))
}

// CheckDrvPath returns an error unless path is the store path of a derivation.
func CheckDrvPath(path string) error { return valid.Derivation(path) }

// groupPattern matches names of groups, which become names of entries.
var groupPattern = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9._-])?$`)

// CheckGroup returns an error unless name may be that of a group of targets.
func CheckGroup(name string) error {
	if !groupPattern().MatchString(name) {
		return fmt.Errorf("%s is no name of at most 64 letters, digits, blanks and . _ -", valid.Quote(name))
	}
	return nil
}

// CheckName returns an error unless name is an attribute path that can be shown.
func CheckName(name string) error { return line(name, MaxName) }

// field returns an error that names the field that it is about.
func field(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func optional(check func(string) error, s string) error {
	if s == "" {
		return nil
	}
	return check(s)
}

func between(n, least, most int) error {
	if n < least || n > most {
		return fmt.Errorf("%d is not from %d to %d", n, least, most)
	}
	return nil
}

func some[T any](all []T) error {
	if len(all) == 0 {
		return errors.New("there is none")
	}
	return nil
}

func list(check func(string) error, all []string) error {
	if len(all) > maxList {
		return fmt.Errorf("there are %d, more than %d", len(all), maxList)
	}
	return valid.All(check, all...)
}

// line returns an error unless s is one line that is not blank.
func line(s string, most int) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it is empty")
	}
	return valid.Line(s, most)
}

func label(s string) error { return line(s, maxLabel) }

func word(s string) error {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return fmt.Errorf("%s is not one word", valid.Quote(s))
	}
	return label(s)
}

func checkDescription(s string) error {
	if utf8.RuneCountInString(s) > MaxDescription || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%s is not one line of at most %d characters", valid.Quote(s), MaxDescription)
	}
	return nil
}

// checkText returns an error unless s is text of a bounded size. Callers that show it have to
// make it safe.
func checkText(s string) error {
	if len(s) > MaxText || !utf8.ValidString(s) {
		return fmt.Errorf("%s is not text of at most %d bytes", valid.Quote(s), MaxText)
	}
	return nil
}
