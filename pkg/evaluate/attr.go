package evaluate

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/org/nix-matrix/pkg/job"
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

// hostNames are the names of derivations of whole hosts, under any attribute.
var hostNames = []struct {
	prefix string
	kind   job.Kind
}{
	{"nixos-system-", job.NixOS},
	{"darwin-system-", job.Darwin},
	{"home-manager-generation", job.Home},
}

// hostPath returns the path of a host's target below its configuration.
func hostPath(attr string) []string {
	path := SplitAttr(attr)
	switch len(path) {
	case 0:
		path = []string{"toplevel"}
		fallthrough
	case 1:
		return append([]string{"config", "system", "build"}, path...)
	}
	return path
}

// fullPath returns the attribute path of a target. The walker reports only the beginning of it
// for a host that fails early.
func (d *evaluation) fullPath(path []string) []string {
	if len(path) == 2 {
		if _, ok := hostOutputs[path[0]]; ok {
			return slices.Concat(path, d.hostSuffix(path[0]))
		}
	}
	return path
}

// hostSuffix returns the part of a target's path after the host's name.
func (d *evaluation) hostSuffix(output string) []string {
	if suffix := hostOutputs[output].suffix; suffix != nil {
		return suffix
	}
	return d.host
}

// classify returns a target with names and kind by its attribute path and the derivation's name.
func (d *evaluation) classify(path []string, drvName string) job.Target {
	path = d.fullPath(path)
	t := job.Target{Attr: JoinAttr(path), Kind: job.Other}
	if len(path) == 0 { // a file that is a derivation
		path = []string{drvName}
	}
	t.Name = JoinAttr(path)
	top := path[0]
	host := func(kind job.Kind, name []string) {
		t.Kind = kind
		t.Name = JoinAttr(name)
		if t.Host = name[len(name)-1]; !printable(t.Host) {
			t.Host = strconv.Quote(t.Host)
		}
	}
	switch top {
	case "packages", "legacyPackages":
		t.Kind = job.Package
	case "checks":
		t.Kind = job.Check
	default:
		if out, ok := hostOutputs[top]; ok {
			if slices.Equal(path[min(2, len(path)):], d.hostSuffix(top)) {
				host(out.kind, path[:2])
			}
			break
		}
		for _, h := range hostNames {
			if strings.HasPrefix(drvName, h.prefix) {
				host(h.kind, machine(path))
			}
		}
	}
	return t
}

// hostSuffixes are the paths from a machine's or a home's configuration to its derivation, in
// any set.
var hostSuffixes = [][]string{
	{"config", "system", "build", "toplevel"},
	{"config", "home", "activationPackage"},
	{"activationPackage"},
}

// machine returns the path of the configuration that a host's derivation belongs to.
func machine(path []string) []string {
	for _, suffix := range hostSuffixes {
		if at := len(path) - len(suffix); at > 0 && slices.Equal(path[at:], suffix) {
			return path[:at]
		}
	}
	return path
}

// hostOutputs are the outputs of a flake that hold hosts, and what follows the
// host's name in the attribute path of its target.
var hostOutputs = map[string]struct {
	kind   job.Kind
	suffix []string // nil: from the options
}{
	"nixosConfigurations":  {job.NixOS, nil},
	"darwinConfigurations": {job.Darwin, []string{"system"}},
	"homeConfigurations":   {job.Home, []string{"activationPackage"}},
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%_+=:,./#-]+$`)

// shellQuote returns s as one word for a shell, in one line.
func shellQuote(s string) string {
	switch {
	case plainWord.MatchString(s):
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
