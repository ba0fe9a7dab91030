package glob_test

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/glob"
)

func TestMatch(t *testing.T) {
	for text, test := range map[string]struct{ yes, no []string }{
		"nixos-system-*":    {[]string{"nixos-system-", "nixos-system-web-26.05"}, []string{"my-nixos-system-web", "nixos-system", "nixos-system-a/b"}},
		"*-source":          {[]string{"a-source", "-source"}, []string{"source", "a-source2"}},
		"a.b+c?":            {[]string{"a.b+c?"}, []string{"axb+c?", "abbc?", "a.b+c"}},
		"refs/heads/**":     {[]string{"refs/heads/a", "refs/heads/a/b"}, []string{"refs/heads"}},
		"refs/heads/v*":     {[]string{"refs/heads/v1"}, []string{"refs/heads/v1/a"}},
		"***":               {[]string{"", "a/b"}, nil},
		"!a*":               {[]string{"a", "ab"}, []string{"!a"}},
		"[a-z]\\":           {[]string{"[a-z]\\"}, []string{"a\\"}},
		"/nix/store/*-x-**": {[]string{"/nix/store/0123-x-y/z"}, []string{"/nix/store/a/b-x-y"}},
	} {
		g, err := glob.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, s := range test.yes {
			if !g.Match(s) {
				t.Errorf("%s does not match %q", text, s)
			}
		}
		for _, s := range test.no {
			if g.Match(s) {
				t.Errorf("%s matches %q", text, s)
			}
		}
	}
	for _, text := range []string{"", "!", "!!a", "a\nb", "\x1b", "a\u202e", "\xff", strings.Repeat("*a", 501)} {
		if _, err := glob.Parse(text); err == nil || !strings.HasPrefix(err.Error(), "must be ") {
			t.Errorf("%.20q: error %v", text, err)
		}
	}
}

func TestSelects(t *testing.T) {
	for _, test := range []struct {
		globs, text string
		want        bool
	}{
		{"", "a", true},
		{"a", "a", true},
		{"a b", "b", true},
		{"a b", "c", false},
		{"!a", "a", false},
		{"!a", "b", true},
		{"a* !ab", "ab", false},
		{"!ab a*", "ab", false}, // the order does not matter
		{"!ab a*", "ac", true},
		{"!a !b", "c", true},
		{"!a c", "b", false},
	} {
		var globs []glob.Glob
		for _, text := range strings.Fields(test.globs) {
			g, err := glob.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			globs = append(globs, g)
		}
		if got := glob.Selects(globs, func(g *glob.Glob) bool { return g.Match(test.text) }); got != test.want {
			t.Errorf("%q of %q: %t", test.globs, test.text, got)
		}
	}
}
