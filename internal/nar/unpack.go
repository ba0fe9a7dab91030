package nar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

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

// Unpack reads a NAR of size bytes, at which r must end, and creates the file, directory or
// symlink name in the open directory dir, with the modes and times that Nix sets. It follows
// no symlink and replaces nothing. After an error nothing is left. The error wraps that of r;
// if the NAR's format is wrong, it wraps [ErrMalformed].
//
// It has a descriptor open for each directory that it is in.
func Unpack(r io.Reader, size int64, dir int, name string) error {
	buffered, _ := buffers.Get().(*bufio.Reader)
	defer buffers.Put(buffered)
	buffered.Reset(r)
	defer buffered.Reset(nil)

	d := disk{root: dir, dir: dir, open: -1}
	err := parseAll(buffered, size, name, &d)
	d.close()
	if err != nil && d.made {
		err = errors.Join(err, Remove(dir, name))
	}
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", name, err)
	}
	return nil
}

// disk is a tree that creates the nodes in a directory.
type disk struct {
	root int   // the directory of the root node
	dir  int   // the current directory
	up   []int // the directories above it
	open int   // the current file, or -1
	name string
	mode uint32
	made bool // the root node was created

	names []string // of the open directories
}

// close closes all descriptors after an error.
func (d *disk) close() {
	if d.open >= 0 {
		_ = unix.Close(d.open)
	}
	for range d.up {
		_ = unix.Close(d.dir)
		d.dir, d.up = d.up[len(d.up)-1], d.up[:len(d.up)-1]
	}
}

func failed(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: what, Path: name, Err: err}
}

func (d *disk) directory(name string) error {
	if err := unix.Mkdirat(d.dir, name, buildMode); err != nil {
		return failed("mkdir", name, err)
	}
	d.made = true
	fd, err := openat(d.dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return failed("open", name, err)
	}
	d.up = append(d.up, d.dir)
	d.names = append(d.names, name)
	d.dir = fd
	return nil
}

func (d *disk) leave() error {
	last := len(d.up) - 1
	name := d.names[last]
	err := unix.Fchmod(d.dir, directoryMode)
	if cerr := unix.Close(d.dir); err == nil {
		err = cerr
	}
	d.dir, d.up, d.names = d.up[last], d.up[:last], d.names[:last]
	if err != nil {
		return failed("chmod", name, err)
	}
	return d.settle(name)
}

func (d *disk) symlink(name, target string) error {
	if err := unix.Symlinkat(target, d.dir, name); err != nil {
		return failed("symlink", name, err)
	}
	d.made = true
	return d.settle(name)
}

func (d *disk) file(name string, executable bool) (err error) {
	d.name, d.mode = name, fileMode
	if executable {
		d.mode = executableMode
	}
	// The descriptor can be written to although the file is created read-only.
	d.open, err = openat(d.dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, d.mode)
	d.made = d.made || err == nil
	return failed("create", name, err)
}

func (d *disk) contents(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(d.open, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return failed("write", d.name, err)
		}
		p = p[max(n, 0):]
	}
	return nil
}

func (d *disk) fileEnd() error {
	fd := d.open
	d.open = -1
	// The process's umask, or an ACL of the directory, may have changed the mode.
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && uint32(st.Mode)&0o7777 != d.mode { //nolint:unconvert // a uint16 on darwin
		err = unix.Fchmod(fd, d.mode)
	}
	if cerr := unix.Close(fd); err == nil { // it may be the first to report a full disk
		err = cerr
	}
	if err != nil {
		return failed("write", d.name, err)
	}
	return d.settle(d.name)
}

// settle sets the time of a complete node.
func (d *disk) settle(name string) error {
	times := [2]unix.Timespec{{Sec: mtime}, {Sec: mtime}}
	return failed("utimes", name, unix.UtimesNanoAt(d.dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW))
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
