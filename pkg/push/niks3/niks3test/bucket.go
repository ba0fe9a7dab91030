package niks3test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// storageError answers as S3 does.
func storageError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

// put takes an object, or a part of one.
func (s *Server) put(w http.ResponseWriter, r *http.Request) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	key := r.PathValue("key")
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[r.URL.Query().Get("X-Amz-Signature")]
	if u == nil || u.key != key {
		storageError(w, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature does not match.")
		return nil
	}
	sum := md5.Sum(data)
	etag := hex.EncodeToString(sum[:])
	if u.id == "" {
		if err := s.check(u, r.Header, data); err != nil {
			storageError(w, http.StatusBadRequest, "BadObject", err.Error())
			return nil
		}
		if err := s.keep(u, data); err != nil {
			return err
		}
	} else {
		if s.parts[u.id] == nil {
			storageError(w, http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist.")
			return nil
		}
		if err := os.WriteFile(s.partFile(u.id, u.number), data, 0o600); err != nil {
			return err
		}
		s.parts[u.id][u.number] = etag
	}
	w.Header().Set("ETag", `"`+etag+`"`)
	return nil
}

func (s *Server) partFile(id string, number int) string {
	return filepath.Join(s.options.Dir, fmt.Sprintf("part-%s-%d", id, number))
}

// check returns an error if an object is not what its key says.
func (s *Server) check(u *upload, header http.Header, data []byte) error {
	reader, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer reader.Close()
	contents, err := io.ReadAll(reader)
	if err != nil {
		return fmt.Errorf("%s: %w", u.key, err)
	}
	if narPattern.MatchString(u.key) {
		sum := sha256.Sum256(contents)
		switch {
		case header != nil && header.Get("Content-Encoding") != "":
			return fmt.Errorf("%s has a content encoding", u.key)
		case "nar/"+nixbase32.EncodeToString(sum[:])+".nar.zst" != u.key, int64(len(contents)) != *u.closure.objects[u.key].NarSize:
			return fmt.Errorf("%s is another NAR", u.key)
		}
		return nil
	}
	info, err := narinfo.Parse(bytes.NewReader(contents))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", u.key, err)
	case header.Get("Content-Encoding") != "zstd":
		return fmt.Errorf("%s has not the content encoding zstd", u.key)
	case narinfoKey(info.StorePath) != u.key, !slices.Contains(u.closure.objects[u.key].Refs, info.URL):
		return fmt.Errorf("%s is of %s with the NAR %s", u.key, info.StorePath, info.URL)
	}
	for _, signed := range info.Signatures {
		if signed.Name == s.public.Name && signed.String() == u.closure.signed[u.key] && s.public.Verify(info.Fingerprint(), signed) {
			return nil
		}
	}
	return fmt.Errorf("%s lacks the server's signature", u.key)
}

// completeMultipart puts the parts of an upload together.
func (s *Server) completeMultipart(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Key   string `json:"object_key"`
		ID    string `json:"upload_id"`
		Parts []struct {
			Number int    `json:"part_number"`
			ETag   string `json:"etag"`
		} `json:"parts"`
	}
	if err := decode(r, &request); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.ofUpload(request.Key, request.ID)
	if err != nil {
		return err
	}
	var all []byte
	for i, p := range request.Parts {
		if p.Number != i+1 || s.parts[request.ID][p.Number] != p.ETag {
			return bad("part %d is not the one that was uploaded", p.Number)
		}
		data, err := os.ReadFile(s.partFile(request.ID, p.Number))
		if err != nil {
			return err
		}
		const least = 5 << 20 // of S3, for all but the last
		if i < len(request.Parts)-1 && len(data) < least {
			return bad("part %d is smaller than S3 takes", p.Number)
		}
		all = append(all, data...)
	}
	u := &upload{closure: c, key: request.Key}
	if err := s.check(u, nil, all); err != nil {
		return bad("%v", err)
	}
	delete(s.parts, request.ID)
	if err := s.keep(u, all); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Take puts the NAR of a path into the bucket, as another client does whose upload ends first: the others'
// uploads of it end with 404.
func (s *Server) Take(narKey string, compressed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uploads {
		if u.key == narKey && u.id != "" {
			delete(s.parts, u.id)
			return s.keep(&upload{closure: u.closure, key: narKey}, compressed)
		}
	}
	return fmt.Errorf("nobody uploads %s", path.Base(narKey))
}
