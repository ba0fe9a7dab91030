package nar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The modes and the time of all files in a store.
const (
	fileMode       = 0o444
	executableMode = 0o555
	directoryMode  = 0o555
	buildMode      = 0o700 // of a directory until it is complete

	mtime = 1 // second after the epoch
)

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 256<<10) }}

// An Unpacker unpacks NARs, also several at a time. While fewer than Parallel goroutines are
// busy with it, further ones write the files of a NAR as the caller of Unpack reads it.
type Unpacker struct {
	Parallel int

	busy atomic.Int64 // goroutines
}

// Unpack reads a NAR of size bytes, at which r must end, and creates the file, directory or
// symlink name in the open directory dir, with the modes and times that Nix sets. It follows
// no symlink and replaces nothing. After an error nothing is left. The error wraps that of r;
// if the NAR's format is wrong, it wraps [ErrMalformed].
//
// It has a descriptor open for each directory that it is in, for some of those with files that
// are not written yet, and for a few files.
func (u *Unpacker) Unpack(r io.Reader, size int64, dir int, name string) error {
	u.busy.Add(1)
	defer u.busy.Add(-1)
	buffered, _ := buffers.Get().(*bufio.Reader)
	defer buffers.Put(buffered)
	buffered.Reset(r)
	defer buffered.Reset(nil)

	d := disk{unpacker: u, dir: &folder{fd: dir}}
	err := d.end(parseAll(buffered, size, name, &d))
	if err != nil && d.made {
		err = errors.Join(err, Remove(dir, name))
	}
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", name, err)
	}
	return nil
}

// share calls write in another goroutine if one more may be busy, else in this one.
func (u *Unpacker) share(others *sync.WaitGroup, write func()) {
	if u.busy.Add(1) > int64(u.Parallel) {
		u.busy.Add(-1)
		write()
		return
	}
	others.Go(func() {
		defer u.busy.Add(-1)
		write()
	})
}

// maxOpen is the most directories of a NAR that are open: those that the parser is in, and those
// with files that are not written yet.
const maxOpen = maxDepth + 64

// disk is a tree that creates the nodes in a directory. Files are written in batches, which
// several goroutines do; everything else is done by the parser's.
type disk struct {
	unpacker *Unpacker
	made     bool     // the root node was created
	dir      *folder  // the current directory
	current  *newFile // the file that the parser reads, or nil
	at       int64    // in it, of the bytes from start on in the batch
	start    int
	batch    *batch // of files that are complete in it, and the current one; or nil

	writers sync.WaitGroup
	open    atomic.Int64          // directories
	failure atomic.Pointer[error] // the first one
}

// fail notes an error if it is the first.
func (d *disk) fail(err error) {
	if err != nil {
		d.failure.CompareAndSwap(nil, &err)
	}
}

// err returns the first error, of the parser or of a writer. Nothing is created after it.
func (d *disk) err() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// end completes the tree after the parser's last call, with its error, and returns the first one.
func (d *disk) end(err error) error {
	d.fail(err)
	if d.current != nil { // the parser has failed
		d.releaseFile(d.current)
	}
	if d.batch != nil {
		d.write(d.batch)
	}
	d.writers.Wait()
	for ; d.dir.up != nil; d.dir = d.dir.up { // likewise
		d.release(d.dir)
	}
	return d.err()
}

func failed(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: what, Path: name, Err: err}
}

// A folder is a directory that is not complete. That of the root node, which is not of the
// NAR, has no up.
type folder struct {
	up   *folder
	fd   int
	name string
	uses atomic.Int64 // by the parser, and by directories and files in it that are not complete
}

func (d *disk) directory(name string) error {
	if d.open.Load() >= maxOpen {
		d.flush()
		d.writers.Wait()
	}
	if err := d.err(); err != nil {
		return err
	}
	if err := unix.Mkdirat(d.dir.fd, name, buildMode); err != nil {
		return failed("mkdir", name, err)
	}
	d.made = true
	fd, err := openat(d.dir.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return failed("open", name, err)
	}
	d.open.Add(1)
	d.dir.uses.Add(1)
	d.dir = &folder{up: d.dir, fd: fd, name: name}
	d.dir.uses.Store(1)
	return nil
}

func (d *disk) leave() error {
	last := d.dir
	d.dir = last.up
	d.release(last)
	return d.err()
}

// release ends a use of a directory. After the last one, it is complete.
func (d *disk) release(f *folder) {
	for ; f.up != nil && f.uses.Add(-1) == 0; f = f.up {
		if d.err() == nil {
			d.fail(failed("chmod", f.name, unix.Fchmod(f.fd, directoryMode)))
		}
		d.fail(failed("close", f.name, unix.Close(f.fd)))
		d.open.Add(-1)
		if d.err() == nil {
			d.fail(settle(f.up.fd, f.name))
		}
	}
}

func (d *disk) symlink(name, target string) error {
	if err := unix.Symlinkat(target, d.dir.fd, name); err != nil {
		return failed("symlink", name, err)
	}
	d.made = true
	return settle(d.dir.fd, name)
}

// settle sets the time of a complete node.
func settle(dir int, name string) error {
	times := [2]unix.Timespec{{Sec: mtime}, {Sec: mtime}}
	return failed("utimes", name, unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW))
}

// openat opens a file or directory, but no symlink.
func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// Remove removes name from an open directory, with everything in it, read-only
// directories too. It is no error if name does not exist.
func Remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// For a directory, Linux returns EISDIR, other systems EPERM, as without permission.
	fd, openErr := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(openErr, unix.EACCES) && unix.Fchmodat(dir, name, buildMode, 0) == nil {
		fd, openErr = openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if openErr != nil {
		if unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil { // it was empty, and no descriptor is left
			return nil
		}
		return failed("remove", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_ = unix.Fchmod(fd, buildMode) // if it fails, so does the removal
	names, err := f.Readdirnames(-1)
	for _, entry := range names {
		if err == nil {
			err = Remove(fd, entry)
		}
	}
	_ = f.Close()
	if err != nil {
		return err
	}
	return failed("remove", name, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}
