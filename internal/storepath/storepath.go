// Package storepath checks store paths that come from outside.
//
// It is stricter than go-nix's package of the same name, which cleans a path
// before it looks at it and so takes HASH-a/../../b for one.
package storepath

import "regexp"

// Names are as in checkName of Nix (src/libstore/path.cc); newer versions allow
// a dot at the start.
var pattern = regexp.MustCompile(`^/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+\-._?=]{1,211}$`)

// Valid says whether path is a store path: directly below /nix/store, and of
// characters that are safe in file names and on command lines.
func Valid(path string) bool { return pattern.MatchString(path) }
