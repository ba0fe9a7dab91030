package discover

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/gitcrypt"
	"github.com/org/nix-matrix/pkg/nix"
)

// directories returns the directories of this machine that are evaluated.
func (d *Discovery) directories() []string {
	dirs := []string{"."}
	if d.Evaluate.File != "" {
		dirs = append(dirs, filepath.Dir(d.Evaluate.File))
	}
	if d.LockFile != "" {
		dirs = append(dirs, filepath.Dir(d.LockFile))
	}
	for _, ref := range d.references() {
		if dir := directory(ref); dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// references returns the installables, and what takes the place of their inputs.
func (d *Discovery) references() []string {
	all := slices.Clone(d.Evaluate.Installables)
	for _, o := range d.Overrides {
		all = append(all, o.Ref)
	}
	return all
}

// directory returns the directory of this machine that an installable names, or an empty text.
func directory(installable string) string {
	ref, _, _ := strings.Cut(installable, "#")
	ref, _, _ = strings.Cut(ref, "?")
	for _, scheme := range []string{"path:", "git+file://", "git+file:"} {
		ref = strings.TrimPrefix(ref, scheme)
	}
	if ref == "" {
		ref = "."
	}
	if info, err := os.Stat(ref); err != nil || !info.IsDir() {
		return ""
	}
	return ref
}

// checkouts returns the work trees that are evaluated.
func (d *Discovery) checkouts(ctx context.Context) ([]*gitcrypt.Checkout, error) {
	var all []*gitcrypt.Checkout
	for _, dir := range d.directories() {
		c, err := gitcrypt.Find(ctx, dir, nix.Environ())
		if err != nil {
			return nil, err
		}
		if c != nil && !slices.ContainsFunc(all, func(other *gitcrypt.Checkout) bool { return other.Root == c.Root }) {
			all = append(all, c)
		}
	}
	return all, nil
}

// heads returns the commits of the checkouts that are evaluated, and an empty text for a reference that
// asks for another commit of a checkout.
func (d *Discovery) heads(ctx context.Context) []string {
	all := git.Heads(ctx, nix.Environ(), d.directories()...)
	for _, ref := range d.references() {
		if namesCommit(ref) {
			all = append(all, "")
		}
	}
	return all
}

// namesCommit reports whether an installable may ask for another commit of a checkout than HEAD.
func namesCommit(installable string) bool {
	ref, _, _ := strings.Cut(installable, "#")
	ref, text, _ := strings.Cut(ref, "?")
	if scheme, _, ok := strings.Cut(ref, ":"); ok && scheme != "git+file" && scheme != "path" {
		return false // there is no checkout
	}
	query, err := url.ParseQuery(text)
	return err != nil || query.Has("ref") || query.Has("rev")
}

// Enter changes the working directory to dir, unless that is empty, and refuses one in which Nix would run
// git on a repository that a stranger has made up.
func Enter(dir string) error {
	if dir != "" {
		if err := changeTo(dir); err != nil {
			return usage.Errorf("--working-directory: %w", err)
		}
	}
	bare, err := git.Bare(".")
	if err == nil && bare != "" {
		err = fmt.Errorf("cannot evaluate in %s: to git it is a bare repository (it has HEAD and refs), whose config can name programs to run. Rename one of them, or name another --working-directory", bare)
	}
	return usage.Wrap(err)
}

// changeTo changes the working directory, which Nix takes from the environment.
func changeTo(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	return os.Setenv("PWD", here)
}
