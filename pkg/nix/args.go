package nix

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
)

// A literal is an argument that is written in this package: an untyped constant converts to it,
// a string variable does not.
type literal string

// arguments are those of a program. All but literals are checked; with an invalid one, err is
// set and the program does not run.
type arguments struct {
	words []string
	err   error
}

func args(words ...literal) *arguments { return new(arguments).add(words...) }

func (a *arguments) add(words ...literal) *arguments {
	for _, word := range words {
		a.words = append(a.words, string(word))
	}
	return a
}

// checked adds words that a check must accept, such as the values of a flag.
func (a *arguments) checked(check func(string) error, words ...string) *arguments {
	if a.err == nil {
		a.err = valid.All(check, words...)
	}
	a.words = append(a.words, words...)
	return a
}

// operands adds the last words after "--", so that no program of Nix takes them for options.
func (a *arguments) operands(check func(string) error, words ...string) *arguments {
	return a.add("--").checked(check, words...)
}

// settings overrides settings of Nix.
func (a *arguments) settings(options ...Option) *arguments {
	for _, o := range options {
		if err := o.check(); err != nil && a.err == nil {
			a.err = err
		}
		a.words = append(a.words, "--option", o.Name, o.value())
	}
	return a
}

// An Option overrides one of Nix's settings.
type Option struct {
	Name string
	// Values has one value, or the words of a list.
	Values []string
}

// Set returns an Option that gives a setting a value, or the words of a list.
func Set(name string, values ...string) Option { return Option{name, values} }

func (o Option) value() string { return strings.Join(o.Values, " ") }

var (
	settingPattern  = lazyregexp.New(`^[a-z][a-z0-9-]{0,99}$`)
	hashPattern     = lazyregexp.New(`^(?:(?:sha256[:-])?[0-9A-Za-z+/]{43,64}=?)?$`)
	contentPattern  = lazyregexp.New(`^(?:(?:text|fixed(?::[a-z]+)?):[a-z0-9]+:[0-9a-z]{20,128})?$`)
	fragmentPattern = lazyregexp.New(`^[A-Za-z0-9._~@+"%-]*$`)
)

// maxArgument is the most bytes that Linux accepts in one argument.
const maxArgument = 128<<10 - 1

func (o Option) check() error {
	if !settingPattern().MatchString(o.Name) {
		return fmt.Errorf("invalid setting %s", valid.Quote(o.Name))
	}
	check := line
	switch strings.TrimPrefix(o.Name, "extra-") {
	case "substituters", "trusted-substituters":
		check = valid.Substituter
	case "trusted-public-keys":
		check = valid.Key
	case "extra-platforms", "platforms":
		check = valid.System
	case "store":
		check = valid.Address
	}
	err := valid.All(check, o.Values...)
	if value := o.value(); err == nil && strings.HasPrefix(value, "-") {
		err = fmt.Errorf("invalid value %s", valid.Quote(value))
	} else if err == nil {
		err = line(value)
	}
	if err != nil {
		return fmt.Errorf("setting %s: %w", o.Name, err)
	}
	return nil
}

func line(s string) error { return valid.Line(s, maxArgument) }

// expression accepts an expression of Nix's language.
func expression(s string) error {
	switch {
	case len(s) > maxArgument:
		return fmt.Errorf("invalid expression: it has %d bytes, more than the %d of an argument", len(s), maxArgument)
	case strings.Contains(s, "\x00"):
		return errors.New("invalid expression: it contains a zero byte")
	}
	return nil
}

// flakeRef accepts a reference to a flake, without an attribute.
func flakeRef(s string) error {
	if strings.TrimSpace(s) == "" || s[0] == '-' || strings.Contains(s, "#") || valid.Line(s, 4096) != nil {
		return fmt.Errorf("invalid flake reference %s", valid.Quote(s))
	}
	return nil
}

// flakeAttr accepts a reference to a flake with an attribute path, escaped as in a URL.
func flakeAttr(s string) error {
	ref, attr, _ := strings.Cut(s, "#")
	if !fragmentPattern().MatchString(attr) {
		return fmt.Errorf("invalid attribute path %s", valid.Quote(attr))
	}
	return flakeRef(ref)
}

// copied accepts an operand of `nix copy` and `nix build`: a store path, or all outputs of a
// derivation.
func copied(s string) error {
	if drv, ok := strings.CutSuffix(s, "^*"); ok {
		return valid.Derivation(drv)
	}
	return valid.StorePath(s)
}

// fileName accepts the name of a file, or an entry of the search path.
func fileName(s string) error {
	if s == "" || s[0] == '-' || valid.Line(s, 4096) != nil {
		return fmt.Errorf("invalid path %s", valid.Quote(s))
	}
	return nil
}

// check returns an error if a field is invalid.
func (i *PathInfo) check() error {
	if err := valid.StorePath(i.Path); err != nil {
		return err
	}
	err := valid.All(valid.StorePath, i.References...)
	if i.Deriver != "" && err == nil {
		err = valid.StorePath(i.Deriver)
	}
	if err == nil && (!hashPattern().MatchString(i.NarHash) || !contentPattern().MatchString(i.CA)) {
		err = fmt.Errorf("invalid hash %s or content address %s", valid.Quote(i.NarHash), valid.Quote(i.CA))
	}
	if err = cmp.Or(err, valid.All(valid.Key, i.Signatures...)); err != nil {
		return fmt.Errorf("%s: %w", i.Path, err)
	}
	return nil
}
