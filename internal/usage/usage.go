// Package usage has the error of a mistake that the caller of the program made: in a flag, an
// input, or a file that was given. The program ends with its own exit code then.
package usage

import "fmt"

// An Error is a mistake of the caller.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error with a text as of fmt.Errorf.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// Wrap returns err as an Error, and nil for nil.
func Wrap(err error) error {
	if err == nil {
		return nil
	}
	return &Error{err}
}
