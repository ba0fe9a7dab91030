package realise

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// positions match the position of an error in the output of programs, with the groups file and
// line.
var positions = []lazyregexp.Regexp{
	// compilers: src/a.c:12:5: fatal error: …, tests/test_a.py:12: AssertionError
	lazyregexp.New(`(?:^|\s)(?P<file>[^\s:"'<>()]+\.\w+):(?P<line>\d{1,7})(?::\d+)?:\s+(?:fatal )?\w*[eE]rror\b`),
	// Go, whose compiler prints only errors
	lazyregexp.New(`^(?P<file>[^\s:"'<>()]+\.go):(?P<line>\d{1,7}):\d+: `),
	// Rust
	lazyregexp.New(`^\s*--> (?P<file>[^\s:"'<>()]+\.\w+):(?P<line>\d{1,7}):\d+$`),
	// Python
	lazyregexp.New(`^\s*File "(?P<file>[^":<>]+\.\w+)", line (?P<line>\d{1,7})\b`),
	// Nix
	lazyregexp.New(`\bat (?P<file>/nix/store/[0-9a-z]{32}-source/[^\s:"'<>()]+):(?P<line>\d{1,7})(?::\d+)?\b`),
}

// roots matches the directories into which sources are unpacked, and Nix's copy of a flake.
var roots = lazyregexp.New(`^(?:` +
	`/build/[^/]+/|` +
	`(?:/private)?/tmp/nix-build-[^/]+/[^/]+/|` +
	`/nix/var/nix/builds/[^/]+/[^/]+/|` +
	`/nix/store/[0-9a-z]{32}-source/|` +
	`(?:\./)?source/)`)

// position returns the last position of an error in the last lines of a log. The file is
// relative to the root of the source, and without "." or ".." in it; empty if there is none.
func position(log []string) (file string, line int) {
	for i := len(log) - 1; i >= 0; i-- {
		for _, lazy := range positions {
			p := lazy()
			found := p.FindStringSubmatch(log[i])
			if found == nil || i > 0 && isWarning(log[i-1], log[i]) {
				continue
			}
			file, ok := inSource(found[p.SubexpIndex("file")])
			line, err := strconv.Atoi(found[p.SubexpIndex("line")])
			if ok && err == nil && line > 0 {
				return file, line
			}
		}
	}
	return "", 0
}

// isWarning reports whether a position of Rust's compiler, which follows its message in a line
// of its own, belongs to a warning.
func isWarning(before, line string) bool {
	return strings.HasPrefix(strings.TrimSpace(line), "-->") && strings.HasPrefix(strings.TrimSpace(before), "warning")
}

// inSource returns a path relative to the root of the source. ok is false if it is not below
// that.
func inSource(file string) (relative string, ok bool) {
	const longest = 1000
	if len(file) > longest || strings.ContainsFunc(file, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", false
	}
	file = path.Clean(file[len(roots().FindString(file)):])
	return file, file != "." && fs.ValidPath(file)
}
