// Package git runs git in a checkout whose files a stranger wrote, so that none of them makes git run
// another program.
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/text"
)

// A Repository is a work tree with its .git. Git does not look for another one: a
// directory in the work tree that looks like a bare repository brings a configuration
// of its own, and that can name programs.
type Repository struct {
	Root string   // the work tree, without symbolic links
	dir  string   // its .git, which may be a file that names another directory
	env  []string // of the programs that are run
}

// Find returns the repository that has dir in its work tree, and nil if there is none.
// The programs that are run get the environment env.
func Find(dir string, env []string) (*Repository, error) {
	dir, err := physical(dir)
	if err != nil {
		return nil, err
	}
	for {
		if r := (&Repository{Root: dir, dir: filepath.Join(dir, ".git"), env: env}); r.exists() {
			return r, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, nil //nolint:nilnil // none is one of the answers
		}
		dir = parent
	}
}

func physical(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// exists reports whether there is a .git, which no commit can bring along.
func (r *Repository) exists() bool {
	info, err := os.Stat(r.dir)
	if err != nil {
		return false
	}
	if info.IsDir() {
		return exist(filepath.Join(r.dir, "HEAD"))
	}
	return info.Mode().IsRegular()
}

func exist(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Bare returns the directory at or above dir that git would take for a repository though
// it has no .git, or "". Programs that run git in dir, as Nix does, run what its config
// says.
func Bare(dir string) (string, error) {
	dir, err := physical(dir)
	if err != nil {
		return "", err
	}
	for {
		in := func(name string) bool { return exist(filepath.Join(dir, name)) }
		switch {
		case in(".git"): // git looks there first, and then no further
			return "", nil
		case in("HEAD") && (in("refs") || in("commondir")): // objects may be elsewhere
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", nil
		}
		dir = parent
	}
}

// A Setting is one of git's, such as core.fsmonitor.
type Setting struct{ Name, Value string }

// strict are the settings without which git runs programs of a configuration, or takes other directories
// for repositories.
var strict = []Setting{
	{"core.fsmonitor", "false"},
	{"core.hooksPath", os.DevNull},
	{"protocol.ext.allow", "never"},
	{"safe.bareRepository", "explicit"},
	{"safe.directory", "*"}, // of any owner
}

// Configure returns an environment with further settings.
func Configure(env []string, settings ...Setting) []string {
	const variable = "GIT_CONFIG_COUNT="
	count := 0
	for _, v := range env {
		if text, ok := strings.CutPrefix(v, variable); ok {
			count, _ = strconv.Atoi(text) // git does not accept another text either
		}
	}
	env = slices.Clone(env)
	for _, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", count, s.Name), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", count, s.Value))
		count++
	}
	return append(env, variable+strconv.Itoa(count))
}

// Env returns the environment for programs that run git in the repository.
func (r *Repository) Env() []string {
	return append(Configure(r.env, strict...),
		"GIT_DIR="+r.dir, "GIT_WORK_TREE="+r.Root, "GIT_NO_LAZY_FETCH=1", "GIT_PAGER=cat", "GIT_TERMINAL_PROMPT=0")
}

// grace is how long a program may take to stop after SIGTERM.
const grace = time.Second

// Command prepares a program that runs in the root of the work tree: git, or one that
// runs git.
func (r *Repository) Command(ctx context.Context, program string, args ...string) *child.Cmd {
	cmd := child.Command(ctx, grace, program, args...)
	cmd.Dir, cmd.Env = r.Root, r.Env()
	return cmd
}

// Output returns what git prints, which must not change the repository.
func (r *Repository) Output(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := r.Command(ctx, "git", args...)
	cmd.Env = append(cmd.Env, "GIT_OPTIONAL_LOCKS=0")
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	return out, Explain("git "+args[0], err)
}

// Explain adds what a program wrote to stderr to the error of [exec.Cmd.Output].
func Explain(what string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(bytes.TrimSpace(exit.Stderr)) > 0 {
		return fmt.Errorf("%s: %s", what, text.Plain(string(bytes.TrimSpace(exit.Stderr))))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Open opens a regular file of the work tree. A symbolic link does not lead out of it,
// and a FIFO does not block.
func (r *Repository) Open(name string) (*os.File, error) {
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

var errNotRegular = errors.New("not a regular file")
