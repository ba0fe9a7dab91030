package pack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// CompressJSON returns a value as zstd(JSON).
func CompressJSON(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(data, nil), nil
}

// DecompressJSON decodes the result of CompressJSON. It reads at most limit bytes of JSON. If
// the data is invalid, the error wraps [ErrCorrupt].
func DecompressJSON(data []byte, limit int64, v any) error {
	dec, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderConcurrency(1)) //nolint:gosec // a constant
	if err != nil {
		return err
	}
	defer dec.Close()
	if err := json.NewDecoder(io.LimitReader(dec, limit)).Decode(v); err != nil {
		return fmt.Errorf("%w: cannot read the index: %w", ErrCorrupt, err)
	}
	return nil
}
