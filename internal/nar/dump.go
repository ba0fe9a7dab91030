package nar

import (
	"fmt"
	"io"
	"sync"
)

const (
	dumpBuffer = 256 << 10
	maxNode    = maxTarget + 1<<10 // more than a node has around contents, bytes
)

var dumpers = sync.Pool{New: func() any { return &dumper{buf: make([]byte, 0, dumpBuffer)} }}

// Dump writes the NAR of a file, directory or symlink. Its limits are those of [Walk].
func Dump(w io.Writer, path string) error {
	d, _ := dumpers.Get().(*dumper)
	defer dumpers.Put(d)
	d.w, d.buf, d.composer = w, d.buf[:0], NewComposer()
	defer func() { d.w = nil }()

	err := Walk(path, d)
	if err == nil {
		d.buf, err = d.composer.Finish(d.buf)
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
	w        io.Writer
	buf      []byte
	composer *Composer
}

func (d *dumper) flush() error {
	_, err := d.w.Write(d.buf)
	d.buf = d.buf[:0]
	return err
}

// Node implements [Visitor].
func (d *dumper) Node(n Node) (err error) {
	if cap(d.buf)-len(d.buf) < maxNode {
		if err := d.flush(); err != nil {
			return err
		}
	}
	d.buf, err = d.composer.Append(d.buf, n)
	return err
}

// Room implements [Visitor]. Small files share the buffer, large ones are read in large pieces.
func (d *dumper) Room(most int64) ([]byte, error) {
	if int64(cap(d.buf)-len(d.buf)) < min(most, dumpBuffer) {
		if err := d.flush(); err != nil {
			return nil, err
		}
	}
	free := d.buf[len(d.buf):cap(d.buf)]
	return free[:min(most, int64(len(free)))], nil
}

// Filled implements [Visitor].
func (d *dumper) Filled(n int) error {
	d.buf = d.buf[:len(d.buf)+n]
	return nil
}
