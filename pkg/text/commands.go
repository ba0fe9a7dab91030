package text

import (
	"bytes"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// command matches the beginning of a workflow command: `::name` at the start of a line, after
// white space of Unicode, and `##[name]` anywhere in it. A carriage return ends a line too.
var command = lazyregexp.New(`(?:^|[\r\n])[\s\v\pZ\x{85}]*::|##\[`)

// NoCommands returns a line for the log in which no workflow command of GitHub takes effect.
// It still reads the same.
func NoCommands(line string) string {
	return command().ReplaceAllStringFunc(line, func(found string) string {
		// A word joiner is invisible and breaks the runner's pattern.
		return found[:len(found)-1] + "\u2060" + found[len(found)-1:]
	})
}

// NoCommandsWithin returns text for the inside of a line of the log, as NoCommands does: the
// other kind of command can only be at the beginning.
func NoCommandsWithin(s string) string { return strings.ReplaceAll(s, "##[", "##\u2060[") }

// NoCommandsJSON returns JSON for the log in which no workflow command takes effect. For a
// reader of JSON, it is the same.
func NoCommandsJSON(data []byte) []byte {
	return bytes.ReplaceAll(data, []byte("##["), []byte(`#\u0023[`))
}
