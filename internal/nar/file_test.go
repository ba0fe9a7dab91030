package nar

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// The content of a file is the same in whatever pieces its NAR is read.
func TestTeeFile(t *testing.T) {
	for _, content := range []string{"", "1", "12345678", strings.Repeat("123", 100_000)} {
		whole := archive(file(content))
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"as it is": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "halves": iotest.HalfReader, "with its end": iotest.DataErrReader,
		} {
			var got bytes.Buffer
			data, err := io.ReadAll(TeeFile(wrap(strings.NewReader(whole)), int64(len(whole)), &got))
			must(t, err)
			if string(data) != whole || got.String() != content {
				t.Errorf("%s: %d bytes of a NAR of %d, and %d of a file of %d", name, len(data), len(whole), got.Len(), len(content))
			}
		}
	}
	boom := errors.New("boom")
	whole := archive(file("content"))
	if _, err := io.ReadAll(TeeFile(io.MultiReader(strings.NewReader(whole[:90]), iotest.ErrReader(boom)), int64(len(whole)), io.Discard)); !errors.Is(err, boom) {
		t.Error(err)
	}
}

// The reader never returns the whole of a NAR that has more than the content of a file.
func TestTeeFileOfSomethingElse(t *testing.T) {
	whole := archive(file("content"))
	end := len(whole) - len(wEnd)
	for name, data := range map[string]string{
		"a program": archive(program("content")), "a link": archive(link("content")), "a directory": archive(dir(entry("a", file("content")))),
		"padding": whole[:end-1] + "x" + whole[end:], "more": whole + "more....", "no end": whole[:end] + strings.Repeat("\x00", len(wEnd)),
		"a shorter length": strings.Replace(whole, "\x07\x00\x00\x00\x00\x00\x00\x00content", "\x03\x00\x00\x00\x00\x00\x00\x00content", 1),
		"a longer length":  strings.Replace(whole, "\x07\x00\x00\x00\x00\x00\x00\x00content", "\x0f\x00\x00\x00\x00\x00\x00\x00content", 1),
		"a huge length":    archive("") + words("(", "type", "regular", "contents") + strings.Repeat("\xff", 8) + whole[end:],
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			got, err := io.ReadAll(TeeFile(wrap(strings.NewReader(data)), int64(len(data)), io.Discard))
			if !errors.Is(err, ErrMalformed) || len(got) >= len(data) {
				t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(data), err)
			}
		}
	}
}
