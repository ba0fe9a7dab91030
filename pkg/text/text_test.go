package text_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/text"
)

func TestLines(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"":                             nil,
		" \n\n\t\n":                    nil,
		"a":                            {"a"},
		"\na\n\n  b  \n\n":             {"a", "", "  b"},
		"a\r\nb\r\n":                   {"a", "b"},
		"10%\r100%\r\n":                {"100%"},
		"\x1b[1;31merror:\x1b[0m\tfoo": {"error: foo"},
		"\x1b]0;title\x07a\x1b(B":      {"a"},
		"\tx\n        y":               {"        x", "        y"},
		"a\x00\u202eb\ufeff":           {"ab"},
	} {
		if diff := cmp.Diff(want, text.Lines(in)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

func TestPlain(t *testing.T) {
	for s, want := range map[string]string{
		"a\tb\n":                        "a\tb\n",
		"a\r\nb\rc":                     "a\nbc",
		"\x1b[31;1mred\x1b[0m":          "red",
		"\x1b[38:5:1mred\x1b[m":         "red",
		"\x1b[?25l\x1b[>4;2m\x1b[2Kx":   "x",
		"\x1b(B\x1b[mx\x1b)0":           "x",
		"\x1b]0;title\x07x":             "x",
		"\x1b]8;;http://x\x1b\\link":    "link",
		"\x1b]0;no end\nnext":           "\nnext",
		"\x1b":                          "",
		"a\x00b\x08c\x0bd\x7fe":         "abcde",
		"\u009b31mx\u0085y":             "31mxy",
		"ünï 🚀 \u2028\xff":              "ünï 🚀 \u2028\ufffd",
		"a\xc2\x06\x92b":                "a\ufffd\ufffdb",
		"::error::x ##[error]y":         "::error::x ##[error]y",
		strings.Repeat("\x1b[31m", 999): "",
	} {
		if got := text.Plain(s); got != want {
			t.Errorf("Plain(%q) = %q, want %q", s, got, want)
		}
	}
}
func TestClip(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                             "",
		strings.Repeat("x", 20):        strings.Repeat("x", 20),
		strings.Repeat("x", 21):        strings.Repeat("x", 17) + "…",
		"x" + strings.Repeat("é", 20):  "x" + strings.Repeat("é", 8) + "…",
		"xx" + strings.Repeat("é", 20): "xx" + strings.Repeat("é", 7) + "…",
		strings.Repeat("\x80", 99):     "…",
	} {
		if got := text.Clip(s, 20); got != want {
			t.Errorf("Clip(%q) = %q, want %q", s, got, want)
		}
	}
	if got := text.Clip("abcd", 2); got != "…" {
		t.Errorf("got %q without room", got)
	}
}

func TestClipName(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                            "",
		strings.Repeat("x", 20):       strings.Repeat("x", 20),
		"packages.perl.first-module":  "packages…t-module",
		"packages.perl.second-module": "packages…d-module",
		strings.Repeat("é", 20):       strings.Repeat("é", 4) + "…" + strings.Repeat("é", 4),
		"x" + strings.Repeat("é", 20): "xééé…éééé",
	} {
		if got := text.ClipName(s, 20); got != want {
			t.Errorf("ClipName(%q) = %q, want %q", s, got, want)
		}
	}
	if got := text.ClipName("abcdef", 4); got != "a…" {
		t.Errorf("got %q without room", got)
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		" a\n\tb ":                        "a b",
		"the token is t0ken.":             "the token is ***.",
		"t0\x00ken t0\u200bken t0\nken":   "*** *** t0 ken",
		"\x1b[31mt0\x1b[0mken":            "***",
		strings.Repeat("x", 30) + "t0ken": strings.Repeat("x", 21) + "…",
	} {
		if got := text.Message(s, 24, "", "t0ken"); got != want {
			t.Errorf("Message(%q) = %q, want %q", s, got, want)
		}
	}
}

// FuzzForeign: the functions keep their contracts for any text.
func FuzzForeign(f *testing.F) {
	for _, s := range []string{"", "a\r\nb\rc", "\x1b]0;t\x07x\x1b[31m", "\u202eabc\ufeff", "`` a ``|\\|", "\xff\xfe", "\xc2\x06\x920", "::error::x ##[y]", strings.Repeat("é", 100)} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(3, limit%1000) // the ellipsis fits
		hidden := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
		for name, line := range map[string]string{"Line": text.Line(s), "Words": text.Words(s), "Message": text.Message(s, limit), "Code": text.Code(s, limit), "CodeName": text.CodeName(s, limit), "Cell": text.Cell(s, limit)} {
			if strings.ContainsFunc(line, hidden) {
				t.Errorf("%s(%q) = %q has what is not shown", name, s, line)
			}
		}
		for _, line := range text.Lines(s) {
			if strings.ContainsFunc(line, hidden) {
				t.Errorf("Lines(%q) has %q", s, line)
			}
		}
		if got := text.Plain(s); strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && r != '\t' && unicode.IsControl(r) }) {
			t.Errorf("Plain(%q) = %q", s, got)
		}
		if got := text.Clip(s, limit); len(got) > limit || len(s) > limit && !utf8.ValidString(got) {
			t.Errorf("Clip(%q, %d) = %q", s, limit, got)
		}
		if got := text.ClipName(s, limit); len(got) > limit || len(s) > limit && !utf8.ValidString(got) {
			t.Errorf("ClipName(%q, %d) = %q", s, limit, got)
		}
		if got := text.Message(s, limit); len(got) > limit {
			t.Errorf("Message(%q, %d) = %q", s, limit, got)
		}
		if got := strings.ReplaceAll(text.Cell(s, limit), `\|`, ""); strings.Contains(got, "|") {
			t.Errorf("Cell(%q) = %q ends the cell", s, got)
		}
		if taken, _, _ := text.ClipLines(text.Lines(s), limit, true); len(strings.Join(taken, "\n")) > limit {
			t.Errorf("ClipLines of %q take more than %d bytes", s, limit)
		}
	})
}
