package nix

import (
	"bytes"
	"slices"
)

// A line of more than maxLine bytes keeps headOfLine bytes of its beginning and at least
// maxLine of its end, because another program may have continued the line.
const (
	maxLine    = 1 << 20
	headOfLine = 16 << 10
)

// lineWriter calls line with each whole line. If a line is longer than maxLine, a NUL may stand
// for its middle, so that it is not parsed as JSON.
type lineWriter struct {
	line   func(string)
	partly []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		w.partly = append(w.partly, line...)
		if surplus := len(w.partly) - headOfLine - maxLine; surplus > maxLine || ended && surplus > 0 {
			w.partly = slices.Delete(w.partly, headOfLine, headOfLine+surplus)
			w.partly[headOfLine] = 0
		}
		if !ended {
			break
		}
		w.line(string(w.partly))
		w.partly = w.partly[:0]
		rest = after
	}
	return len(p), nil
}
