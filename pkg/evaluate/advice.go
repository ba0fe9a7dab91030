package evaluate

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// What Nix says of a file that a flake does not have: now, since 2.20, and before.
var notThere = []*regexp.Regexp{
	regexp.MustCompile(`Path '([^'\n]+)' in the repository "[^\n]*" is not tracked by Git`),
	regexp.MustCompile(`path '/nix/store/[0-9a-z]{32}-source/([^'\n]+)' does not exist`),
	regexp.MustCompile(`'/nix/store/[0-9a-z]{32}-source/([^'\n]+)': No such file or directory`),
}

// What Nix says of a submodule whose files are not in the work tree.
var notFetched = regexp.MustCompile(`Failed to fetch git repository 'file://([^'\n]+)'`)

// What Nix says where there is no flake.
var noFlake = regexp.MustCompile(`-source/flake\.nix' does not exist|could not find a flake\.nix file|unable to find a flake|is not part of a flake`)

// What git and the libgit2 in Nix say of a checkout of another user.
var notOwned = regexp.MustCompile(`repository path '([^'\n]+)' is not owned by current user|dubious ownership in repository at '([^'\n]+)'`)

// What Nix says of an entry of the search path that is not there, or may not be used.
var (
	notInPath = regexp.MustCompile(`file '([^'\n]+)' was not found in the Nix search path`)
	pureEval  = regexp.MustCompile(`cannot look up '<[^'\n]+>' in pure evaluation mode`)
)

// saidWith returns all that is known of an error, with what a program that Nix ran has said.
func saidWith(err error) string {
	var failed *nix.Error
	if errors.As(err, &failed) && failed.Stderr != "" {
		return err.Error() + "\n" + text.Plain(failed.Stderr)
	}
	return err.Error()
}

// generalAdvice is advice that does not depend on the flake.
func generalAdvice(flake, message string) string {
	if m := notOwned.FindStringSubmatch(message); m != nil {
		return "\n\nThe checkout belongs to another user, which git refuses: git config --global --add safe.directory " + shellQuote(m[1]+m[2])
	}
	if m := notInPath.FindStringSubmatch(message); m != nil && flake == "" {
		name, _, _ := strings.Cut(m[1], "/")
		return "\n\nName where it is with --nix-path " + shellQuote(name) + "=PATH (input nix_path); PATH may also be the address of a tarball"
	}
	if foreign := nix.ForeignProgram(message); foreign != "" { // in what is imported from a derivation
		return "\n\n" + foreign
	}
	if pureEval.MatchString(message) {
		return "\n\nA flake is evaluated without a search path: use its inputs instead, or name a plain Nix file with -f (input file)"
	}
	return ""
}

// advice is what to add to a message of Nix about a flake that is none, or about a file
// that lies in the work tree and that Nix does not see, since it sees only what git
// knows, without submodules. It is empty where there is nothing to add.
func advice(flake, message string) string {
	if general := generalAdvice(flake, message); general != "" {
		return general
	}
	if flake == "" {
		return ""
	}
	root := workTree(flake)
	if m := notFetched.FindStringSubmatch(message); m != nil && root != "" {
		if module, ok := strings.CutPrefix(m[1], root+"/"); ok && submoduleOf(root, module) == module {
			return "\n\n" + module + " is a submodule that is not checked out: git submodule update --init, or actions/checkout with submodules: recursive"
		}
	}
	if noFlake.MatchString(message) {
		return "\n\nA plain Nix file, such as default.nix, is named with -f (input file), a flake in another directory by that, as ./DIR"
	}
	for _, said := range notThere {
		m := said.FindStringSubmatch(message)
		if m == nil || root == "" || !filepath.IsLocal(m[1]) {
			continue
		}
		if module := submoduleOf(root, m[1]); module != "" {
			return "\n\n" + module + " is a submodule, which Nix leaves out unless it is told: " +
				"name the flake as .?submodules=1, or write inputs.self.submodules = true into flake.nix, which Nix 2.27 and newer know"
		}
		_, err := os.Lstat(filepath.Join(root, m[1]))
		if err == nil && !strings.Contains(message, "git -C") { // which is what newer versions say
			return "\n\nNix only sees files that git knows: git add " + shellQuote(m[1])
		}
	}
	return ""
}

// workTree is the root of the git work tree that a flake is in, or empty if it is in
// none on this machine.
func workTree(flake string) string {
	path, _, _ := strings.Cut(flake, "?")
	path = strings.TrimPrefix(strings.TrimPrefix(path, "git+file:"), "//")
	if strings.Contains(path, ":") { // somewhere else, or without git
		return ""
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// submoduleOf is the path of the submodule that a file is in, or empty.
func submoduleOf(root, file string) string {
	f, err := os.Open(filepath.Join(root, ".gitmodules"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, path, _ := strings.Cut(lines.Text(), "=")
		path = strings.TrimSpace(path)
		if strings.TrimSpace(name) == "path" && path != "" && strings.HasPrefix(file+"/", path+"/") {
			return path
		}
	}
	return ""
}
