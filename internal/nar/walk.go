package nar

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Walk passes the nodes of a file, directory or symlink to a visitor, in the order of its NAR. It
// does not support the names that Nix on macOS gives to files whose names differ only in case.
//
// It has a descriptor open for each directory that it is in. An error is the visitor's, or names the
// file or directory that can't be read.
func Walk(path string, to Visitor) error {
	w := walker{to: to}
	return w.node(unix.AT_FDCWD, path, "")
}

type walker struct {
	to   Visitor
	link [maxTarget + 1]byte
}

// node visits a file. The name of the root is not in its NAR.
func (w *walker) node(dir int, file, name string) error {
	// Without O_NONBLOCK, the open of a pipe would block.
	fd, err := openat(dir, file, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		n, err := unix.Readlinkat(dir, file, w.link[:])
		if err != nil {
			return failed("readlink", file, err)
		}
		return w.to.Node(Node{Kind: Symlink, Name: name, Target: string(w.link[:n])})
	}
	if err != nil {
		return failed("open", file, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return failed("stat", file, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = w.regular(fd, file, name, &st)
		_ = unix.Close(fd)
	case unix.S_IFDIR:
		f := os.NewFile(uintptr(fd), file)
		err = w.directory(fd, f, name)
		_ = f.Close()
	default:
		_ = unix.Close(fd)
		err = failed("read", file, errors.New("neither a file nor a directory nor a symlink"))
	}
	return err
}

func (w *walker) regular(fd int, file, name string, st *unix.Stat_t) error {
	kind := File
	if st.Mode&unix.S_IXUSR != 0 {
		kind = Executable
	}
	if err := w.to.Node(Node{Kind: kind, Name: name, Size: st.Size}); err != nil {
		return err
	}
	for left := st.Size; left > 0; {
		room, err := w.to.Room(left)
		if err != nil {
			return err
		}
		n, err := unix.Read(fd, room)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return failed("read", file, err)
		case n == 0:
			return failed("read", file, io.ErrUnexpectedEOF)
		}
		if err := w.to.Filled(n); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func (w *walker) directory(fd int, f *os.File, name string) error {
	if err := w.to.Node(Node{Kind: Directory, Name: name}); err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.node(fd, name, name); err != nil {
			return err
		}
	}
	return w.to.Node(Node{Kind: End})
}
