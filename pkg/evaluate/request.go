package evaluate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nearest"
)

// A RequestError says that a request can never find a target: it is invalid, or its selection
// leaves nothing.
type RequestError struct{ err error }

func (e *RequestError) Error() string { return e.err.Error() }
func (e *RequestError) Unwrap() error { return e.err }

func requestf(format string, args ...any) error { return &RequestError{fmt.Errorf(format, args...)} }

// knownSystems are systems that Nix builds for, to suggest for a misspelt one.
var knownSystems = []string{
	"x86_64-linux", "aarch64-linux", "i686-linux", "armv7l-linux", "armv6l-linux", "riscv64-linux", "powerpc64le-linux",
	"x86_64-darwin", "aarch64-darwin", "x86_64-freebsd",
}

// systemPattern matches systems: CPU-OS.
var systemPattern = lazyregexp.New(`^[A-Za-z0-9_]+-[A-Za-z0-9_]+$`)

// searchPath matches an entry of Nix's search path, such as <nixpkgs> or <nixpkgs/nixos>.
var searchPath = lazyregexp.New(`^<[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*>$`)

// check returns an error if a value of the options is invalid.
func (o *Options) check() error {
	for _, system := range o.Systems {
		if !systemPattern().MatchString(system) {
			return requestf("invalid value %q for --systems: must be a system such as x86_64-linux%s", system, nearest.Hint(system, knownSystems))
		}
	}
	for _, attr := range o.Attrs {
		if attr == "" {
			return requestf("invalid value \"\" for --attr: must be an attribute path. Leave out -A (input attr) to evaluate all of %s", o.File)
		}
		if err := checkAttr(attr, attr); err != nil {
			return err
		}
	}
	for _, installable := range o.Installables {
		ref, attr, _ := strings.Cut(installable, "#")
		switch {
		case installable == "":
			return requestf("invalid installable \"\": must be FLAKE or FLAKE#ATTR. Write . for the flake in this directory")
		case searchPath().MatchString(ref):
			return requestf("invalid installable %q: an entry of the search path is not a flake. Name it with -f (input file)", installable)
		case attr != "":
			if err := checkAttr(strings.TrimPrefix(attr, "."), installable); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flakes returns the references of the flakes to evaluate, each once; none for a file.
func (o *Options) Flakes() []string {
	if o.File != "" {
		return nil
	}
	var refs []string
	for _, installable := range o.Installables {
		ref, _, _ := strings.Cut(installable, "#")
		if ref == "" {
			ref = "."
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return []string{"."}
	}
	return refs
}

// checkAttr returns an error if an attribute path, with or without outputs, is invalid.
func checkAttr(attr, in string) error {
	if m := chosenOutputs().FindStringIndex(attr); m != nil {
		attr = attr[:m[0]]
	}
	quoted, name := false, 0
	for i, c := range attr {
		switch {
		case c == '"':
			quoted = !quoted
			name++
		case quoted:
		case c == '^':
			return requestf("invalid attribute path in %q: ^ must be followed by names of outputs, as in ATTR^out,doc or ATTR^*. Put a name that has ^ in it in double quotes", in)
		case c == '.' && name == 0:
			return requestf("invalid attribute path in %q: there is an empty name before character %d. Remove the dot, or write the empty name as \"\"", in, i+1)
		case c == '.':
			name = 0
		default:
			name++
		}
	}
	if quoted {
		return requestf("invalid attribute path in %q: it has no closing quote. Add a double quote", in)
	}
	return nil
}

// fileExpr returns an expression for the value of a file, or of an entry of the search path.
func fileExpr(file string) string {
	if searchPath().MatchString(file) {
		return "import " + file
	}
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return "import (/. + " + quote(file) + ")"
}

// nothingFound returns the error of a discovery without a target.
func (d *evaluation) nothingFound() error {
	what := d.request()
	switch {
	case len(d.Omitted) > 0:
		var hints []string
		for _, system := range d.o.Systems {
			hints = append(hints, system+nearest.Hint(system, knownSystems))
		}
		only := ""
		if d.Omitted[0] != "" { // else it is all of the file
			only = ", only " + someOf(d.Omitted)
		}
		return requestf("%s has nothing for %s%s. Name the wanted systems with --systems (input systems)", what, strings.Join(hints, ", "), only)
	case len(d.globs) > 0:
		return requestf("there is nothing to build in %s: include and exclude leave no target", what)
	case d.closedNames() != nil:
		how := "with an installable such as " + what
		if d.o.File != "" {
			how = "with -A (input attr)"
		}
		return requestf("there is nothing to build in %s: sets are entered only if they say recurseForDerivations = true. Name one of these %s: %s", what, how, someOf(d.closedNames()))
	case len(d.Passed) > 0:
		return requestf("there is nothing to build in %s, only values that are neither a derivation nor a set of them: %s. Name an attribute that is one", what, someOf(d.Passed))
	case d.o.File != "":
		return requestf("there is nothing to build in %s: it has no derivation, nor a set of them that says recurseForDerivations. Name an attribute with -A", what)
	}
	if slices.ContainsFunc(d.o.Installables, func(installable string) bool { return strings.Contains(installable, "#") }) {
		return requestf("there is nothing to build in %s: no derivation or host is in it. Name another attribute", what)
	}
	return requestf("there is nothing to build in %s: it has none of %s. Name an attribute, such as .#hydraJobs, .#deploy or .#colmenaHive", what, strings.Join(defaultOutputs, ", "))
}

// closedNames returns attribute paths that the user could name next: those in sets that were
// requested but not entered.
func (d *evaluation) closedNames() []string {
	var names []string
	for _, set := range d.closed {
		for _, name := range set.Names {
			names = append(names, shown(append(set.Path[:len(set.Path):len(set.Path)], name)))
		}
	}
	return names
}

// maxClosed is the number of sets that were not entered to remember.
const maxClosed = 5
