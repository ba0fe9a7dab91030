package evaluate

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// notThere matches Nix's messages about a file that a flake does not have: today's, those
// since 2.20, and older ones.
var notThere = []lazyregexp.Regexp{
	lazyregexp.New(`Path '([^'\n]+)' in the repository "[^\n]*" is not tracked by Git`),
	lazyregexp.New(`path '/nix/store/[0-9a-z]{32}-source/([^'\n]+)' does not exist`),
	lazyregexp.New(`'/nix/store/[0-9a-z]{32}-source/([^'\n]+)': No such file or directory`),
}

// notFetched matches Nix's message about a submodule whose files are not in the work tree.
var notFetched = lazyregexp.New(`Failed to fetch git repository 'file://([^'\n]+)'`)

// noFlake matches Nix's messages about a directory without a flake.
var noFlake = lazyregexp.New(`-source/flake\.nix' does not exist|could not find a flake\.nix file|unable to find a flake|is not part of a flake`)

// notOwned matches the messages of git, and of the libgit2 in Nix, about another user's checkout.
var notOwned = lazyregexp.New(`repository path '([^'\n]+)' is not owned by current user|dubious ownership in repository at '([^'\n]+)'`)

// Nix's messages about an entry of the search path that does not exist, or that pure
// evaluation forbids.
var (
	notInPath = lazyregexp.New(`file '([^'\n]+)' was not found in the Nix search path`)
	pureEval  = lazyregexp.New(`cannot look up '<[^'\n]+>' in pure evaluation mode`)
)

// fullMessage returns the message of an error with the stderr of the program, if there is any.
func fullMessage(err error) string {
	var failed *nix.Error
	if errors.As(err, &failed) && failed.Stderr != "" {
		return err.Error() + "\n" + text.Plain(failed.Stderr)
	}
	return err.Error()
}

// generalAdvice returns advice that does not depend on the flake.
func generalAdvice(flake, message string) string {
	if m := notOwned().FindStringSubmatch(message); m != nil {
		return "\n\nThe checkout belongs to another user, so git refuses it. Run: git config --global --add safe.directory " + shellQuote(m[1]+m[2])
	}
	if m := notInPath().FindStringSubmatch(message); m != nil && flake == "" {
		name, _, _ := strings.Cut(m[1], "/")
		return "\n\nSet its path with --nix-path " + shellQuote(name) + "=PATH (input nix_path). PATH may also be the URL of a tarball"
	}
	if foreign := nix.ForeignProgram(message); foreign != "" { // of an import from derivation
		return "\n\n" + foreign
	}
	if pureEval().MatchString(message) {
		return "\n\nA flake is evaluated without a search path. Use its inputs instead, or name a plain Nix file with -f (input file)"
	}
	return ""
}

// advice returns text to add to a message of Nix: about a directory without a flake, or about
// a file of the work tree that Nix does not see because it sees only files that git tracks,
// without submodules. It returns "" where it has no advice.
func advice(flake, message string) string {
	if general := generalAdvice(flake, message); general != "" {
		return general
	}
	if flake == "" {
		return ""
	}
	root := workTree(flake)
	if m := notFetched().FindStringSubmatch(message); m != nil && root != "" {
		if module, ok := strings.CutPrefix(m[1], root+"/"); ok && submoduleOf(root, module) == module {
			return "\n\n" + module + " is a submodule that is not checked out. Run git submodule update --init, or use actions/checkout with submodules: recursive"
		}
	}
	if noFlake().MatchString(message) {
		return "\n\nName a plain Nix file, such as default.nix, with -f (input file), and a flake in another directory as ./DIR"
	}
	for _, said := range notThere {
		m := said().FindStringSubmatch(message)
		if m == nil || root == "" || !filepath.IsLocal(m[1]) {
			continue
		}
		if module := submoduleOf(root, m[1]); module != "" {
			return "\n\n" + module + " is a submodule, which Nix leaves out by default. " +
				"Name the flake as .?submodules=1, or write inputs.self.submodules = true into flake.nix (Nix 2.27 or newer)"
		}
		_, err := os.Lstat(filepath.Join(root, m[1]))
		if err == nil && !strings.Contains(message, "git -C") { // the advice of newer versions
			return "\n\nNix only sees files that git tracks. Run: git add " + shellQuote(m[1])
		}
	}
	return ""
}

// workTree returns the root of the git work tree that a flake is in, or "" if it is in none
// on this machine.
func workTree(flake string) string {
	path, _, _ := strings.Cut(flake, "?")
	path = strings.TrimPrefix(strings.TrimPrefix(path, "git+file:"), "//")
	if strings.Contains(path, ":") { // remote, or without git
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

// submoduleOf returns the path of the submodule that a file is in, or "".
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
