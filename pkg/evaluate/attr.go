package evaluate

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// SplitAttr splits a dotted attribute path as Nix's command line does, where a name in double
// quotes may have dots in it, and as [JoinAttr] writes it.
func SplitAttr(attr string) []string {
	var path []string
	var name strings.Builder
	some := false
	for at := 0; at < len(attr); {
		c, size := attr[at:at+1], 1
		if c == `"` {
			c, size, _ = quoted(attr[at:])
		} else if c == "." {
			path = append(path, name.String())
			name.Reset()
			some = false
			at++
			continue
		}
		name.WriteString(c)
		some = true
		at += size
	}
	if some {
		path = append(path, name.String())
	}
	return path
}

// quoted returns the string in quotes at the beginning of a text, and how many bytes of the
// text it takes: with escapes, or as on Nix's command line, which has none.
func quoted(text string) (inside string, size int, closed bool) {
	if prefix, err := strconv.QuotedPrefix(text); err == nil {
		inside, _ = strconv.Unquote(prefix) // valid, since QuotedPrefix returned it
		return inside, len(prefix), true
	}
	inside, _, closed = strings.Cut(text[1:], `"`)
	return inside, min(len(inside)+len(`""`), len(text)), closed
}

// JoinAttr returns an attribute path in one line, with dots; different paths give different
// texts. Names that are not plain stand in quotes, with quotes, backslashes and unprintable
// characters escaped as in Go.
func JoinAttr(path []string) string {
	names := make([]string, len(path))
	for i, name := range path {
		names[i] = name
		if escaped := strconv.Quote(name); name == "" || strings.ContainsAny(name, ". ") || len(escaped) > len(name)+len(`""`) {
			names[i] = escaped
		}
	}
	return strings.Join(names, ".")
}

// commandAttr returns an attribute path for the command line of Nix. ok is false if a name is
// empty or has a quote in it, because Nix has no syntax for those.
func commandAttr(path []string) (attr string, ok bool) {
	names := make([]string, len(path))
	for i, name := range path {
		if name == "" || strings.Contains(name, `"`) {
			return "", false
		}
		names[i] = name
		if strings.Contains(name, ".") {
			names[i] = `"` + name + `"`
		}
	}
	return strings.Join(names, "."), true
}

// fragment returns an attribute path from commandAttr for an installable, which is a URL: Nix
// decodes it before it looks for dots and quotes.
func fragment(attr string) string {
	var escaped strings.Builder
	for _, c := range []byte(attr) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(`-._~@+"`, c) >= 0 {
			escaped.WriteByte(c)
		} else {
			fmt.Fprintf(&escaped, "%%%02X", c)
		}
	}
	return escaped.String()
}

var plainWord = lazyregexp.New(`^[A-Za-z0-9@%_+=:,./#-]+$`)

// shellQuote returns s as one word for a shell, in one line.
func shellQuote(s string) string {
	switch {
	case plainWord().MatchString(s):
		return s
	case !printable(s):
		escaped := strconv.Quote(s)
		return "$'" + strings.ReplaceAll(escaped[1:len(escaped)-1], "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// quote returns s as a Nix string.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `\${`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// fromJSON returns a Nix expression for a value that JSON can hold.
func fromJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only strings, numbers and lists of them come here
	}
	return "(builtins.fromJSON " + quote(string(data)) + ")"
}
