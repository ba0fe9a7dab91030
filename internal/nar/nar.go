// Package nar reads and writes NARs, the archives that Nix makes of store paths, in the
// format of src/libutil/archive.cc. It accepts only what Nix writes, so that a path has only one
// NAR. A NAR may be hostile.
package nar

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// ErrMalformed is wrapped by errors about the format of a NAR.
var ErrMalformed = errors.New("malformed NAR")

const (
	maxName   = 255  // bytes; NAME_MAX
	maxTarget = 4095 // of a symlink; PATH_MAX without the NUL

	maxDepth = 256 // of directories; newer versions of Nix accept 64

	// maxPath is the longest path below the root, so that Nix, which uses whole paths,
	// can open it.
	maxPath = 4096 - 256

	// MinBuffer is the smallest buffer of a reader, in bytes.
	MinBuffer = 4 << 10
)

// words encodes strings as in a NAR: length, bytes, zeros up to a multiple of 8.
func words(all ...string) string {
	var b []byte
	for _, s := range all {
		b = appendWord(b, s)
	}
	return string(b)
}

func appendWord(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	b = append(b, s...)
	return append(b, zeros[:padding(uint64(len(s)))]...)
}

var (
	zeros [8]byte

	wMagic      = words("nix-archive-1")
	wNode       = words("(", "type")
	wRegular    = words("regular")
	wExecutable = words("executable", "")
	wContents   = words("contents")
	wDirectory  = words("directory")
	wEntry      = words("entry", "(", "name")
	wNodeStart  = words("node")
	wSymlink    = words("symlink", "target")
	wEnd        = words(")")
)

func padding(size uint64) uint64 { return -size % 8 }

// A tree receives the nodes of a NAR, in its order.
type tree interface {
	directory(name string) error // contains the nodes up to its leave
	leave() error
	symlink(name, target string) error
	file(name string, executable bool, size int64) error
	contents(p []byte) error // part of the last file; it must not keep p
	fileEnd() error
}

// A parser reads exactly the bytes of a NAR from r.
type parser struct {
	r    *bufio.Reader
	to   tree
	tee  io.Writer // gets all bytes, unless it is nil
	left int64     // bytes that the NAR may still have
	at   int64     // bytes that were read

	depth int // directories around the current node
	path  int // length of its path below the root
}

// Copy reads a NAR, and nothing after it, and writes it to w in many pieces. The
// buffer of r must have at least [MinBuffer] bytes.
func Copy(w io.Writer, r *bufio.Reader) error {
	p := parser{r: r, to: nowhere{}, tee: w, left: math.MaxInt64}
	return p.archive("")
}

// Content returns the content of a file from its NAR.
func Content(data []byte) ([]byte, error) {
	var one single
	if err := parseAll(bufio.NewReaderSize(bytes.NewReader(data), MinBuffer), int64(len(data)), "", &one); err != nil {
		return nil, err
	}
	if !one.is {
		return nil, fmt.Errorf("%w: not that of a file", ErrMalformed)
	}
	return one.data, nil
}

