package nar

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The limits of a batch. A goroutine has something to do for about a millisecond, and most
// files are in one piece.
const (
	batchBytes  = 256 << 10
	batchPieces = 64
)

// A batch has the contents of small files, and pieces of others.
type batch struct {
	data   []byte // batchBytes at most
	pieces []piece
}

// A piece is a file's contents, or a part of them.
type piece struct {
	of   *newFile
	at   int64 // in the file
	size int   // in the batch, after those before it
}

// A newFile is a file that is not complete.
type newFile struct {
	in   *folder
	name string
	mode uint32
	fd   int          // -1 until it is created, by the writer of its only piece or by the parser
	uses atomic.Int64 // by the parser, and by pieces that are not written
}

var batches = sync.Pool{New: func() any { return &batch{data: make([]byte, 0, batchBytes)} }}

func (d *disk) file(name string, executable bool, _ int64) error {
	f := &newFile{in: d.dir, name: name, mode: fileMode, fd: -1}
	if executable {
		f.mode = executableMode
	}
	if d.batch == nil {
		d.batch, _ = batches.Get().(*batch)
	}
	d.current, d.at, d.start = f, 0, len(d.batch.data)
	d.dir.uses.Add(1)
	f.uses.Store(1)
	if d.dir.up == nil { // so that it is known whether to remove the root
		err := f.create()
		d.made = err == nil
		return err
	}
	return d.err()
}

func (d *disk) contents(p []byte) error {
	for len(p) > 0 {
		b := d.batch
		n := copy(b.data[len(b.data):cap(b.data)], p)
		b.data, p = b.data[:len(b.data)+n], p[n:]
		if len(p) == 0 {
			break
		}
		// It does not fit, so other pieces follow.
		if d.current.fd < 0 {
			if err := d.current.create(); err != nil {
				return err
			}
		}
		d.cut()
		d.flush()
		if err := d.err(); err != nil {
			return err
		}
		d.batch, _ = batches.Get().(*batch)
		d.start = 0
	}
	return nil
}

// cut adds the bytes since the last piece to the batch as a piece.
func (d *disk) cut() {
	b := d.batch
	size := len(b.data) - d.start
	if size == 0 && d.current.fd >= 0 {
		return
	}
	d.current.uses.Add(1)
	b.pieces = append(b.pieces, piece{d.current, d.at, size})
	d.at += int64(size)
}

func (d *disk) fileEnd() error {
	d.cut()
	d.releaseFile(d.current)
	d.current = nil
	if len(d.batch.pieces) == batchPieces {
		d.flush()
	}
	return d.err()
}

// flush has the batch written.
func (d *disk) flush() {
	if b := d.batch; b != nil {
		d.batch = nil
		d.unpacker.share(&d.writers, func() { d.write(b) })
	}
}

// write writes the pieces of a batch, unless something has failed.
func (d *disk) write(b *batch) {
	data := b.data
	for _, p := range b.pieces {
		if d.err() == nil && p.of.fd < 0 {
			d.fail(p.of.create())
		}
		if d.err() == nil {
			d.fail(p.of.write(data[:p.size], p.at))
		}
		data = data[p.size:]
		d.releaseFile(p.of)
	}
	clear(b.pieces)
	b.data, b.pieces = b.data[:0], b.pieces[:0]
	batches.Put(b)
}

// create opens the file, which must not exist. The descriptor can be written to although the
// file is created read-only.
func (f *newFile) create() (err error) {
	f.fd, err = openat(f.in.fd, f.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, f.mode)
	return failed("create", f.name, err)
}

func (f *newFile) write(p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(f.fd, p, at)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return failed("write", f.name, err)
		}
		n = max(n, 0)
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// releaseFile ends a use of a file. After the last one, it is complete.
func (d *disk) releaseFile(f *newFile) {
	if f.uses.Add(-1) > 0 {
		return
	}
	if f.fd >= 0 {
		if d.err() == nil {
			d.fail(failed("write", f.name, f.setMode()))
		}
		d.fail(failed("write", f.name, unix.Close(f.fd))) // it may be the first to report a full disk
		if d.err() == nil {
			d.fail(settle(f.in.fd, f.name))
		}
	}
	d.release(f.in)
}

// setMode sets the mode if the process's umask, or an ACL of the directory, has changed it.
func (f *newFile) setMode() error {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	if err == nil && uint32(st.Mode)&0o7777 != f.mode { //nolint:unconvert // a uint16 on darwin
		err = unix.Fchmod(f.fd, f.mode)
	}
	return err
}
