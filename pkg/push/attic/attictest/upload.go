package attictest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

func (s *Server) uploadPath(w http.ResponseWriter, r *http.Request, n int) error {
	var fault Fault
	if s.options.Fault != nil {
		fault = s.options.Fault(n)
	}
	if fault.Expire {
		s.Expire()
	}
	if !fault.Taken && (fault.Status != 0 || fault.Drop || fault.Stall) {
		_, _ = io.CopyN(io.Discard, r.Body, fault.At)
		return s.fail(w, fault)
	}
	upload, err := s.take(r)
	time.Sleep(fault.Late)
	switch {
	case err != nil:
		return err
	case fault.Taken:
		return s.fail(w, fault)
	}
	kind := "Uploaded"
	if upload.Deduplicated {
		kind = "Deduplicated"
	}
	return s.answer(w, map[string]any{"kind": kind, "file_size": *upload.Info.NarSize, "frac_deduplicated": nil})
}

func (s *Server) fail(w http.ResponseWriter, fault Fault) error {
	switch {
	case fault.Stall:
		<-s.stop
		panic(http.ErrAbortHandler)
	case fault.Drop:
		panic(http.ErrAbortHandler)
	}
	for name, values := range fault.Header {
		w.Header()[name] = values
	}
	if fault.Body == "" {
		return &apiError{fault.Status, "InternalServerError", "The server encountered an internal error or misconfiguration."}
	}
	w.WriteHeader(fault.Status)
	_, err := io.WriteString(w, fault.Body)
	return err
}

func (s *Server) take(r *http.Request) (Upload, error) {
	info, preamble, err := readInfo(r)
	if err != nil {
		return Upload{}, err
	}
	if err := s.mayPush(r, *info.Cache); err != nil {
		return Upload{}, err
	}
	s.mu.Lock()
	known := s.nars[*info.NarHash]
	s.mu.Unlock()
	if !known || !s.options.TrustHash {
		if err := s.keep(r.Body, info, known); err != nil {
			return Upload{}, err
		}
	}
	upload := Upload{*info.StorePath, info, preamble, known, r.ContentLength}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nars[*info.NarHash] = true
	s.objects[*info.Hash] = info
	s.uploads = append(s.uploads, upload)
	return upload, nil
}

// readInfo reads what an upload is of: from the start of the body, or else from
// the header.
func readInfo(r *http.Request) (info NarInfo, preamble bool, err error) {
	header := []byte(r.Header.Get("X-Attic-Nar-Info"))
	if size := r.Header.Get("X-Attic-Nar-Info-Preamble-Size"); size != "" {
		n, err := strconv.ParseUint(size, 10, 63)
		switch {
		case err != nil:
			return info, true, badRequest("X-Attic-Nar-Info-Preamble-Size must be a valid unsigned integer")
		case n > 1<<20:
			return info, true, badRequest("Upload info is too large")
		case len(header) > 0:
			return info, true, badRequest("upload info both in the header and in the body")
		}
		preamble = true
		header = make([]byte, n)
		if _, err := io.ReadFull(r.Body, header); err != nil {
			return info, true, badRequest("Upload info doesn't match specified size")
		}
	}
	switch {
	case len(header) == 0:
		return info, preamble, badRequest("X-Attic-Nar-Info must be set")
	case !preamble && len(header) >= 4<<10:
		return info, preamble, &apiError{http.StatusRequestHeaderFieldsTooLarge, "RequestError", "header too large"}
	}
	if err := decode(header, &info); err != nil {
		return info, preamble, err
	}
	return info, preamble, info.check()
}

