package nix

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/text"
)

// An Implementation is an implementation of Nix.
type Implementation string

// The known implementations. Any other one is treated as if it could do no more than the oldest
// Nix.
const (
	CppNix      Implementation = "Nix"
	Lix         Implementation = "Lix"
	Determinate Implementation = "Determinate Nix"
)

// A Version is that of an implementation. Its methods say what the implementation can do; no
// other code compares numbers.
type Version struct {
	Implementation Implementation // a name of its own if it is not known
	// Number is the version of Nix: "2.34.8". Determinate Nix prints that of the Nix it is
	// based on; Lix began with 2.90.
	Number string

	printed      string // the output of `nix --version`
	major, minor int
}

// String returns the version for people: "2.34.8", "Lix 2.94.0".
func (v Version) String() string {
	if v.Implementation == CppNix {
		return v.Number
	}
	return string(v.Implementation) + " " + v.Number
}

// versionPattern matches the name of the implementation, perhaps with a version of its own, and
// the version of Nix.
var versionPattern = lazyregexp.New(`^nix \((\w[^()]*)\) ((\d+)\.(\d+)[0-9a-z.]*)\S*$`)

// ParseVersion parses the output of `nix --version`. If that is not of Nix, or the version is
// too old, the error wraps [ErrMissing].
func ParseVersion(output string) (Version, error) {
	output = strings.TrimSpace(text.Plain(output))
	m := versionPattern().FindStringSubmatch(output)
	if m == nil {
		return Version{}, fmt.Errorf("%w: `nix --version` prints %.80q. Install Nix 2.8 or newer, Lix or Determinate Nix", ErrMissing, output)
	}
	v := Version{Implementation: Implementation(m[1]), Number: m[2], printed: output}
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

// nixSince reports whether v has the features of CppNix 2 with that minor number, as
// Determinate Nix of that version does. Lix was forked from CppNix 2.18.
func (v Version) nixSince(minor int) bool {
	switch v.Implementation {
	case CppNix, Determinate:
		return !v.before(2, minor)
	case Lix:
		return minor <= 18
	}
	return false
}

// HasConfigShow reports whether `nix config show` replaces `nix show-config`.
func (v Version) HasConfigShow() bool { return v.nixSince(20) || v.Implementation == Lix }

// HasJSONFormat reports whether `nix path-info` has the flag --json-format, and warns without
// it.
func (v Version) HasJSONFormat() bool { return v.nixSince(33) }

// HasOutputsSyntax reports whether outputs of a derivation are named DRV^OUT; else DRV
// stands for all of them.
func (v Version) HasOutputsSyntax() bool { return v.nixSince(13) }

// HasReferenceLockFile reports whether flakes can be evaluated with another lock file than their own.
func (v Version) HasReferenceLockFile() bool { return v.nixSince(18) }

// EvaluatesWholeFlakes reports whether an Evaluation can take all outputs of a flake. Other
// versions have no name for them.
func (v Version) EvaluatesWholeFlakes() bool { return v.nixSince(26) }

// UpdatesInputs reports whether `nix flake update` takes the names of inputs, and the flake by a flag.
func (v Version) UpdatesInputs() bool { return v.nixSince(19) || v.Implementation == Lix }

// CopiesInputs reports whether an evaluation copies the flake inputs that it reads into the
// store. If not, it may read them from Nix's cache of downloads, which in Determinate Nix
// depends on the setting lazy-trees.
func (v Version) CopiesInputs() bool {
	switch v.Implementation {
	case CppNix:
		return v.before(2, 35)
	case Lix:
		return true
	}
	return false
}
