package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/pkg/action"
)

// A flagValue is the value of a flag. Set never fails: readFlags refuses a wrong value, so that one
// on the command line and one in an input are refused alike, and a build can still write its Result.
type flagValue interface {
	pflag.Value
	// take sets the value from an input of the action, unless that is empty.
	take(from *action.Action, input string)
	// wrong returns a value that was set and is not allowed, or nil.
	wrong() *wrongValue
}

// A wrongValue is a value that a flag can't have. must says what it must be.
type wrongValue struct {
	value string
	must  error
}

// boolType has --help show a flag like every other that is true or false.
const boolType = "bool"

// A value is that of a flag with one value.
type value[T any] struct {
	to    *T
	kind  string // as --help calls it
	parse func(text string) (T, error)
	text  string
	bad   *wrongValue
}

// newValue returns the value of a flag that sets to, by default from the given text. The error of
// parse says what a text must be.
func newValue[T any](to *T, kind, otherwise string, parse func(text string) (T, error)) *value[T] {
	v := &value[T]{to: to, kind: kind, parse: parse}
	_ = v.Set(otherwise)
	return v
}

// Set sets the value.
func (v *value[T]) Set(text string) error {
	v.text, v.bad = text, nil
	if got, err := v.parse(text); err != nil {
		v.bad = &wrongValue{text, err}
	} else {
		*v.to = got
	}
	return nil
}

func (v *value[T]) take(from *action.Action, input string) {
	if text := from.Input(input); text != "" {
		_ = v.Set(text)
	}
}

func (v *value[T]) wrong() *wrongValue { return v.bad }

func (v *value[T]) String() string { return v.text }

// Type returns what stands for the value in --help.
func (v *value[T]) Type() string { return v.kind }

// A list is the value of a flag that may be repeated.
type list[T any] struct {
	to    *[]T
	kind  string // as --help calls an element
	words bool   // elements are separated by commas and white space, not only by lines
	parse func(text string) (T, error)
	texts []string
	given bool
	bad   *wrongValue
}

// Set adds an element, or several words. The first one replaces the default.
func (l *list[T]) Set(text string) error {
	texts := []string{text}
	if l.words {
		texts = words(text)
	}
	l.add(texts)
	return nil
}

func (l *list[T]) take(from *action.Action, input string) {
	texts := from.Lines(input)
	if l.words {
		texts = words(from.Input(input))
	}
	if len(texts) > 0 {
		l.add(texts)
	}
}

func (l *list[T]) add(texts []string) {
	if !l.given {
		*l.to, l.texts, l.given = nil, nil, true
	}
	for _, text := range texts {
		element, err := l.parse(text)
		if err != nil && l.bad == nil {
			l.bad = &wrongValue{text, err}
		}
		*l.to, l.texts = append(*l.to, element), append(l.texts, text)
	}
}

func (l *list[T]) wrong() *wrongValue { return l.bad }

func (l *list[T]) String() string {
	if len(l.texts) == 0 {
		return ""
	}
	return "[" + strings.Join(l.texts, ",") + "]"
}

// Type returns what stands for an element in --help.
func (l *list[T]) Type() string { return l.kind }

// asItIs reads a text that may be anything.
func asItIs(text string) (string, error) { return text, nil }

// textValue is any text.
func textValue(to *string, kind, otherwise string) *value[string] {
	return newValue(to, kind, otherwise, asItIs)
}

// linesValue is a list of texts: one each time that the flag is given, or a line of the input.
func linesValue(to *[]string, kind string) *list[string] {
	return &list[string]{to: to, kind: kind, parse: asItIs}
}

// wordsValue is a list of words that commas or white space separate.
func wordsValue(to *[]string, kind string, otherwise ...string) *list[string] {
	*to = otherwise
	return &list[string]{to: to, kind: kind, words: true, parse: asItIs, texts: otherwise}
}

// words splits a text at commas and white space.
func words(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" ,\t\r\n", c) })
}

// boolValue is true or false, and nothing else: a typo must not choose.
func boolValue(to *bool, otherwise bool) *value[bool] {
	return newValue(to, boolType, strconv.FormatBool(otherwise), func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, errors.New("must be true or false")
		}
		return text == "true", nil
	})
}

// oneOf is one of the values.
func oneOf[T ~string](to *T, otherwise T, values ...T) *value[T] {
	var names []string
	for _, v := range values {
		names = append(names, string(v))
	}
	return newValue(to, strings.Join(names, "|"), string(otherwise), func(text string) (T, error) {
		if slices.Contains(names, text) {
			return T(text), nil
		}
		last := len(names) - 1
		return "", fmt.Errorf("must be %s or %s%s", strings.Join(names[:last], ", "), names[last], nearest.Hint(text, names))
	})
}

// numberValue is a number from least to most.
func numberValue[T int | int64](to *T, kind, otherwise string, least, most T) *value[T] {
	return newValue(to, kind, otherwise, func(text string) (T, error) {
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

// timeValue is a time; an empty one is 0.
func timeValue(to *time.Duration, otherwise string) *value[time.Duration] {
	return newValue(to, "TIME", otherwise, func(text string) (time.Duration, error) {
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

// daysValue is a time that may be a number of days.
func daysValue(to *time.Duration, otherwise string) *value[time.Duration] {
	return newValue(to, "TIME", otherwise, days)
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

// sizeValue is a number of bytes; 0 and an empty one are no limit.
func sizeValue(to *int64, otherwise string) *value[int64] {
	return newValue(to, "SIZE", otherwise, sizeOf)
}

var sizePattern = regexp.MustCompile(`^(\d+(?:\.\d+)?) ?(?:([KMGT])(i?)B?|B)?$`)

// sizeOf reads a number of bytes, such as 5GB or 1.5GiB; 0 is for none.
func sizeOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	m := sizePattern.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("must be a size such as 500MB, 5GB or 5GiB")
	}
	unit := 1000.
	if m[3] != "" {
		unit = 1024
	}
	n, err := strconv.ParseFloat(m[1], 64)
	n *= math.Pow(unit, float64(strings.Index(" KMGT", or(m[2], " "))))
	if err != nil || n > math.MaxInt64/2 {
		return 0, errors.New("must be a size of less than 4 EiB")
	}
	return int64(n), nil
}
