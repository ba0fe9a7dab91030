package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const dumpBuffer = 256 << 10

var dumpers = sync.Pool{New: func() any { return &dumper{buf: make([]byte, 0, dumpBuffer)} }}

// Dump writes the NAR of a file, directory or symlink. It does not support the names
// that Nix on macOS gives to files whose names differ only in case.
//
// It has a descriptor open for each directory that it is in.
func Dump(w io.Writer, path string) error {
	d, _ := dumpers.Get().(*dumper)
	defer dumpers.Put(d)
	d.w, d.buf = w, d.buf[:0]
	defer func() { d.w = nil }()

	err := d.put(wMagic)
	if err == nil {
		err = d.node(unix.AT_FDCWD, path)
	}
	if err == nil {
		err = d.flush()
	}
	if err != nil {
		return fmt.Errorf("cannot write the NAR of %s: %w", path, err)
	}
	return nil
}

// A dumper buffers its output, so that w gets large pieces.
type dumper struct {
	w    io.Writer
	buf  []byte
	link [maxTarget + 1]byte
}

func (d *dumper) flush() error {
	_, err := d.w.Write(d.buf)
	d.buf = d.buf[:0]
	return err
}

// room makes room for n bytes, which must not exceed the buffer.
func (d *dumper) room(n int) error {
	if n > cap(d.buf)-len(d.buf) {
		return d.flush()
	}
	return nil
}

func (d *dumper) put(encoded string) error {
	err := d.room(len(encoded))
	d.buf = append(d.buf, encoded...)
	return err
}

func (d *dumper) text(s string) error {
	err := d.room(len(s) + 16)
	d.buf = binary.LittleEndian.AppendUint64(d.buf, uint64(len(s)))
	d.buf = append(d.buf, s...)
	d.buf = append(d.buf, zeros[:padding(uint64(len(s)))]...)
	return err
}

func (d *dumper) node(dir int, name string) error {
	// Without O_NONBLOCK, the open of a pipe would block.
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return d.symlink(dir, name)
	}
	if err != nil {
		return failed("open", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return failed("stat", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = d.regular(fd, name, &st)
		_ = unix.Close(fd)
	case unix.S_IFDIR:
		f := os.NewFile(uintptr(fd), name)
		err = d.directory(fd, f)
		_ = f.Close()
	default:
		_ = unix.Close(fd)
		err = failed("read", name, errors.New("neither a file nor a directory nor a symlink"))
	}
	return err
}

func (d *dumper) symlink(dir int, name string) error {
	n, err := unix.Readlinkat(dir, name, d.link[:])
	if err != nil {
		return failed("readlink", name, err)
	}
	if err := d.put(wNode + wSymlink); err != nil {
		return err
	}
	if err := d.text(string(d.link[:n])); err != nil {
		return err
	}
	return d.put(wEnd)
}

func (d *dumper) regular(fd int, name string, st *unix.Stat_t) error {
	start := wNode + wRegular + wContents
	if st.Mode&unix.S_IXUSR != 0 {
		start = wNode + wRegular + wExecutable + wContents
	}
	if err := d.put(start); err != nil {
		return err
	}
	size := uint64(st.Size) //nolint:gosec // a file's size is not negative
	if err := d.put(string(binary.LittleEndian.AppendUint64(nil, size))); err != nil {
		return err
	}
	for left := size; left > 0; {
		// Small files share the buffer, large ones are read in large pieces.
		if err := d.room(int(min(left, dumpBuffer))); err != nil {
			return err
		}
		used := len(d.buf)
		n, err := unix.Read(fd, d.buf[used:used+int(min(left, uint64(cap(d.buf)-used)))]) //nolint:gosec // at most the buffer
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return failed("read", name, err)
		case n == 0:
			return failed("read", name, io.ErrUnexpectedEOF)
		}
		d.buf = d.buf[:used+n]
		left -= uint64(n) //nolint:gosec // bytes read
	}
	return d.put(string(zeros[:padding(size)]) + wEnd)
}

func (d *dumper) directory(fd int, f *os.File) error {
	if err := d.put(wNode + wDirectory); err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.put(wEntry); err != nil {
			return err
		}
		if err := d.text(name); err != nil {
			return err
		}
		if err := d.put(wNodeStart); err != nil {
			return err
		}
		if err := d.node(fd, name); err != nil {
			return err
		}
		if err := d.put(wEnd); err != nil {
			return err
		}
	}
	return d.put(wEnd)
}