func (i NarInfo) check() error {
	switch {
	case i.Cache == nil, i.Hash == nil, i.StorePath == nil, i.References == nil, i.Signatures == nil, i.NarHash == nil, i.NarSize == nil:
		return badRequest("missing field")
	case path.Dir(*i.StorePath) != "/nix/store" || !baseName.MatchString(path.Base(*i.StorePath)):
		return badRequest("%q is not a store path", *i.StorePath)
	case path.Base(*i.StorePath)[:32] != *i.Hash:
		return badRequest("%q is not of hash %q", *i.StorePath, *i.Hash)
	case !narHash.MatchString(*i.NarHash):
		return badRequest("%q is not a NAR hash", *i.NarHash)
	case *i.NarSize <= 0:
		return badRequest("%d is not the size of a NAR", *i.NarSize)
	case i.Deriver != nil && !baseName.MatchString(*i.Deriver):
		return badRequest("%q is not the base name of a deriver", *i.Deriver)
	}
	for _, reference := range *i.References {
		if !baseName.MatchString(reference) {
			return badRequest("%q is not the base name of a store path", reference)
		}
	}
	for _, s := range *i.Signatures {
		if !strings.Contains(s, ":") {
			return badRequest("%q is not a signature", s)
		}
	}
	return nil
}

// keep reads and checks a NAR, and writes it down unless it is known.
func (s *Server) keep(body io.Reader, info NarInfo, known bool) error {
	hash := sha256.New()
	var w io.Writer = hash
	done := func() error { return nil }
	if s.options.Dir != "" && !known {
		f, err := os.CreateTemp(s.options.Dir, "upload-")
		if err != nil {
			return err
		}
		defer f.Close()
		w = io.MultiWriter(hash, f)
		done = func() error { return os.Rename(f.Name(), s.narFile(info)) }
	}
	n, err := io.Copy(w, body)
	switch {
	case err != nil:
		return badRequest("%v", err)
	case n != *info.NarSize, "sha256:"+hex.EncodeToString(hash.Sum(nil)) != *info.NarHash:
		return badRequest("Bad NAR Hash or Size")
	}
	return done()
}

func (s *Server) narFile(info NarInfo) string {
	return filepath.Join(s.options.Dir, strings.TrimPrefix(*info.NarHash, "sha256:")+".nar")
}

func (s *Server) nixCacheInfo(w http.ResponseWriter, r *http.Request, _ int) error {
	if err := s.mayPull(r, r.PathValue("cache")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/x-nix-cache-info")
	_, err := io.WriteString(w, "WantMassQuery: 1\nStoreDir: /nix/store\nPriority: 41\n")
	return err
}

// object finds what NAME.SUFFIX is asked of.
func (s *Server) object(r *http.Request, name, suffix string) (NarInfo, error) {
	if err := s.mayPull(r, r.PathValue("cache")); err != nil {
		return NarInfo{}, err
	}
	hash, ok := strings.CutSuffix(name, suffix)
	s.mu.Lock()
	info, known := s.objects[hash]
	s.mu.Unlock()
	if !ok || !known {
		return info, errNoObject
	}
	return info, nil
}

// narInfo signs the references in the order that the client has sent, as Attic.
func (s *Server) narInfo(w http.ResponseWriter, r *http.Request, _ int) error {
	info, err := s.object(r, r.PathValue("narinfo"), ".narinfo")
	if err != nil {
		return err
	}
	hash, err := nixhash.ParseAny(*info.NarHash, nil)
	if err != nil {
		return err
	}
	hash, err = nixhash.NewHashWithEncoding(hash.Algo(), hash.Digest(), nixhash.NixBase32, true)
	if err != nil {
		return err
	}
	n := narinfo.NarInfo{
		StorePath:   *info.StorePath,
		URL:         "nar/" + *info.Hash + ".nar",
		Compression: "none",
		NarHash:     hash,
		NarSize:     uint64(*info.NarSize),
		References:  *info.References,
	}
	if info.Deriver != nil {
		n.Deriver = *info.Deriver
	}
	if info.CA != nil {
		n.CA = *info.CA
	}
	sig, err := s.secret.Sign(rand.Reader, n.Fingerprint())
	if err != nil {
		return err
	}
	n.Signatures = []signature.Signature{sig}
	w.Header().Set("Content-Type", n.ContentType())
	_, err = io.WriteString(w, n.String())
	return err
}

func (s *Server) nar(w http.ResponseWriter, r *http.Request, _ int) error {
	info, err := s.object(r, r.PathValue("nar"), ".nar")
	if err != nil {
		return err
	}
	f, err := os.Open(s.narFile(info))
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/x-nix-nar")
	_, err = io.Copy(w, f)
	return err
}
