package nix

import (
	"errors"
	"net/url"
	"strings"
	"syscall"
)

// Redact takes a password out of the address of a store.
func Redact(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	return u.Redacted()
}

// redactErr takes the passwords of addresses out of what a program said.
func redactErr(err error, addresses ...string) error {
	var failed *Error
	if !errors.As(err, &failed) {
		return err
	}
	for _, address := range addresses {
		failed.Message = strings.ReplaceAll(failed.Message, address, Redact(address))
		if u, err := url.Parse(address); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok && password != "" {
				failed.Message = strings.ReplaceAll(failed.Message, password, "xxxxx")
			}
		}
	}
	return err
}

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
