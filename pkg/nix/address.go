package nix

import (
	"errors"
	"net/url"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

var schemePattern = lazyregexp.New(`^[a-zA-Z][a-zA-Z0-9+.-]*://`)

// password returns the position of the password in the address of a store: the text between
// the name of the user and the last @. An invalid address may have one too.
func password(address string) (start, end int) {
	scheme := len(schemePattern().FindString(address))
	end = strings.LastIndexByte(address, '@')
	if end < scheme || address[scheme] == '/' { // a path
		return 0, 0
	}
	user, _, ok := strings.Cut(address[scheme:end], ":")
	if !ok {
		return 0, 0
	}
	return scheme + len(user) + 1, end
}

// Redact returns the address of a store without its password.
func Redact(address string) string {
	start, end := password(address)
	if start == end {
		return address
	}
	return address[:start] + "xxxxx" + address[end:]
}

// redactErr removes the passwords of addresses from the message of a program's error.
func redactErr(err error, addresses ...string) error {
	var failed *Error
	if errors.As(err, &failed) {
		failed.Message = redactText(failed.Message, addresses...)
	}
	return err
}

// redactText returns a text without the passwords of addresses.
func redactText(text string, addresses ...string) string {
	for _, address := range addresses {
		start, end := password(address)
		if start == end {
			continue
		}
		secret := address[start:end]
		text = strings.ReplaceAll(text, secret, "xxxxx")
		if decoded, err := url.PathUnescape(secret); err == nil {
			for _, form := range []string{decoded, url.PathEscape(decoded), url.QueryEscape(decoded)} {
				text = strings.ReplaceAll(text, form, "xxxxx")
			}
		}
	}
	return text
}

// binaryCaches are the schemes of stores that hold compressed NARs.
var binaryCaches = map[string]bool{"file": true, "http": true, "https": true, "s3": true}

// IsBinaryCache reports whether an address is that of a binary cache.
func IsBinaryCache(address string) bool {
	scheme, _, _ := strings.Cut(address, ":")
	return binaryCaches[scheme]
}
