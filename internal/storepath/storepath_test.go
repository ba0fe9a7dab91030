package storepath

import (
	"regexp"
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	const hash = "0123456789abcdfghijklmnpqrsvwxyz"
	for path, want := range map[string]bool{
		"/nix/store/" + hash + "-hello-2.12":                  true,
		"/nix/store/" + hash + "-.gitignore":                  true,
		"/nix/store/" + hash + "-a?b=c_d+e":                   true,
		"":                                                    false,
		"/nix/store/" + hash:                                  false,
		"/nix/store/" + hash + "-":                            false,
		"/etc/store/" + hash + "-hello":                       false,
		"/nix/store/" + strings.ToUpper(hash) + "-hello":      false,
		"/nix/store/" + strings.Repeat("e", 32) + "-hello":    false, // not in the alphabet
		"/nix/store/" + hash + "-a/b":                         false,
		"/nix/store/" + hash + "-a/../../../etc/passwd":       false,
		"/nix/store/../store/" + hash + "-a":                  false,
		"/nix/store/" + hash + "-a b":                         false,
		"/nix/store/" + hash + "-a\n":                         false,
		"/nix/store/" + hash + "-a\x00":                       false,
		"/nix/store/" + hash + "-" + strings.Repeat("a", 212): false,
	} {
		if Valid(path) != want {
			t.Errorf("Valid(%q) is %t", path, !want)
		}
	}
}

// With any byte at any position, Valid agrees with the pattern.
func TestValidByPattern(t *testing.T) {
	pattern := regexp.MustCompile(`^/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+\-._?=]{1,211}$`)
	const path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a.b"
	for i := range path {
		for c := range 256 {
			s := path[:i] + string([]byte{byte(c)}) + path[i+1:]
			if got, want := Valid(s), pattern.MatchString(s); got != want {
				t.Errorf("Valid(%q) is %t", s, got)
			}
		}
		if s := path[:i]; Valid(s) != pattern.MatchString(s) {
			t.Errorf("Valid(%q) is %t", s, Valid(s))
		}
	}
}