// parseAll reads a NAR of size bytes. It is an error if r has more.
func parseAll(r *bufio.Reader, size int64, name string, to tree) error {
	p := parser{r: r, to: to, left: size}
	if err := p.archive(name); err != nil {
		return err
	}
	if _, err := r.Peek(1); err == nil || p.left > 0 {
		return p.malformed("end of the NAR before the last %d bytes", max(p.left, int64(r.Buffered())))
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// archive reads a NAR whose root has that name.
func (p *parser) archive(name string) error {
	if p.r.Size() < MinBuffer {
		return fmt.Errorf("cannot read a NAR: the buffer of %d bytes is too small", p.r.Size())
	}
	if err := p.expect(wMagic); err != nil {
		return err
	}
	return p.node(name)
}

func (p *parser) malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s, at byte %d", ErrMalformed, fmt.Sprintf(format, args...), p.at)
}

// peek returns the next n bytes, which are valid until the next call.
func (p *parser) peek(n int) ([]byte, error) {
	if int64(n) > p.left {
		return nil, p.malformed("%d more bytes where %d are left", n, p.left)
	}
	data, err := p.r.Peek(n)
	return data, unexpected(err)
}

// take reads the next n bytes, which are valid until the next call.
func (p *parser) take(n int) ([]byte, error) {
	data, err := p.peek(n)
	if err != nil {
		return nil, err
	}
	if p.tee != nil {
		if _, err := p.tee.Write(data); err != nil {
			return nil, err
		}
	}
	_, err = p.r.Discard(n)
	p.left -= int64(n)
	p.at += int64(n)
	return data, err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// expect reads words and returns an error unless they are the wanted ones.
func (p *parser) expect(want string) error {
	got, err := p.take(len(want))
	if err != nil {
		return err
	}
	if string(got) != want {
		return p.malformed("%q instead of %q", got, want)
	}
	return nil
}

// found reads words if they are the wanted ones. A valid NAR must have at least as many bytes
// left.
func (p *parser) found(want string) (bool, error) {
	got, err := p.peek(len(want))
	if err != nil || string(got) != want {
		return false, err
	}
	return true, p.expect(want)
}

func (p *parser) number() (uint64, error) {
	data, err := p.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(data), nil
}

func (p *parser) text(limit uint64) (string, error) {
	size, err := p.number()
	if err != nil {
		return "", err
	}
	if size == 0 || size > limit {
		return "", p.malformed("a string of %d bytes", size)
	}
	data, err := p.take(int(size + padding(size))) //nolint:gosec // below the limit
	if err != nil {
		return "", err
	}
	data, pad := data[:size], data[size:]
	if !bytes.Equal(pad, zeros[:len(pad)]) {
		return "", p.malformed("a padding that is not zero")
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return "", p.malformed("%q", data)
	}
	return string(data), nil
}

func (p *parser) node(name string) error {
	if err := p.expect(wNode); err != nil {
		return err
	}
	if ok, err := p.found(wRegular); err != nil {
		return err
	} else if ok {
		return p.regular(name)
	}
	if ok, err := p.found(wDirectory); err != nil {
		return err
	} else if ok {
		return p.directory(name)
	}
	if err := p.expect(wSymlink); err != nil {
		return err
	}
	return p.symlink(name)
}

func (p *parser) symlink(name string) error {
	target, err := p.text(maxTarget)
	if err != nil {
		return err
	}
	if err := p.expect(wEnd); err != nil {
		return err
	}
	return p.to.symlink(name, target)
}

func (p *parser) regular(name string) error {
	executable, err := p.found(wExecutable)
	if err != nil {
		return err
	}
	if err := p.expect(wContents); err != nil {
		return err
	}
	size, err := p.number()
	if err != nil {
		return err
	}
	if size > math.MaxInt64 || int64(size) > p.left {
		return p.malformed("a file of %d bytes where %d are left", size, p.left)
	}
	if err := p.to.file(name, executable, int64(size)); err != nil {
		return err
	}
	for left := size; left > 0; {
		if p.r.Buffered() == 0 {
			if _, err := p.peek(1); err != nil { // fills the buffer with one read
				return err
			}
		}
		data, err := p.take(int(min(left, uint64(p.r.Buffered())))) //nolint:gosec // at most the buffer
		if err != nil {
			return err
		}
		if err := p.to.contents(data); err != nil {
			return err
		}
		left -= uint64(len(data))
	}
	if err := p.expect(string(zeros[:padding(size)]) + wEnd); err != nil {
		return err
	}
	return p.to.fileEnd()
}

func (p *parser) directory(name string) error {
	if p.depth == maxDepth {
		return p.malformed("%d nested directories", p.depth+1)
	}
	p.depth++
	if err := p.to.directory(name); err != nil {
		return err
	}
	before := ""
	for {
		if ok, err := p.found(wEnd); err != nil {
			return err
		} else if ok {
			p.depth--
			return p.to.leave()
		}
		if err := p.expect(wEntry); err != nil {
			return err
		}
		entry, err := p.text(maxName)
		if err != nil {
			return err
		}
		if entry == "." || entry == ".." || strings.Contains(entry, "/") {
			return p.malformed("an entry named %q", entry)
		}
		if entry <= before {
			return p.malformed("%q after %q", entry, before)
		}
		before = entry
		p.path += 1 + len(entry)
		if p.path > maxPath {
			return p.malformed("a path of %d bytes", p.path)
		}
		if err := p.expect(wNodeStart); err != nil {
			return err
		}
		if err := p.node(entry); err != nil {
			return err
		}
		if err := p.expect(wEnd); err != nil {
			return err
		}
		p.path -= 1 + len(entry)
	}
}

// nowhere is a tree that drops all nodes.
type nowhere struct{}

func (nowhere) directory(string) error         { return nil }
func (nowhere) leave() error                   { return nil }
func (nowhere) symlink(string, string) error   { return nil }
func (nowhere) file(string, bool, int64) error { return nil }
func (nowhere) contents([]byte) error          { return nil }
func (nowhere) fileEnd() error                 { return nil }

// single is a tree that keeps the content of the root if that is a file.
type single struct {
	nowhere
	is   bool
	data []byte
}

func (s *single) file(name string, _ bool, _ int64) error {
	s.is = name == ""
	return nil
}

func (s *single) contents(p []byte) error {
	if s.is {
		s.data = append(s.data, p...)
	}
	return nil
}
