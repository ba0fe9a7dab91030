// Package gitcrypt decrypts the files of a checkout that git-crypt encrypts, for a while.
package gitcrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/pkg/git"
)

// A Checkout is a work tree with the files that git-crypt encrypts.
type Checkout struct {
	Root string
	// The files relative to Root: as they are encrypted, and in clear.
	Locked, Open []string

	repository *git.Repository
}

// Find returns the checkout that a directory is in, and nil if it is in none. The programs
// that are run get the environment env.
func Find(ctx context.Context, dir string, env []string) (*Checkout, error) {
	r, err := git.Find(dir, env)
	if err != nil || r == nil {
		return nil, err
	}
	return look(ctx, r)
}

// look reads attributes from the index, since a file of the work tree may be a symbolic
// link to anything.
func look(ctx context.Context, r *git.Repository) (*Checkout, error) {
	c := &Checkout{Root: r.Root, repository: r}
	files, err := r.Output(ctx, nil, "ls-files", "-z")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(nulls(files), func(file string) bool { return path.Base(file) == ".gitattributes" }) {
		return c, nil
	}
	out, err := r.Output(ctx, files, "check-attr", "--cached", "-z", "--stdin", "filter")
	if err != nil {
		return nil, err
	}
	for fields := range slices.Chunk(nulls(out), 3) { // file, filter, value
		if value := fields[len(fields)-1]; value != "git-crypt" && !strings.HasPrefix(value, "git-crypt-") {
			continue
		}
		f, err := r.Open(fields[0])
		if err != nil {
			continue // it was deleted, or is something else that git-crypt does not encrypt
		}
		info, err := f.Stat()
		switch {
		case err != nil || info.Size() == 0: // which is never encrypted
		case encrypted(f):
			c.Locked = append(c.Locked, fields[0])
		default:
			c.Open = append(c.Open, fields[0])
		}
		_ = f.Close()
	}
	return c, nil
}

// nulls are the words that each end with a zero byte.
func nulls(data []byte) []string {
	return slices.DeleteFunc(strings.Split(string(data), "\x00"), func(word string) bool { return word == "" })
}

// head is how a file begins that git-crypt has encrypted.
const head = "\x00GITCRYPT\x00"

func encrypted(f io.Reader) bool {
	begin := make([]byte, len(head))
	_, err := io.ReadFull(f, begin)
	return err == nil && string(begin) == head
}

// Encrypted reports whether a file is encrypted with git-crypt. What is no regular file
// is not.
func Encrypted(file string) bool {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular() && encrypted(f)
}

// Relock says how to encrypt a checkout again, also for another process.
type Relock struct {
	Root    string   `json:"root"`
	Program string   `json:"program"` // git-crypt
	Keep    []string `json:"keep"`    // names of the keys that are installed already, and stay
}

// Relock returns how to undo Unlock with the program git-crypt. It is for before that.
func (c *Checkout) Relock(ctx context.Context, program string) (*Relock, error) {
	installed, err := keys(ctx, c.repository)
	if err != nil {
		return nil, err
	}
	return &Relock{Root: c.Root, Program: program, Keep: installed}, nil
}

// Unlock decrypts the files with the key in a file. After an error, such as that the key
// is another one, the work tree may be changed in part.
func (c *Checkout) Unlock(ctx context.Context, undo *Relock, keyFile string) error {
	err := run(ctx, c.repository, undo.Program, "unlock", keyFile)
	if err != nil {
		// If git-crypt has taken the key, then it did not open what it should.
		if ours, kerr := undo.keys(context.WithoutCancel(ctx), c.repository); kerr == nil && len(ours) > 0 {
			return fmt.Errorf("it is not the key of these files: %w", err)
		}
		return err
	}
	now, err := look(ctx, c.repository)
	if err == nil && len(now.Locked) == len(c.Locked) {
		err = fmt.Errorf("%s and others are encrypted with another key", c.Locked[0])
	}
	return err
}

// lockTime is how long git-crypt may take to encrypt a work tree again, also after
// a signal.
const lockTime = time.Minute

// Undo runs the Relock of another process, in JSON.
func Undo(ctx context.Context, relock []byte, env []string) error {
	var u Relock
	if err := json.Unmarshal(relock, &u); err != nil {
		return err
	}
	return u.Run(ctx, env)
}

// Run encrypts the files again and removes the keys, also when ctx has ended. The
// programs that are run get the environment env.
func (u *Relock) Run(ctx context.Context, env []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockTime)
	defer cancel()
	r, err := git.Find(u.Root, env)
	if err == nil && (r == nil || r.Root != u.Root) {
		err = fs.ErrNotExist
	}
	if err == nil {
		if err = u.run(ctx, r); err != nil { // something else was changed meanwhile, which stays
			err = u.run(ctx, r, "--force")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.Root, err)
	}
	return nil
}

func (u *Relock) run(ctx context.Context, r *git.Repository, force ...string) error {
	ours, err := u.keys(ctx, r)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range ours {
		args := append([]string{"lock"}, force...)
		if name != "default" {
			args = append(args, "-k", name)
		}
		errs = append(errs, run(ctx, r, u.Program, args...))
	}
	return errors.Join(errs...)
}

// keys are the names of the keys that were installed since.
func (u *Relock) keys(ctx context.Context, r *git.Repository) ([]string, error) {
	installed, err := keys(ctx, r)
	return slices.DeleteFunc(installed, func(name string) bool { return slices.Contains(u.Keep, name) }), err
}

func run(ctx context.Context, r *git.Repository, program string, args ...string) error {
	_, err := r.Command(ctx, program, args...).Output()
	return git.Explain("git-crypt "+args[0], err)
}

// keys are the names of the keys that are installed in a work tree.
func keys(ctx context.Context, r *git.Repository) ([]string, error) {
	out, err := r.Output(ctx, nil, "rev-parse", "--absolute-git-dir")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(strings.TrimSuffix(string(out), "\n"), "git-crypt", "keys"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}
