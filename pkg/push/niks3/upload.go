package niks3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

const (
	// Parts have 10 MiB, like those of the server's own client, or more where there would be too many
	// of them: S3 takes 10,000.
	partSize = 10 << 20
	maxParts = 9000
	// So many addresses are asked for where the server has named too few.
	moreParts = 100
)

// narError says that a NAR could not be read, or is not what the store says.
type narError struct{ err error }

func (e *narError) Error() string { return e.err.Error() }

func (e *narError) Unwrap() error { return e.err }

// uploadNAR compresses a NAR, checks it, and uploads it.
func (c *Cache) uploadNAR(ctx context.Context, key string, info *nix.PathInfo, object *pendingObject, open NAR) error {
	if object.Multipart == nil {
		var small bytes.Buffer
		if err := compressNAR(ctx, &small, info, open); err != nil {
			return err
		}
		_, err := c.put(ctx, object.Address, http.Header{"Content-Type": {"application/octet-stream"}}, small.Bytes())
		return err
	}
	parts := &partWriter{
		ctx: ctx, cache: c, key: key, id: object.Multipart.ID, addresses: object.Multipart.Parts,
		size: int(max(partSize, (info.NarSize+maxParts-1)/maxParts)),
	}
	err := compressNAR(ctx, parts, info, open)
	if err == nil {
		err = parts.finish()
	}
	if gone(err) && c.has(ctx, key) { // another client has uploaded it
		return nil
	}
	return err
}

// compressNAR writes a NAR compressed by zstd. It is an error if it is not the one in the store's database.
func compressNAR(ctx context.Context, w io.Writer, info *nix.PathInfo, open NAR) error {
	nar, err := open(ctx, info.Path)
	if err != nil {
		return &narError{fmt.Errorf("cannot open it: %w", err)}
	}
	defer nar.Close()
	encoder := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(encoder)
	encoder.Reset(w)
	source := &checkedNAR{nar: nar, hash: sha256.New(), most: info.NarSize}
	if _, err := io.Copy(encoder, source); err != nil {
		encoder.Reset(nil) // it must not write the rest
		if source.err != nil && ctx.Err() == nil {
			return &narError{fmt.Errorf("cannot read it: %w", source.err)}
		}
		return err
	}
	if source.size != info.NarSize || hex.EncodeToString(source.hash.Sum(nil)) != info.NarHash {
		encoder.Reset(nil)
		return &narError{fmt.Errorf("it is not the NAR that the store's database says. Run `nix-store --verify-path %s` to see whether the path is damaged", info.Path)}
	}
	return encoder.Close()
}

// checkedNAR hashes a NAR while it is read.
type checkedNAR struct {
	nar  io.Reader
	hash hash.Hash
	size int64
	most int64
	err  error // of reading
}

func (r *checkedNAR) Read(p []byte) (int, error) {
	n, err := r.nar.Read(p)
	r.hash.Write(p[:n])
	r.size += int64(n)
	if err == nil && r.size > r.most {
		err = errors.New("it is longer than the store's database says")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// partWriter uploads what is written to it in parts.
type partWriter struct {
	ctx       context.Context
	cache     *Cache
	key, id   string
	addresses []string
	size      int // of a part

	buffer []byte
	parts  []part
}

type part struct {
	Number int    `json:"part_number"`
	ETag   string `json:"etag"`
}

func (w *partWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if w.buffer == nil {
			w.buffer = make([]byte, 0, w.size)
		}
		n := min(len(p), w.size-len(w.buffer))
		w.buffer = append(w.buffer, p[:n]...)
		p = p[n:]
		written += n
		if len(w.buffer) == w.size {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// flush uploads a part.
func (w *partWriter) flush() error {
	if len(w.parts) == len(w.addresses) {
		if err := w.more(); err != nil {
			return err
		}
	}
	etag, err := w.cache.put(w.ctx, w.addresses[len(w.parts)], nil, w.buffer)
	if err != nil {
		return err
	}
	const longest = 200
	if etag == "" || valid.Line(etag, longest) != nil {
		return errors.New("the storage names no ETag of a part")
	}
	w.parts = append(w.parts, part{len(w.parts) + 1, etag})
	w.buffer = w.buffer[:0]
	return nil
}

// more asks for the addresses of further parts.
func (w *partWriter) more() error {
	request := struct {
		Key   string `json:"object_key"`
		ID    string `json:"upload_id"`
		Start int    `json:"start_part_number"`
		Parts int    `json:"num_parts"`
	}{w.key, w.id, len(w.parts) + 1, moreParts}
	var answer struct {
		Start     int      `json:"start_part_number"`
		Addresses []string `json:"part_urls"`
	}
	if err := w.cache.ask(w.ctx, call{method: http.MethodPost, name: "api/multipart/request-parts", json: request}, &answer); err != nil {
		return err
	}
	if answer.Start != request.Start || len(answer.Addresses) == 0 {
		return errors.New("the server names no addresses for further parts")
	}
	w.addresses = append(w.addresses, answer.Addresses...)
	return nil
}

// finish uploads the last part, and ends the upload.
func (w *partWriter) finish() error {
	if len(w.buffer) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.cache.ask(w.ctx, call{method: http.MethodPost, name: "api/multipart/complete", json: struct {
		Key   string `json:"object_key"`
		ID    string `json:"upload_id"`
		Parts []part `json:"parts"`
	}{w.key, w.id, w.parts}}, nil)
}
