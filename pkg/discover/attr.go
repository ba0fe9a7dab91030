package discover

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// SplitAttr takes a dotted attribute path apart as Nix's command line does:
// what is in double quotes may have dots in it.
func SplitAttr(attr string) []string {
	var path []string
	var name strings.Builder
	quoted, some := false, false
	for _, c := range attr {
		switch {
		case c == '"':
			quoted, some = !quoted, true
		case c == '.' && !quoted:
			path = append(path, name.String())
			name.Reset()
			some = false
		default:
			name.WriteRune(c)
			some = true
		}
	}
	if some {
		path = append(path, name.String())
	}
	return path
}

// JoinAttr makes a dotted attribute path that can be typed after `nix build .#`.
func JoinAttr(path []string) string {
	names := make([]string, len(path))
	for i, name := range path {
		if name == "" || strings.ContainsAny(name, ". \t\n\"") {
			name = `"` + name + `"`
		}
		names[i] = name
	}
	return strings.Join(names, ".")
}

// What derivations of whole hosts are called, whatever attribute they are under.
var hostNames = []struct {
	prefix string
	kind   job.Kind
}{
	{"nixos-system-", job.NixOS},
	{"darwin-system-", job.Darwin},
	{"home-manager-generation", job.Home},
}

// hostPath reads what is the path of a host's target below its configuration.
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

// classify makes a target of an attribute path and the derivation's name.
func (d *discovery) classify(path []string, drvName string) job.Target {
	t := job.Target{Attr: JoinAttr(path), Kind: job.Other}
	if len(path) == 0 { // a file that is a derivation
		path = []string{drvName}
	}
	t.Name = JoinAttr(path)
	top := path[0]
	host := func(kind job.Kind, name []string) {
		t.Kind = kind
		t.Name = JoinAttr(name)
		t.Host = name[len(name)-1]
	}
	switch top {
	case "packages", "legacyPackages":
		t.Kind = job.Package
	case "checks":
		t.Kind = job.Check
	default:
		if out, ok := hostOutputs[top]; ok {
			suffix := out.suffix
			if suffix == nil {
				suffix = d.host
			}
			if len(path) == 2 { // one that has failed before
				t.Attr = JoinAttr(slices.Concat(path, suffix))
			}
			if len(path) == 2 || slices.Equal(path[min(2, len(path)):], suffix) {
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

// hostSuffixes are what leads from a machine's or a home's configuration to its
// derivation, in whatever set it is.
var hostSuffixes = [][]string{
	{"config", "system", "build", "toplevel"},
	{"config", "home", "activationPackage"},
	{"activationPackage"},
}

// machine is the path of the configuration that a host's derivation is of.
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
	suffix []string // nil is as the options say
}{
	"nixosConfigurations":  {job.NixOS, nil},
	"darwinConfigurations": {job.Darwin, []string{"system"}},
	"homeConfigurations":   {job.Home, []string{"activationPackage"}},
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%_+=:,./#-]+$`)

// shellQuote makes one word for a shell of s.
func shellQuote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// quote makes a Nix string of s.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `\${`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// fromJSON makes a Nix expression of a value that JSON can hold.
func fromJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only strings, numbers and lists of them come here
	}
	return "(builtins.fromJSON " + quote(string(data)) + ")"
}
