// Package valid checks foreign strings. Documents are checked with it where they are read, and
// arguments where they are made, so that both have the same rules.
package valid

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/storepath"
)

// StorePath accepts a store path.
func StorePath(s string) error {
	if !storepath.Valid(s) {
		return invalid("store path", s)
	}
	return nil
}

// Derivation accepts the store path of a derivation.
func Derivation(s string) error {
	if err := StorePath(s); err != nil {
		return err
	}
	if !strings.HasSuffix(s, ".drv") {
		return invalid("derivation", s)
	}
	return nil
}

var output = lazyregexp.New(`^[0-9a-zA-Z+._?=][0-9a-zA-Z+\-._?=]{0,127}$`)

// Output accepts the name of an output.
func Output(s string) error {
	if !output().MatchString(s) {
		return invalid("output name", s)
	}
	return nil
}

// Realisable accepts a store path, and outputs of a derivation as DRV!OUT[,OUT].
func Realisable(s string) error {
	drv, outputs, chosen := strings.Cut(s, "!")
	if !chosen {
		return StorePath(s)
	}
	if err := Derivation(drv); err != nil {
		return err
	}
	return All(Output, strings.Split(outputs, ",")...)
}

var name = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)

// Name accepts the name of a program, a package or a Cachix cache.
func Name(s string) error {
	if !name().MatchString(s) {
		return invalid("name", s)
	}
	return nil
}

var system = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$`)

// System accepts the name of a system, such as x86_64-linux.
func System(s string) error {
	if !system().MatchString(s) {
		return invalid("system", s)
	}
	return nil
}

// An address of a store has a scheme, or is an absolute path or one of a few words. An ssh host
// that begins with a dash would be an option of ssh.
var (
	address = lazyregexp.New(`^(?:(?:auto|daemon|local)(?::?\?.*)?|[A-Za-z][A-Za-z0-9+.-]*://.*|/.*)$`)
	dashed  = lazyregexp.New(`://(?:[^/?#]*@)?-`)
)

// Address accepts the address of a store.
func Address(s string) error {
	if !address().MatchString(s) || dashed().MatchString(s) || Line(s, 4096) != nil {
		return invalid("store address", withoutUser(s))
	}
	return nil
}

// Substituter accepts the address of a store that can be part of a list.
func Substituter(s string) error {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return invalid("store address", withoutUser(s))
	}
	return Address(s)
}

// withoutUser returns an address without the user and password.
func withoutUser(s string) string {
	start, end := 0, strings.LastIndexByte(s, '@')
	if scheme := strings.Index(s, "://"); scheme >= 0 {
		start = scheme + len("://")
	}
	if end < start {
		return s
	}
	return s[:start] + "xxxxx" + s[end:]
}

var key = lazyregexp.New(`^[^\s:-][^\s:]{0,254}:[A-Za-z0-9+/]{4,512}={0,2}$`)

// Key accepts a public key for store paths, NAME:BASE64.
func Key(s string) error {
	if !key().MatchString(s) || Line(s, 1024) != nil {
		return invalid("public key", s)
	}
	return nil
}

// PublicKey accepts a public key as Key does, of the length that Nix takes: with any other one among its
// settings, each of Nix's programs ends with an error.
func PublicKey(s string) error {
	if err := Key(s); err != nil {
		return err
	}
	const size = 32 // bytes, of ed25519
	_, encoded, _ := strings.Cut(s, ":")
	if bytes, err := base64.StdEncoding.DecodeString(encoded); err != nil || len(bytes) != size {
		return invalid("public key", s)
	}
	return nil
}

// Line accepts one line of text with at most so many bytes and without control and formatting
// characters.
func Line(s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("%s has %d bytes, more than %d", Quote(s), len(s), most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, hidden):
		return fmt.Errorf("%s is not one line of plain text", Quote(s))
	}
	return nil
}

// hidden reports whether a character is not shown but controls how others are shown.
func hidden(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// All returns the first error of a check of several strings.
func All(check func(string) error, all ...string) error {
	for _, s := range all {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

// Quote returns the beginning of any string in quotes.
func Quote(s string) string {
	const most = 100
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%.100q…", s)
}

func invalid(what, s string) error { return fmt.Errorf("invalid %s %s", what, Quote(s)) }
