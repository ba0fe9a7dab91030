package nar

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// A Node is a part of a NAR: a file, a symlink, or the beginning or the end of a directory. The
// nodes of a NAR, in its order, determine it up to the contents of its files.
type Node struct {
	Kind   Kind
	Name   string // in its directory; empty for the root and the end of a directory
	Target string // of a symlink
	Size   int64  // of a file, bytes
}

// A Kind is the kind of a [Node].
type Kind byte

// The kinds of nodes. A directory contains the nodes up to its End.
const (
	File       Kind = 'f'
	Executable Kind = 'x'
	Symlink    Kind = 'l'
	Directory  Kind = 'd'
	End        Kind = 'e'
)

// A Visitor receives the nodes of a NAR, and after each file its contents.
type Visitor interface {
	Node(n Node) error
	// Room returns memory for the next bytes of the last file, at least one and at most the
	// given number, which are left.
	Room(most int64) ([]byte, error)
	// Filled says that the first n bytes of the room have contents.
	Filled(n int) error
}

// Visit reads a NAR, and nothing after it, and passes its nodes to a visitor. The buffer of r must
// have at least [MinBuffer] bytes.
func Visit(r *bufio.Reader, to Visitor) error {
	p := parser{r: r, to: visited{to}, left: math.MaxInt64}
	return p.archive("")
}

type visited struct{ to Visitor }

func (v visited) directory(name string) error { return v.to.Node(Node{Kind: Directory, Name: name}) }
func (v visited) leave() error                { return v.to.Node(Node{Kind: End}) }
func (v visited) fileEnd() error              { return nil }

func (v visited) contents(p []byte) error {
	for len(p) > 0 {
		room, err := v.to.Room(int64(len(p)))
		if err != nil {
			return err
		}
		n := copy(room, p)
		if err := v.to.Filled(n); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (v visited) symlink(name, target string) error {
	return v.to.Node(Node{Kind: Symlink, Name: name, Target: target})
}

func (v visited) file(name string, executable bool, size int64) error {
	kind := File
	if executable {
		kind = Executable
	}
	return v.to.Node(Node{Kind: kind, Name: name, Size: size})
}

// A Composer makes the bytes of a NAR between the contents of its files, from its nodes. It
// refuses nodes that are not those of a NAR.
type Composer struct {
	names []string // the last name in each open directory
	path  int      // length of the path of the open directories below the root
	open  int64    // size of the file whose contents come next, or -1
	began bool
	done  bool
}

// NewComposer returns a composer of one NAR.
func NewComposer() *Composer { return &Composer{open: -1} }

// Append appends the bytes from the end of the last contents to the beginning of those of the
// node, if it is a file, else to the end of the node.
func (c *Composer) Append(b []byte, n Node) ([]byte, error) {
	if !c.began {
		c.began = true
		b = append(b, wMagic...)
	}
	b = c.closeFile(b)
	if c.done {
		return nil, fmt.Errorf("%w: a node after the last", ErrMalformed)
	}
	if n.Kind == End {
		return c.leave(b)
	}
	b, err := c.enter(b, n.Name)
	if err != nil {
		return nil, err
	}
	b = append(b, wNode...)
	switch n.Kind {
	case File, Executable:
		b = append(b, wRegular...)
		if n.Kind == Executable {
			b = append(b, wExecutable...)
		}
		if n.Size < 0 {
			return nil, fmt.Errorf("%w: a file of %d bytes", ErrMalformed, n.Size)
		}
		c.open = n.Size
		b = append(b, wContents...)
		return binary.LittleEndian.AppendUint64(b, uint64(n.Size)), nil
	case Directory:
		if len(c.names) == maxDepth {
			return nil, fmt.Errorf("%w: %d nested directories", ErrMalformed, maxDepth+1)
		}
		c.names = append(c.names, "")
		return append(b, wDirectory...), nil
	case Symlink:
		if n.Target == "" || len(n.Target) > maxTarget || strings.IndexByte(n.Target, 0) >= 0 {
			return nil, fmt.Errorf("%w: a symlink to %q", ErrMalformed, n.Target)
		}
		b = appendWord(append(b, wSymlink...), n.Target)
		return c.end(append(b, wEnd...)), nil
	case End:
	}
	return nil, fmt.Errorf("%w: a node of the kind %q", ErrMalformed, n.Kind)
}

// Finish appends the bytes after the contents of the last file. It is an error if nodes are missing.
func (c *Composer) Finish(b []byte) ([]byte, error) {
	b = c.closeFile(b)
	if !c.done {
		return nil, fmt.Errorf("%w: it ends before its last node", ErrMalformed)
	}
	return b, nil
}

// enter appends the beginning of a directory's entry.
func (c *Composer) enter(b []byte, name string) ([]byte, error) {
	depth := len(c.names)
	if depth == 0 {
		if name != "" {
			return nil, fmt.Errorf("%w: a root named %q", ErrMalformed, name)
		}
		return b, nil
	}
	switch {
	case name == "" || len(name) > maxName || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return nil, fmt.Errorf("%w: an entry named %q", ErrMalformed, name)
	case name <= c.names[depth-1]:
		return nil, fmt.Errorf("%w: %q after %q", ErrMalformed, name, c.names[depth-1])
	}
	c.names[depth-1] = name
	c.path += 1 + len(name)
	if c.path > maxPath {
		return nil, fmt.Errorf("%w: a path of %d bytes", ErrMalformed, c.path)
	}
	return append(appendWord(append(b, wEntry...), name), wNodeStart...), nil
}

func (c *Composer) leave(b []byte) ([]byte, error) {
	depth := len(c.names)
	if depth == 0 {
		return nil, fmt.Errorf("%w: the end of a directory that did not begin", ErrMalformed)
	}
	c.names = c.names[:depth-1]
	return c.end(append(b, wEnd...)), nil
}

// end appends the end of the entry of a node that is complete.
func (c *Composer) end(b []byte) []byte {
	depth := len(c.names)
	if depth == 0 {
		c.done = true
		return b
	}
	c.path -= 1 + len(c.names[depth-1])
	return append(b, wEnd...)
}

// closeFile appends the end of the file whose contents were the last.
func (c *Composer) closeFile(b []byte) []byte {
	if c.open < 0 {
		return b
	}
	b = append(b, zeros[:padding(uint64(c.open))]...)
	c.open = -1
	return c.end(append(b, wEnd...))
}
