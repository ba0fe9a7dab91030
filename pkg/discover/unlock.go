package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/gitcrypt"
	"github.com/org/nix-matrix/pkg/nix"
)

// locked returns the work trees with files that git-crypt has encrypted, if there is a key.
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
		return nil, usage.Errorf("cannot unlock with git_crypt_key: %s is no work tree of git. Check out the repository before, and name it with --working-directory if it is elsewhere", here)
	}
	return slices.DeleteFunc(checkouts, func(c *gitcrypt.Checkout) bool { return len(c.Locked) == 0 }), nil
}

// unlock decrypts work trees, and returns the function that encrypts them again and removes the key from
// them. That happens in GitHub Actions too, because the next job on a runner of one's own may be a
// stranger's.
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
	program, release, err := d.Env.FindProgram(ctx, "git-crypt")
	if err != nil {
		return lock, fmt.Errorf("git_crypt_key: %w", err)
	}
	file, remove, err := d.host.Secrets.File(key)
	if err != nil {
		release()
		return lock, err
	}
	defer remove()
	d.Env.AtClose(remove)
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
		d.log.Warn("Decrypted files stay in the Nix store", errors.New("the sources are copied there, where every user of this machine can read them until a garbage collection. Use a machine without other users, or one for this job alone"))
	}
	return lock, nil
}

// unlockCheckout decrypts a work tree. If this process is killed, the guard encrypts it again.
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
			d.Env.Close() // first, because encrypting takes longer and may be cut short
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
			d.log.Warn("Cannot encrypt the checkout again", err)
		}
	}, nil
}
