package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
)

// IndexGuess is how many bytes at the end of a pack [ReadIndex] reads first, which is enough for most packs.
const IndexGuess = 256 << 10

// ReadIndex reads the index of a pack. sum is the index's SHA-256 in hex as
// [Write] returned it; with an empty sum the index is not checked. If the pack is sealed
// with another key, or sealed and key is nil, or not sealed and key is not, the error
// wraps [ErrKey].
func ReadIndex(ctx context.Context, src Source, sum string, key *Key) (*Index, error) {
	size := src.Size()
	tail, err := readRange(ctx, src, max(0, size-IndexGuess), min(size, IndexGuess))
	if err != nil {
		return nil, fmt.Errorf("%w: at its end: %w", ErrRead, err)
	}
	return readIndexIn(ctx, src, tail, sum, key)
}

// ReadTail reads the last bytes of a pack at once, and the index in them like ReadIndex. Ranges of the
// returned source that lie in these bytes need no other read.
func ReadTail(ctx context.Context, src Source, bytes int64, sum string, key *Key) (*Index, Source, error) {
	size := src.Size()
	if bytes <= 0 || bytes > maxIndex || bytes > size {
		return nil, nil, fmt.Errorf("%w: it has %d bytes, and its tables should have %d", ErrCorrupt, size, bytes)
	}
	tail, err := readRange(ctx, src, size-bytes, bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: at its end: %w", ErrRead, err)
	}
	ix, err := readIndexIn(ctx, src, tail, sum, key)
	return ix, &tailSource{src, tail}, err
}

type tailSource struct {
	Source
	tail []byte
}

// Range implements Source.
func (t *tailSource) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if start := t.Size() - int64(len(t.tail)); offset >= start {
		return io.NopCloser(io.NewSectionReader(bytes.NewReader(t.tail), offset-start, length)), nil
	}
	return t.Source.Range(ctx, offset, length)
}

// readIndexIn reads the index of a pack that ends with tail.
func readIndexIn(ctx context.Context, src Source, tail []byte, sum string, key *Key) (*Index, error) {
	size := src.Size()
	var err error
	magic, isSealed := "", false
	if len(tail) >= trailerSize {
		magic = string(tail[len(tail)-len(trailerMagic):])
		isSealed = magic == sealedMagic
	}
	switch {
	case magic != trailerMagic && !isSealed:
		return nil, fmt.Errorf("%w: it has no index at its end", ErrCorrupt)
	case key != nil && !isSealed:
		return nil, fmt.Errorf("%w: the pack is not sealed, but a key is given. Set encryption_key in all jobs or in none", ErrKey)
	}
	length := binary.LittleEndian.Uint64(tail[len(tail)-trailerSize:])
	start := size - int64(trailerSize) - int64(length) //nolint:gosec // checked below
	if length > maxIndex || start < 8 {
		return nil, fmt.Errorf("%w: the length of its index is %d", ErrCorrupt, length)
	}
	var data []byte
	if have := len(tail) - trailerSize; int(length) <= have {
		data = tail[have-int(length) : have]
	} else if data, err = readRange(ctx, src, start, int64(length)); err != nil {
		return nil, fmt.Errorf("%w: at its index: %w", ErrRead, err)
	}
	end := start - skippableHead
	var opens *seal
	var salted []byte
	if isSealed {
		end = start
		sealed := data
		if opens, data, err = key.openIndex(data); err != nil {
			return nil, err
		}
		salted = sealed[len(keyID{}):sealedHead:sealedHead]
	}
	got := hexSum(data)
	if sum != "" && got != sum {
		return nil, fmt.Errorf("%w: its index has the hash %s instead of %s", ErrCorrupt, got, sum)
	}
	ix, err := parseIndex(data, end)
	if err != nil {
		return nil, err
	}
	ix.sum, ix.tail = got, size-end
	if ix.seal = opens; opens != nil {
		ix.salt = salted
	}
	return ix, nil
}

// indexFrame is the frame number of a sealed index.
const indexFrame = math.MaxUint64

// sealedHead is the size of the head of a sealed index: key ID, salt.
const sealedHead = len(keyID{}) + len(salt{})

// openIndex decrypts the index of a sealed pack. It returns the seal of its frames, too.
func (k *Key) openIndex(data []byte) (*seal, []byte, error) {
	if len(data) < sealedHead {
		return nil, nil, fmt.Errorf("%w: the length of its index is %d", ErrCorrupt, len(data))
	}
	if err := k.fits("pack", data); err != nil {
		return nil, nil, err
	}
	opens := k.derive("pack", salt(data[len(keyID{}):]))
	plain, err := opens.aead.Open(nil, nonce(indexFrame, 0, true), data[sealedHead:], nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its index was changed after it was sealed", ErrCorrupt)
	}
	return &opens, plain, nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readRange(ctx context.Context, src Source, offset, length int64) (data []byte, err error) {
	r, err := src.Range(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := r.Close(); err == nil {
			err = cerr
		}
	}()
	data = make([]byte, length)
	_, err = io.ReadFull(r, data)
	return data, err
}
