package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/org/nix-matrix/internal/nar"
)

// A skeleton is the nodes of a NAR, in its order:
//
//	kind, one byte of f x l d e; except at the root and for e: name;
//	for l: target; for f and x: number of chunks
//
// Strings are a varint length and the bytes. The size of a file is that of its chunks
// together, so that a skeleton stays the same when files change and their number of chunks does
// not.

// appendNode appends a node. chunks is the number of chunks of a file.
func appendNode(b []byte, n nar.Node, root bool, chunks int) []byte {
	b = append(b, byte(n.Kind))
	if n.Kind != nar.End && !root {
		b = appendText(b, n.Name)
	}
	switch n.Kind {
	case nar.Symlink:
		b = appendText(b, n.Target)
	case nar.File, nar.Executable:
		b = binary.AppendUvarint(b, uint64(chunks)) //nolint:gosec // not negative
	case nar.Directory, nar.End:
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// A skeletonReader reads nodes from the bytes of a skeleton, which may be hostile.
type skeletonReader struct {
	r     *bufio.Reader
	depth int
	began bool
	buf   [4 << 10]byte
}

// next returns the next node, and the number of chunks of a file. After the last node the error is
// io.EOF, which says nothing about bytes after it.
func (s *skeletonReader) next() (n nar.Node, chunks uint64, err error) {
	if s.began && s.depth == 0 {
		return nar.Node{}, 0, io.EOF
	}
	root := !s.began
	s.began = true
	kind, err := s.r.ReadByte()
	if err != nil {
		return nar.Node{}, 0, s.corrupt(err)
	}
	n.Kind = nar.Kind(kind)
	if n.Kind != nar.End && !root {
		if n.Name, err = s.text(); err != nil {
			return nar.Node{}, 0, err
		}
	}
	switch n.Kind {
	case nar.Directory:
		s.depth++
	case nar.End:
		s.depth--
		if root {
			return nar.Node{}, 0, fmt.Errorf("%w: a skeleton without a root", ErrCorrupt)
		}
	case nar.Symlink:
		n.Target, err = s.text()
	case nar.File, nar.Executable:
		chunks, err = varints{s.r}.number()
	default:
		err = fmt.Errorf("%w: a node of the kind %q in a skeleton", ErrCorrupt, kind)
	}
	return n, chunks, err
}

func (s *skeletonReader) text() (string, error) {
	size, err := varints{s.r}.number()
	if err != nil {
		return "", err
	}
	if size > uint64(len(s.buf)) {
		return "", fmt.Errorf("%w: a name of %d bytes in a skeleton", ErrCorrupt, size)
	}
	if _, err := io.ReadFull(s.r, s.buf[:size]); err != nil {
		return "", s.corrupt(err)
	}
	return string(s.buf[:size]), nil
}

func (s *skeletonReader) corrupt(err error) error {
	if errors.Is(err, ErrRead) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: in a skeleton: %w", ErrCorrupt, unexpected(err))
}
