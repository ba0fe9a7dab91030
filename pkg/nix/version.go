package nix

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
)

// An Implementation is a program that is called nix.
type Implementation string

// The implementations that are told apart. Any other one is treated as a Nix of its
// version that can do no more than the oldest one.
const (
	CppNix      Implementation = "Nix"
	Lix         Implementation = "Lix"
	Determinate Implementation = "Determinate Nix"
)

// A Version is what `nix --version` says. What an implementation can do is asked of its
// methods, and nowhere else by comparing numbers.
type Version struct {
	Implementation Implementation // another name than those above if it is not known
	// Number is that of the Nix which it is: "2.34.8". Determinate Nix names the Nix that
	// it is made from; Lix counts on from 2.90.
	Number string

	said         string // all of it
	major, minor int
}

// String returns the version as people say it: "2.34.8", "Lix 2.94.0".
func (v Version) String() string {
	if v.Implementation == CppNix {
		return v.Number
	}
	return string(v.Implementation) + " " + v.Number
}

// The name of the implementation, perhaps with a version of its own, and the version.
var versionPattern = regexp.MustCompile(`^nix \((\w[^()]*)\) ((\d+)\.(\d+)[0-9a-z.]*)\S*$`)

// ParseVersion reads what `nix --version` prints. An implementation that is too old, or is
// none at all, is an error that wraps [ErrMissing].
func ParseVersion(said string) (Version, error) {
	said = strings.TrimSpace(text.Plain(said))
	m := versionPattern.FindStringSubmatch(said)
	if m == nil {
		return Version{}, fmt.Errorf("%w: `nix --version` says %.80q. Install Nix 2.8 or newer, Lix or Determinate Nix", ErrMissing, said)
	}
	v := Version{Implementation: Implementation(m[1]), Number: m[2], said: said}
	v.major, _ = strconv.Atoi(m[3]) // the pattern has only digits
	v.minor, _ = strconv.Atoi(m[4])
	switch {
	case strings.HasPrefix(m[1], "Lix"): // "Lix, like Nix"
		v.Implementation = Lix
	case strings.HasPrefix(m[1], string(Determinate)): // and its own version
		v.Implementation = Determinate
	}
	if v.before(2, 8) {
		return Version{}, fmt.Errorf("%w: %s is too old. Install Nix 2.8 or newer, Lix or Determinate Nix", ErrMissing, v)
	}
	return v, nil
}

func (v Version) before(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

// nixSince reports whether v has what is in CppNix from version 2 with that minor number
// on, and with that in Determinate Nix. Lix left CppNix at 2.18.
func (v Version) nixSince(minor int) bool {
	switch v.Implementation {
	case CppNix, Determinate:
		return !v.before(2, minor)
	case Lix:
		return minor <= 18
	}
	return false
}

// HasConfigShow reports whether settings are shown by `nix config show`; else it is
// `nix show-config`.
func (v Version) HasConfigShow() bool { return v.nixSince(20) || v.Implementation == Lix }

// HasJSONFormat reports whether `nix path-info` has the flag --json-format, without which
// such versions warn.
func (v Version) HasJSONFormat() bool { return v.nixSince(33) }

// HasOutputsSyntax reports whether outputs of a derivation are named DRV^OUT; else DRV
// stands for all of them.
func (v Version) HasOutputsSyntax() bool { return v.nixSince(13) }

// EvaluatesWholeFlakes reports whether an Evaluation may be of all outputs of a flake.
// Other versions have no name for them.
func (v Version) EvaluatesWholeFlakes() bool { return v.nixSince(26) }

// CopiesInputs reports whether an evaluation leaves the flake inputs that it has read in
// the store. If not, it may read them where they were downloaded to, which for Determinate
// Nix is up to the setting lazy-trees.
func (v Version) CopiesInputs() bool {
	switch v.Implementation {
	case CppNix:
		return v.before(2, 35)
	case Lix:
		return true
	}
	return false
}
