package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// nar answers with a NAR, or with a range of it.
func (s *Server) nar(w http.ResponseWriter, r *http.Request, hash, narHash string) {
	ctx := r.Context()
	info, err := s.Store.Find(ctx, hash)
	if err != nil || !hasHash(&info, narHash) {
		http.NotFound(w, r)
		return
	}
	first, length, ok := part(r.Header.Get("Range"), info.NarSize)
	if !ok {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", info.NarSize))
		http.Error(w, "no such range", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if first > 0 && s.isBroken(r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	body := io.NopCloser(strings.NewReader(""))
	var head []byte
	if r.Method == http.MethodGet {
		select {
		case s.nars <- struct{}{}:
			defer func() { <-s.nars }()
		case <-ctx.Done():
			return
		}
		s.Store.Prefetch(hash)
		if body, head, err = s.open(ctx, hash, narHash, first, length); err != nil {
			http.NotFound(w, r)
			return
		}
		defer body.Close()
	}
	header := w.Header()
	header.Set("Content-Type", "application/x-nix-nar")
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	header.Set("Accept-Ranges", "bytes")
	status := http.StatusOK
	if length != info.NarSize {
		status = http.StatusPartialContent
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+length-1, info.NarSize))
	}
	s.extend(w)
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if err := s.send(w, head, body, length); err != nil {
		var gone *clientError
		if ctx.Err() == nil && !errors.As(err, &gone) {
			s.breakOff(r.URL.Path)
		}
		panic(http.ErrAbortHandler) // so that the client does not take it for the whole
	}
	if first+length == info.NarSize {
		s.paths.Add(1)
	}
}

var errOther = errors.New("the path has another NAR")

// open opens a NAR and reads the first bytes of a range of it.
func (s *Server) open(ctx context.Context, hash, narHash string, first, length int64) (io.ReadCloser, []byte, error) {
	var errs []error
	for range tries {
		info, body, err := s.Store.Open(ctx, hash)
		if err != nil {
			return nil, nil, errors.Join(append(errs, err)...)
		}
		if !hasHash(&info, narHash) || first+length > info.NarSize {
			return nil, nil, errors.Join(errOther, body.Close())
		}
		head := make([]byte, min(length, headSize))
		if _, err = io.CopyN(io.Discard, body, first); err == nil {
			if _, err = io.ReadFull(body, head); err == nil {
				return body, head, nil
			}
		}
		errs = append(errs, err, body.Close())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

// A clientError is the end of a connection, or that of the time in which a client accepts nothing.
type clientError struct{ err error }

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// breakOff notes that a NAR broke off.
func (s *Server) breakOff(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil || len(s.broken) >= maxBroken {
		s.broken = map[string]bool{}
	}
	s.broken[path] = true
}

func (s *Server) isBroken(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken[path]
}

// send sends the first bytes of a range, and the rest of its length.
func (s *Server) send(w http.ResponseWriter, head []byte, body io.Reader, length int64) error {
	buf := make([]byte, pieceSize)
	for piece := head; ; {
		for len(piece) > 0 {
			s.extend(w)
			n, err := w.Write(piece[:min(len(piece), pieceSize)]) //nolint:gosec // no browser shows a NAR
			s.bytes.Add(int64(n))
			if err != nil {
				return &clientError{err}
			}
			piece = piece[n:]
			length -= int64(n)
		}
		if length == 0 {
			return nil
		}
		// The body has a node or a chunk at a time, many of which are smaller than a packet.
		n, err := io.ReadFull(body, buf[:min(length, pieceSize)])
		if piece = buf[:n]; err != nil {
			return fmt.Errorf("the NAR ends before its last %d bytes: %w", length, err)
		}
	}
}

// part returns the range of bytes that a header asks for. One of several ranges, or of another unit, is all
// of it. ok is false if there are no such bytes.
func part(header string, size int64) (first, length int64, ok bool) {
	text, isRange := strings.CutPrefix(header, "bytes=")
	from, to, isPair := strings.Cut(text, "-")
	if !isRange || !isPair || strings.Contains(to, ",") {
		return 0, size, true
	}
	last := size - 1
	if to != "" {
		n, err := strconv.ParseUint(to, 10, 63)
		if err != nil {
			return 0, size, true
		}
		if from == "" { // the last bytes
			length = min(int64(n), size)
			return size - length, length, length > 0
		}
		last = min(last, int64(n))
	}
	n, err := strconv.ParseUint(from, 10, 63)
	if err != nil {
		return 0, size, true
	}
	first = int64(n)
	return first, last - first + 1, first < size && first <= last
}

// hasHash reports whether a path's NAR has a hash in base 32.
func hasHash(info *nix.PathInfo, narHash string) bool {
	text, err := base32(info.NarHash)
	return err == nil && text == narHash
}
