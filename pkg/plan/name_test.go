package plan

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestJobName(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"nixosConfigurations.pi3", "nixosConfigurations.pi3"},
		{"packages and checks x86_64-linux 1/2", "packages and checks x86_64-linux 1/2"},
		{"a\n::error::b\x1b[31m\u202ec\u2028d  e", "a ::error::bc d e"},
		{strings.Repeat("x", 100), strings.Repeat("x", 100)},
		{strings.Repeat("x", 101), strings.Repeat("x", 86) + "… c675a2e604"},
		{"", "… e3b0c44298"},
	} {
		if got := jobName(test.name); got != test.want {
			t.Errorf("%q makes %q, want %q", test.name, got, test.want)
		}
	}
	a, b := jobName(strings.Repeat("ä", 300)+"1"), jobName(strings.Repeat("ä", 300)+"2")
	if a == b || len(a) > maxLabel || !utf8.ValidString(a) {
		t.Errorf("two long names make %q and %q", a, b)
	}
}
