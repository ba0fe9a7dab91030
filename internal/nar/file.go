package nar

import (
	"encoding/binary"
	"io"
	"math"
)

// TeeFile returns a reader of r, the NAR of a file with size bytes, that writes the file's
// content to w. It fails with [ErrMalformed] before the last byte unless the NAR is that of a
// regular file that is not executable, so that a hash of the content covers the whole NAR.
func TeeFile(r io.Reader, size int64, w io.Writer) io.Reader {
	return &fileReader{r: r, size: size, to: w}
}

type fileReader struct {
	r    io.Reader
	size int64
	to   io.Writer

	at      int64 // in the NAR
	head    []byte
	content int64 // the end of the content
	tail    string
}

var wFile = wMagic + wNode + wRegular + wContents

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err := f.consume(p[:n]); err != nil {
		return 0, err
	}
	return n, err
}

// consume parses the next bytes of the NAR.
func (f *fileReader) consume(p []byte) error {
	for len(p) > 0 {
		var n int
		switch {
		case f.content == 0:
			n = min(len(p), len(wFile)+8-len(f.head))
			f.head = append(f.head, p[:n]...)
			if len(f.head) == len(wFile)+8 {
				if err := f.begin(); err != nil {
					return err
				}
			}
		case f.at < f.content:
			n = int(min(int64(len(p)), f.content-f.at))
			if _, err := f.to.Write(p[:n]); err != nil {
				return err
			}
		default:
			n = min(len(p), len(f.tail))
			if n == 0 || string(p[:n]) != f.tail[:n] {
				return f.malformed()
			}
			f.tail = f.tail[n:]
		}
		f.at += int64(n)
		p = p[n:]
	}
	return nil
}

// begin parses the bytes before the content.
func (f *fileReader) begin() error {
	length := binary.LittleEndian.Uint64(f.head[len(wFile):])
	if string(f.head[:len(wFile)]) != wFile || length > math.MaxInt64/2 {
		return f.malformed()
	}
	f.content = int64(len(f.head)) + int64(length)
	f.tail = string(zeros[:padding(length)]) + wEnd
	if f.content+int64(len(f.tail)) != f.size {
		return f.malformed()
	}
	return nil
}

func (f *fileReader) malformed() error {
	p := parser{at: f.at}
	return p.malformed("something other than a file that is not executable")
}
