package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// A checkout is a work tree of git with files that git-crypt encrypts.
type checkout struct {
	root string
	// Those files, relative to root: as they are encrypted, and in clear.
	locked, open []string
}

// gitCryptHead is how a file begins that git-crypt has encrypted.
const gitCryptHead = "\x00GITCRYPT\x00"

// isGitCrypted says whether a file is encrypted with git-crypt.
func isGitCrypted(file string) bool {
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(gitCryptHead))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == gitCryptHead
}

// directories are those on this machine that a discovery looks into.
func (d *discovery) directories() []string {
	dirs := []string{"."}
	if d.file != "" {
		dirs = append(dirs, filepath.Dir(d.file))
	}
	for _, installable := range d.installables {
		ref, _, _ := strings.Cut(installable, "#")
		ref, _, _ = strings.Cut(ref, "?")
		for _, scheme := range []string{"path:", "git+file://", "git+file:"} {
			ref = strings.TrimPrefix(ref, scheme)
		}
		if info, err := os.Stat(ref); err == nil && info.IsDir() {
			dirs = append(dirs, ref)
		}
	}
	return dirs
}

// checkouts are the work trees that a discovery looks into.
func (d *discovery) checkouts(ctx context.Context) ([]*checkout, error) {
	var all []*checkout
	for _, dir := range d.directories() {
		out, err := git(ctx, dir, nil, "rev-parse", "--show-toplevel")
		if err != nil {
			continue // no work tree
		}
		root := strings.TrimSuffix(string(out), "\n")
		if slices.ContainsFunc(all, func(c *checkout) bool { return c.root == root }) {
			continue
		}
		c, err := newCheckout(ctx, root)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func newCheckout(ctx context.Context, root string) (*checkout, error) {
	c := &checkout{root: root}
	attributes, err := git(ctx, root, nil, "ls-files", "-z", "--", ".gitattributes", "**/.gitattributes")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(nulls(attributes), func(file string) bool {
		text, err := os.ReadFile(filepath.Join(root, file))
		return err == nil && bytes.Contains(text, []byte("git-crypt"))
	}) {
		return c, nil
	}
	files, err := git(ctx, root, nil, "ls-files", "-z")
	if err != nil {
		return nil, err
	}
	out, err := git(ctx, root, files, "check-attr", "-z", "--stdin", "filter")
	if err != nil {
		return nil, err
	}
	for fields := range slices.Chunk(nulls(out), 3) { // file, filter, value
		if value := fields[len(fields)-1]; value != "git-crypt" && !strings.HasPrefix(value, "git-crypt-") {
			continue
		}
		file := filepath.Join(root, fields[0])
		info, err := os.Lstat(file)
		switch {
		case err != nil || !info.Mode().IsRegular() || info.Size() == 0: // which is never encrypted
		case isGitCrypted(file):
			c.locked = append(c.locked, fields[0])
		default:
			c.open = append(c.open, fields[0])
		}
	}
	return c, nil
}

// nulls are the words that each end with a zero byte.
func nulls(data []byte) []string {
	return slices.DeleteFunc(strings.Split(string(data), "\x00"), func(word string) bool { return word == "" })
}

// git runs git for what it prints. It only reads, whoever owns the work tree.
func git(ctx context.Context, dir string, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, nix.Environ(), bytes.NewReader(stdin)
	out, err := cmd.Output()
	return out, explained("git "+args[0], err)
}

// explained adds what a program wrote to stderr to how it ended.
func explained(what string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(bytes.TrimSpace(exit.Stderr)) > 0 {
		return fmt.Errorf("%s: %s", what, nix.Plain(string(bytes.TrimSpace(exit.Stderr))))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// unlock decrypts what git-crypt has encrypted in the work trees that the discovery
// looks into, if there is a key for it. What it gives encrypts them again, and
// removes the key from them: also in GitHub Actions, since the next job on a
// runner that stays, a stranger's perhaps, would find it there.
func (d *discovery) unlock(ctx context.Context, at *site) (lock func(), err error) {
	lock = func() {}
	key, err := at.app.gitCryptKey()
	if err != nil || key == nil {
		return lock, err
	}
	checkouts, err := d.checkouts(ctx)
	if err != nil {
		return lock, fmt.Errorf("git_crypt_key: %w", err)
	}
	if len(checkouts) == 0 {
		here, _ := os.Getwd()
		return lock, usagef("git_crypt_key: %s is no work tree of git, so there is nothing to unlock: check the repository out before, and name it with --working-directory if it is not here", here)
	}
	checkouts = slices.DeleteFunc(checkouts, func(c *checkout) bool { return len(c.locked) == 0 })
	if len(checkouts) == 0 {
		return lock, nil
	}
	at.app.show.Doing("unlocking with git-crypt")
	program, release, err := at.nix.FindProgram(ctx, "git-crypt")
	if err != nil {
		return lock, fmt.Errorf("git_crypt_key: %w", err)
	}
	file, remove, err := push.SecretBytes(key)
	if err != nil {
		release()
		return lock, err
	}
	defer remove()
	var locks []func()
	lock = func() {
		for _, lock := range locks {
			lock()
		}
		release()
	}
	for _, c := range checkouts {
		undo, err := at.app.unlockCheckout(ctx, program, file, c)
		if err != nil {
			lock()
			return func() {}, fmt.Errorf("git_crypt_key does not unlock %s: %w", c.root, err)
		}
		locks = append(locks, undo)
	}
	return lock, nil
}

// lockTime is how long git-crypt may take to encrypt a work tree again, also after
// a signal.
const lockTime = time.Minute

func (a *app) unlockCheckout(ctx context.Context, program, keyFile string, c *checkout) (lock func(), err error) {
	run := func(ctx context.Context, args ...string) error {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Env = c.root, nix.Environ()
		_, err := cmd.Output()
		return explained("git-crypt "+args[0], err)
	}
	before, err := gitCryptKeys(ctx, c.root)
	if err != nil {
		return nil, err
	}
	err = run(ctx, "unlock", keyFile)
	after, kerr := gitCryptKeys(context.WithoutCancel(ctx), c.root)
	if kerr != nil {
		return nil, errors.Join(err, kerr)
	}
	ours := slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
	if err != nil && len(ours) > 0 { // the key was taken, but did not open what it should
		err = fmt.Errorf("it is not the key of these files: %w", err)
	}
	relock := func(force ...string) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockTime)
		defer cancel()
		var errs []error
		for _, name := range ours {
			args := append([]string{"lock"}, force...)
			if name != "default" {
				args = append(args, "-k", name)
			}
			errs = append(errs, run(ctx, args...))
		}
		return errors.Join(errs...)
	}
	if err == nil {
		var now *checkout
		if now, err = newCheckout(ctx, c.root); err == nil && len(now.locked) == len(c.locked) {
			err = fmt.Errorf("%s and others are encrypted with another key", c.locked[0])
		}
	}
	if err != nil {
		// With a wrong key, git-crypt leaves the tree half changed. It was clean
		// before, else git-crypt would not have begun.
		return nil, errors.Join(err, relock("--force"))
	}
	return func() {
		err := relock()
		if err != nil { // something else was changed meanwhile, which stays
			err = relock("--force")
		}
		if err != nil {
			a.warn("What git-crypt has decrypted stays so", fmt.Errorf("%s: %w", c.root, err))
		}
	}, nil
}

// gitCryptKeys names the keys that are installed in a work tree.
func gitCryptKeys(ctx context.Context, root string) ([]string, error) {
	out, err := git(ctx, root, nil, "rev-parse", "--absolute-git-dir")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(strings.TrimSuffix(string(out), "\n"), "git-crypt", "keys"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}
