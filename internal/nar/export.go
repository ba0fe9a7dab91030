package nar

import (
	"encoding/binary"
	"io"
)

// Numbers of the stream that nix-store --export writes and --import reads
// (src/libstore/export-import.cc).
const (
	recordStart = 1
	recordMagic = 0x4558494e
	recordEnd   = 0 // where older versions of Nix had a signature
	streamEnd   = 0
)

// WriteRecord writes a store path to an export stream. nar writes its NAR; the deriver
// may be empty.
func WriteRecord(w io.Writer, path string, references []string, deriver string, nar func(io.Writer) error) error {
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, recordStart)); err != nil {
		return err
	}
	if err := nar(w); err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint64(nil, recordMagic)
	b = append(b, words(path)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(references)))
	b = append(b, words(references...)...)
	b = append(b, words(deriver)...)
	b = binary.LittleEndian.AppendUint64(b, recordEnd)
	_, err := w.Write(b)
	return err
}

// WriteEnd writes what follows the last path of an export stream.
func WriteEnd(w io.Writer) error {
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, streamEnd))
	return err
}
