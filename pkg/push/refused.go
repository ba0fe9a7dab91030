package push

import (
	"cmp"
	"errors"
	"net/http"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/niks3"
)

// A RefusedError says that a destination answers 401, 403 or 404: a retry does not help.
type RefusedError struct {
	Status int // of HTTP
	Err    error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// A LackError names a secret or permission without which nothing can be pushed.
type LackError struct {
	What string
	Next string // what to do, a sentence; empty where the secret is to be set
}

func (e *LackError) Error() string {
	text := e.What + " is not set"
	if e.Next != "" {
		text += ". " + e.Next
	}
	return text
}

// refused returns a *RefusedError if the status is one of those, else the error itself.
func refused(err error, status int) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return &RefusedError{status, err}
	default:
		return err
	}
}

// refusedBy returns a *RefusedError if an error of Attic, niks3, Nix or Cachix's program comes from
// one of those answers, else the error itself.
func refusedBy(err error) error {
	status := cmp.Or(attic.Status(err), niks3.Status(err))
	var program *nix.Error
	if status == 0 && errors.As(err, &program) {
		status = program.HTTPStatus()
	}
	return refused(err, status)
}
