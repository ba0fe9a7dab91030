package pack

import (
	"bufio"
	"fmt"
	"io"

	"github.com/nix-community/go-nix/pkg/wire"

	"github.com/org/nix-matrix/internal/nar"
)

// NARs are those of records.
type NARs interface {
	// Next passes the NAR of the next record to a visitor.
	Next(rec *Record, to nar.Visitor) error
	// End is called after the last record. It is an error if there are more.
	End() error
}

// FromExport returns the NARs of an export stream.
func FromExport(export io.Reader) NARs { return fromExport{bufio.NewReaderSize(export, 1<<20)} }

type fromExport struct{ r *bufio.Reader }

func (s fromExport) Next(rec *Record, to nar.Visitor) error {
	if err := s.next(rec, to); err != nil {
		return fmt.Errorf("cannot read the export stream: %w", unexpected(err))
	}
	return nil
}

func (s fromExport) next(rec *Record, to nar.Visitor) error {
	start, err := wire.ReadUint64(s.r)
	if err != nil {
		return err
	}
	if start != nar.RecordStart {
		return fmt.Errorf("%#x where a record should start", start)
	}
	if err := nar.Visit(s.r, to); err != nil {
		return err
	}
	var trailer Record
	if err := trailer.readTrailer(s.r); err != nil {
		return err
	}
	if trailer.Path != rec.Path {
		return fmt.Errorf("%s where %s should be", trailer.Path, rec.Path)
	}
	return nil
}

func (s fromExport) End() error {
	end, err := wire.ReadUint64(s.r)
	if err == nil && end != nar.StreamEnd {
		err = fmt.Errorf("%#x after the last record", end)
	}
	if err != nil {
		return fmt.Errorf("cannot read the export stream: %w", unexpected(err))
	}
	return nil
}
