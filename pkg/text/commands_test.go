package text_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/org/nix-matrix/pkg/text"
)

// isCommand reports whether the runner takes text for commands. It reads lines as
// .NET's StreamReader does, and looks for commands in them as its ActionCommand
// (actions/runner, src/Runner.Common/ActionCommand.cs).
func isCommand(text string) bool {
	for _, line := range strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' }) {
		if strings.HasPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "::") || strings.Contains(line, "##[") {
			return true
		}
	}
	return false
}

func TestNoCommands(t *testing.T) {
	const joiner = "\u2060"
	for line, want := range map[string]string{
		"":                      "",
		"plain: a::b ## [c]":    "plain: a::b ## [c]",
		"std::vector":           "std::vector",
		"::error::x":            ":" + joiner + ":error::x",
		" \t::stop-commands::x": " \t:" + joiner + ":stop-commands::x",
		":::":                   ":" + joiner + "::",
		"a##[error]b":           "a##" + joiner + "[error]b",
		"##[x]##[y]###[z]":      "##" + joiner + "[x]##" + joiner + "[y]###" + joiner + "[z]",
		"::a::##[b]":            ":" + joiner + ":a::##" + joiner + "[b]",
		"10%\r::error::x":       "10%\r:" + joiner + ":error::x",
		"a\n::error::x\n":       "a\n:" + joiner + ":error::x\n",
	} {
		if got := text.NoCommands(line); got != want {
			t.Errorf("NoCommands(%q) = %q, want %q", line, got, want)
		}
	}
}

// A command after any white space of .NET has no effect.
func TestNoCommandsBehindBlanks(t *testing.T) {
	count := 0
	for c := range rune(unicode.MaxRune) {
		if !unicode.IsSpace(c) {
			continue
		}
		count++
		if line := string(c) + "::error::x"; isCommand(text.NoCommands(line)) {
			t.Errorf("%q is a command still", line)
		}
	}
	if count < 20 {
		t.Errorf("just %d blanks", count)
	}
}

func FuzzNoCommands(f *testing.F) {
	for _, line := range []string{"::error::x", "a\r\n\v::b", "#####[a]", "\u2060::a", "\xff::a"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got := text.NoCommands(line)
		if isCommand(got) {
			t.Errorf("%q is a command still", got)
		}
		if strings.ReplaceAll(got, "\u2060", "") != strings.ReplaceAll(line, "\u2060", "") {
			t.Errorf("%q does not read like %q", got, line)
		}
	})
}

func TestNoCommandsJSON(t *testing.T) {
	data := []byte(`{"name":"##[set-output name=owned]1 ##[error]"}`)
	safe := text.NoCommandsJSON(data)
	if strings.Contains(string(safe), "##[") {
		t.Errorf("it is still a command: %s", safe)
	}
	var got, want map[string]string
	if json.Unmarshal(safe, &got) != nil || json.Unmarshal(data, &want) != nil || got["name"] != want["name"] {
		t.Errorf("it says %v instead of %v", got, want)
	}
}
