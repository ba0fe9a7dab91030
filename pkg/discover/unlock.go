package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/gitcrypt"
	"github.com/org/nix-matrix/pkg/nix"
)

// directories are those on this machine that a discovery looks into.
func (d *Discovery) directories() []string {
	dirs := []string{"."}
	if d.Evaluate.File != "" {
		dirs = append(dirs, filepath.Dir(d.Evaluate.File))
	}
	for _, installable := range d.Evaluate.Installables {
		if dir := directory(installable); dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// directory is the one on this machine that an installable is of, or "".
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

// checkouts are the work trees that a discovery looks into.
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

// locked are the work trees with files that git-crypt has encrypted, if there is a key for
// them.
func (d *Discovery) locked(ctx context.Context) ([]*gitcrypt.Checkout, error) {
	key, err := d.host.GitCryptKey()
	if err != nil || key == nil {
		return nil, err
	}
	checkouts, err := d.checkouts(ctx)
	if err != nil {
		return nil, fmt.Errorf("git_crypt_key: %w", err)
	}
	if len(checkouts) == 0 {
		here, _ := os.Getwd()
		return nil, usage.Errorf("git_crypt_key: %s is no work tree of git, so there is nothing to unlock: check the repository out before, and name it with --working-directory if it is not here", here)
	}
	return slices.DeleteFunc(checkouts, func(c *gitcrypt.Checkout) bool { return len(c.Locked) == 0 }), nil
}

// unlock decrypts work trees. What it gives encrypts them again, and removes the key from
// them: also in GitHub Actions, since the next job on a runner that stays, a stranger's
// perhaps, would find it there.
func (d *Discovery) unlock(ctx context.Context, checkouts []*gitcrypt.Checkout) (lock func(), err error) {
	lock = func() {}
	if len(checkouts) == 0 {
		return lock, nil
	}
	key, err := d.host.GitCryptKey()
	if err != nil {
		return lock, err
	}
	d.log.Doing("unlocking with git-crypt")
	program, release, err := d.env.FindProgram(ctx, "git-crypt")
	if err != nil {
		return lock, fmt.Errorf("git_crypt_key: %w", err)
	}
	file, remove, err := d.host.Secrets.File(key)
	if err != nil {
		release()
		return lock, err
	}
	defer remove()
	d.env.AtClose(remove)
	var locks []func()
	lock = func() {
		for _, lock := range locks {
			lock()
		}
		release()
	}
	for _, c := range checkouts {
		undo, err := d.unlockCheckout(ctx, program, file, c)
		if err != nil {
			lock()
			return func() {}, fmt.Errorf("git_crypt_key does not unlock %s: %w", c.Root, err)
		}
		locks = append(locks, undo)
	}
	if !d.host.Hosted {
		d.log.Warn("Decrypted files stay in the Nix store", errors.New("what is evaluated is copied there, where every user of this machine can read it until it is collected as garbage; use a machine that nobody else has, or one that is thrown away"))
	}
	return lock, nil
}

// unlockCheckout decrypts a work tree, which is encrypted again also if this process
// does not come to it.
func (d *Discovery) unlockCheckout(ctx context.Context, program, keyFile string, c *gitcrypt.Checkout) (lock func(), err error) {
	relock, err := c.Relock(ctx, program)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(relock)
	if err != nil {
		return nil, err
	}
	done, err := d.host.Secrets.AtDeath(data)
	if err != nil {
		return nil, err
	}
	undo := func() error {
		if ctx.Err() != nil {
			d.env.Close() // there may be no time for more, and this takes longer
		}
		err := relock.Run(ctx, nix.Environ())
		if err == nil {
			done()
		}
		return err
	}
	if err := c.Unlock(ctx, relock, keyFile); err != nil {
		return nil, errors.Join(err, undo())
	}
	return func() {
		if err := undo(); err != nil {
			d.log.Warn("What git-crypt has decrypted stays so", err)
		}
	}, nil
}
