package nar

import (
	"bufio"
	"io"
)

// recompose composes a NAR from the nodes of another.
func recompose(w io.Writer, r *bufio.Reader) error {
	c := &copier{w: w, c: NewComposer()}
	if err := Visit(r, c); err != nil {
		return err
	}
	b, err := c.c.Finish(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

type copier struct {
	w    io.Writer
	c    *Composer
	buf  []byte
	room []byte
}

func (c *copier) Node(n Node) (err error) {
	if c.buf, err = c.c.Append(c.buf[:0], n); err != nil {
		return err
	}
	_, err = c.w.Write(c.buf)
	return err
}

func (c *copier) Room(most int64) ([]byte, error) {
	c.room = make([]byte, min(most, 7))
	return c.room, nil
}

func (c *copier) Filled(n int) error {
	_, err := c.w.Write(c.room[:n])
	return err
}
