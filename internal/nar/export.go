package nar

import (
	"encoding/binary"
	"io"
)

// Numbers of the stream that nix-store --export writes and --import reads
// (src/libstore/export-import.cc).
const (
	RecordStart = 1          // before the NAR of each record
	RecordMagic = 0x4558494e // after it
	RecordEnd   = 0          // where older versions of Nix had a signature
	StreamEnd   = 0          // after the last record
)

// WriteRecord writes a store path to an export stream. nar writes its NAR; the deriver
// may be empty.
func WriteRecord(w io.Writer, path string, references []string, deriver string, nar func(io.Writer) error) error {
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, RecordStart)); err != nil {
		return err
	}
	if err := nar(w); err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint64(nil, RecordMagic)
	b = appendWord(b, path)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(references)))
	b = append(b, words(references...)...)
	b = appendWord(b, deriver)
	b = binary.LittleEndian.AppendUint64(b, RecordEnd)
	_, err := w.Write(b)
	return err
}

// WriteEnd writes the end of an export stream.
func WriteEnd(w io.Writer) error {
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, StreamEnd))
	return err
}
