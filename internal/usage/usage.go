// Package usage has the error of wrong usage: an invalid flag, input or given file. The program
// has an exit code of its own for it.
package usage

import "fmt"

// An Error is an error of wrong usage.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error with the text of fmt.Errorf.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// Wrap returns err as an Error, or nil if err is nil.
func Wrap(err error) error {
	if err == nil {
		return nil
	}
	return &Error{err}
}
