// Package dir is a cache in a directory, for one machine and any number of
// processes on it.
//
// A blob is a file with its key as name, so that "zstd -dc" and the like can read
// it; the file's modification time is when it was saved. File systems allow
// names of 255 bytes, so a longer key is cut into pieces of 200 characters, all
// but the last of them directories whose names have a "~" at the end, which no
// key has. A file that is being written lies in ".tmp", and gets its name with
// one link(2), which fails if the name is taken. Files may be deleted at any
// time.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
)

const (
	piece    = 200    // characters of a key in one file name
	mark     = "~"    // ends the name of a directory that holds longer keys
	unnamed  = ".tmp" // directory of the files being written
	stale    = 24 * time.Hour
	copySize = 1 << 20
)

type directory struct {
	root *os.Root
	mode fs.FileMode // permissions of root and of all files in it
}

// New returns the cache in the directory at name. If there is none, it makes one that only its
// owner can read. Users who share a directory make it beforehand: files and directories in it
// get its permissions, less the umask. Half written files of processes that died are removed
// after a day.
func New(name string) (cache.Collectable, error) {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the cache directory: %w", err)
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open the cache directory: %w", err)
	}
	info, err := root.Stat(".")
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("cannot open the cache directory: %w", err)
	}
	d := &directory{root, info.Mode().Perm()}
	d.removeStale(time.Now().Add(-stale))
	return d, nil
}

func (d *directory) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := cache.CheckOpen(key, prefixes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", key, err)
	}
	switch info, err := d.root.Lstat(fileName(key)); {
	case err == nil && info.Mode().IsRegular():
		return &blob{d.root, key, info.Size()}, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot open %s: %w", key, err)
	}
	for _, prefix := range prefixes {
		newest, err := d.newest(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("cannot find %s…: %w", prefix, err)
		}
		if newest != nil {
			return newest, nil
		}
	}
	return nil, fmt.Errorf("cannot open %s: %w", key, cache.ErrMiss)
}

// newest returns the blob that was saved last of those whose keys start with prefix, and of
// several that were saved at the same instant the one whose key sorts last; or nil.
func (d *directory) newest(ctx context.Context, prefix string) (*blob, error) {
	var newest cache.Stored
	err := d.each(ctx, prefix, func(found cache.Stored) {
		if newest.Key == "" || found.Saved.After(newest.Saved) || found.Saved.Equal(newest.Saved) && found.Key > newest.Key {
			newest = found
		}
	})
	if err != nil || newest.Key == "" {
		return nil, err
	}
	return &blob{d.root, newest.Key, newest.Size}, nil
}

// each calls a function for each blob whose key starts with prefix.
func (d *directory) each(ctx context.Context, prefix string, found func(cache.Stored)) error {
	return fs.WalkDir(d.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return unlessRemoved(err)
		}
		if name == "." {
			return ctx.Err()
		}
		key := keyOf(name)
		if entry.IsDir() {
			if !strings.HasSuffix(name, mark) || !strings.HasPrefix(key, prefix) && !strings.HasPrefix(prefix, key) {
				return fs.SkipDir
			}
			return nil
		}
		ours := cache.CheckKey(key) == nil && fileName(key) == name
		if !ours || !strings.HasPrefix(key, prefix) {
			return nil
		}
		info, err := entry.Info()
		switch {
		case err != nil:
			return unlessRemoved(err)
		case !info.Mode().IsRegular():
			return nil
		}
		found(cache.Stored{Key: key, Size: info.Size(), Saved: info.ModTime()})
		return nil
	})
}

// List is of [cache.Collectable].
func (d *directory) List(ctx context.Context, prefix string) ([]cache.Stored, error) {
	var all []cache.Stored
	if err := d.each(ctx, prefix, func(found cache.Stored) { all = append(all, found) }); err != nil {
		return nil, fmt.Errorf("cannot list the cache directory: %w", err)
	}
	return all, nil
}

// Remove is of [cache.Collectable].
func (d *directory) Remove(_ context.Context, key string) error {
	if err := cache.CheckKey(key); err != nil {
		return err
	}
	if err := unlessRemoved(d.root.Remove(fileName(key))); err != nil {
		return fmt.Errorf("cannot remove %s: %w", key, err)
	}
	return nil
}

// unlessRemoved returns err, or nil if the reason is a file that was removed after it was
// listed.
func unlessRemoved(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *directory) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := cache.CheckSave(key, size); err != nil {
		return err
	}
	err := d.save(ctx, fileName(key), body, size)
	switch {
	case errors.Is(err, fs.ErrExist):
		err = cache.ErrExists
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		err = fmt.Errorf("%w: %w", cache.ErrReadOnly, err)
	}
	if err != nil {
		return fmt.Errorf("cannot save %s: %w", key, err)
	}
	return nil
}

// save makes the file name. If there is one, the error is fs.ErrExist.
func (d *directory) save(ctx context.Context, name string, body io.ReaderAt, size int64) error {
	if _, err := d.root.Lstat(name); err == nil {
		return fs.ErrExist
	}
	written := path.Join(unnamed, rand.Text())
	for _, parent := range []string{unnamed, path.Dir(name)} {
		if err := d.root.MkdirAll(parent, d.mode); err != nil {
			return err
		}
	}
	defer func() { _ = d.root.Remove(written) }()
	if err := d.write(ctx, written, body, size); err != nil {
		return err
	}
	return d.root.Link(written, name)
}

// write makes the file name, with size bytes of body and the current time.
func (d *directory) write(ctx context.Context, name string, body io.ReaderAt, size int64) (err error) {
	file, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, d.mode&0o666)
	if err != nil {
		return err
	}
	defer func() {
		if closing := file.Close(); err == nil {
			err = closing
		}
	}()
	source := &reader{ctx, io.NewSectionReader(body, 0, size), size}
	if _, err := io.CopyBuffer(struct{ io.Writer }{file}, source, make([]byte, min(size, copySize))); err != nil {
		return err
	}
	// A name that survives a power cut while its bytes don't would be taken for good.
	if err := file.Sync(); err != nil {
		return err
	}
	now := time.Now()
	return d.root.Chtimes(name, now, now)
}

// removeStale removes the half written files last touched before the given time.
func (d *directory) removeStale(before time.Time) {
	entries, err := fs.ReadDir(d.root.FS(), unnamed)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().Before(before) {
			_ = d.root.Remove(path.Join(unnamed, entry.Name()))
		}
	}
}

func fileName(key string) string {
	var name strings.Builder
	for len(key) > piece {
		name.WriteString(key[:piece] + mark + "/")
		key = key[piece:]
	}
	name.WriteString(key)
	return name.String()
}

func keyOf(fileName string) string {
	return strings.TrimSuffix(strings.ReplaceAll(fileName, mark+"/", ""), mark)
}
