// Package flagvalue has the typed values of command-line flags, which an input of the action may set too.
package flagvalue

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nearest"
)

// A Value is the value of a flag. Set never fails: readFlags refuses a wrong value, so that one
// on the command line and one in an input are refused alike, and a build can still write its Result.
type Value interface {
	pflag.Value
	// Take sets the value from an input of the action, unless that is empty.
	Take(from Inputs, input string)
	// Wrong returns a value that was set and is not allowed, or nil.
	Wrong() *WrongValue
	// Choices returns all values that the flag can have, nil if there are too many to list.
	Choices() []string
}

// Inputs are those of the action.
type Inputs interface {
	Input(name string) string
	Lines(name string) []string
}

// A WrongValue is a value that a flag can't have. Must says what it must be.
type WrongValue struct {
	Value string
	Must  error
}

// BoolType has --help show a flag like every other that is true or false.
const BoolType = "bool"

// A Scalar is the value of a flag with one value.
type Scalar[T any] struct {
	to    *T
	kind  string // as --help calls it
	parse func(text string) (T, error)
	text  string
	bad   *WrongValue
	// choices are all texts that parse takes, nil if there are too many to list.
	choices []string
}

// New returns the value of a flag that sets to, by default from the given text. The error of
// parse says what a text must be.
func New[T any](to *T, kind, otherwise string, parse func(text string) (T, error)) *Scalar[T] {
	v := &Scalar[T]{to: to, kind: kind, parse: parse}
	_ = v.Set(otherwise)
	return v
}

// Set sets the value.
func (v *Scalar[T]) Set(text string) error {
	v.text, v.bad = text, nil
	if got, err := v.parse(text); err != nil {
		v.bad = &WrongValue{text, err}
	} else {
		*v.to = got
	}
	return nil
}

// Take sets the value from an input, unless that is empty.
func (v *Scalar[T]) Take(from Inputs, input string) {
	if text := from.Input(input); text != "" {
		_ = v.Set(text)
	}
}

// Wrong returns the value that is not allowed, or nil.
func (v *Scalar[T]) Wrong() *WrongValue { return v.bad }

func (v *Scalar[T]) String() string { return v.text }

// Type returns what stands for the value in --help.
func (v *Scalar[T]) Type() string { return v.kind }

// Choices returns all values that the flag can have, nil if there are too many to list.
func (v *Scalar[T]) Choices() []string { return v.choices }

// A List is the value of a flag that may be repeated.
type List[T any] struct {
	to    *[]T
	kind  string // as --help calls an element
	words bool   // elements are separated by commas and white space, not only by lines
	parse func(text string) (T, error)
	texts []string
	given bool
	bad   *WrongValue
}

// Set adds an element, or several words. The first one replaces the default.
func (l *List[T]) Set(text string) error {
	texts := []string{text}
	if l.words {
		texts = words(text)
	}
	l.add(texts)
	return nil
}

// Take sets the elements from an input, unless that is empty.
func (l *List[T]) Take(from Inputs, input string) {
	texts := from.Lines(input)
	if l.words {
		texts = words(from.Input(input))
	}
	if len(texts) > 0 {
		l.add(texts)
	}
}

func (l *List[T]) add(texts []string) {
	if !l.given {
		*l.to, l.texts, l.given = nil, nil, true
	}
	for _, text := range texts {
		element, err := l.parse(text)
		if err != nil && l.bad == nil {
			l.bad = &WrongValue{text, err}
		}
		*l.to, l.texts = append(*l.to, element), append(l.texts, text)
	}
}

// Wrong returns the first element that is not allowed, or nil.
func (l *List[T]) Wrong() *WrongValue { return l.bad }

func (l *List[T]) String() string {
	if len(l.texts) == 0 {
		return ""
	}
	return "[" + strings.Join(l.texts, ",") + "]"
}

// Type returns what stands for an element in --help.
func (l *List[T]) Type() string { return l.kind }

// Choices returns nil: no list is of a few values.
func (l *List[T]) Choices() []string { return nil }

// asItIs reads a text that may be anything.
func asItIs(text string) (string, error) { return text, nil }

// Text is any text.
func Text(to *string, kind, otherwise string) *Scalar[string] {
	return New(to, kind, otherwise, asItIs)
}

// Each returns a list whose elements parse reads: one each time that the flag is given, or a line of
// the input.
func Each[T any](to *[]T, kind string, parse func(text string) (T, error)) *List[T] {
	return &List[T]{to: to, kind: kind, parse: parse}
}

// Lines is a list of texts: one each time that the flag is given, or a line of the input.
func Lines(to *[]string, kind string) *List[string] {
	return Each(to, kind, asItIs)
}

// Words is a list of words that commas or white space separate.
func Words(to *[]string, kind string, otherwise ...string) *List[string] {
	*to = otherwise
	return &List[string]{to: to, kind: kind, words: true, parse: asItIs, texts: otherwise}
}

// words splits a text at commas and white space.
func words(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" ,\t\r\n", c) })
}

// Bool is true or false, and nothing else: a typo must not choose.
func Bool(to *bool, otherwise bool) *Scalar[bool] {
	v := New(to, BoolType, strconv.FormatBool(otherwise), func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, errors.New("must be true or false")
		}
		return text == "true", nil
	})
	v.choices = []string{"true", "false"}
	return v
}

// OneOf is one of the values.
func OneOf[T ~string](to *T, otherwise T, values ...T) *Scalar[T] {
	var names []string
	for _, v := range values {
		names = append(names, string(v))
	}
	v := New(to, strings.Join(names, "|"), string(otherwise), func(text string) (T, error) {
		if slices.Contains(names, text) {
			return T(text), nil
		}
		last := len(names) - 1
		return "", fmt.Errorf("must be %s or %s%s", strings.Join(names[:last], ", "), names[last], nearest.Hint(text, names))
	})
	v.choices = names
	return v
}

// Number is a number from least to most.
func Number[T int | int64](to *T, kind, otherwise string, least, most T) *Scalar[T] {
	return New(to, kind, otherwise, func(text string) (T, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err == nil && n >= int64(least) && n <= int64(most):
			return T(n), nil
		case int64(most) >= math.MaxInt32:
			return 0, fmt.Errorf("must be a number of at least %d", least)
		default:
			return 0, fmt.Errorf("must be a number from %d to %d", least, most)
		}
	})
}

// Time is a time; an empty one is 0.
func Time(to *time.Duration, otherwise string) *Scalar[time.Duration] {
	return New(to, "TIME", otherwise, func(text string) (time.Duration, error) {
		if text == "" {
			return 0, nil
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return 0, errors.New("must be a time such as 90m or 1h30m")
		}
		return d, nil
	})
}

// Days is a time that may be a number of days.
func Days(to *time.Duration, otherwise string) *Scalar[time.Duration] {
	return New(to, "TIME", otherwise, days)
}

// days reads a time that may be a number of days, such as 7d.
func days(text string) (time.Duration, error) {
	const most = 36500
	if number, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(number, 10, 31); err == nil && n <= most {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, errors.New("must be a time such as 7d or 36h")
}

// Size is a number of bytes; 0 and an empty one are no limit.
func Size(to *int64, otherwise string) *Scalar[int64] {
	return New(to, "SIZE", otherwise, sizeOf)
}

var sizePattern = lazyregexp.New(`^(\d+(?:\.\d+)?) ?(?:([KMGT])(i?)B?|B)?$`)

// sizeOf reads a number of bytes, such as 5GB or 1.5GiB; 0 is for none.
func sizeOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	m := sizePattern().FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("must be a size such as 500MB, 5GB or 5GiB")
	}
	unit := 1000.
	if m[3] != "" {
		unit = 1024
	}
	n, err := strconv.ParseFloat(m[1], 64)
	n *= math.Pow(unit, float64(strings.Index(" KMGT", cmp.Or(m[2], " "))))
	if err != nil || n > math.MaxInt64/2 {
		return 0, errors.New("must be a size of less than 4 EiB")
	}
	return int64(n), nil
}
