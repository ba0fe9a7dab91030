package niks3test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// largestSimple is the size of the largest NAR that is uploaded at once, in bytes.
const largestSimple = 10 << 20

// create begins to push a closure, and answers with the objects that the bucket lacks.
func (s *Server) create(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Closure string   `json:"closure"`
		Objects []object `json:"objects"`
	}
	if err := decode(r, &request); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &closure{root: request.Closure, objects: map[string]object{}, pending: map[string]bool{}, signed: map[string]string{}}
	for _, o := range request.Objects {
		switch {
		case o.Type == "narinfo" && !narinfoPattern.MatchString(o.Key), o.Type == "nar" && !narPattern.MatchString(o.Key):
			return bad("invalid key %q of type %q", o.Key, o.Type)
		case o.Type != "narinfo" && o.Type != "nar":
			return bad("unknown object type %q for key: %s", o.Type, o.Key)
		case o.Refs == nil || o.Type == "nar" && (len(o.Refs) > 0 || o.NarSize == nil || *o.NarSize <= 0):
			return bad("%s lacks its refs or its size", o.Key)
		case c.objects[o.Key].Key != "":
			return bad("%s is there twice", o.Key)
		case o.Type == "narinfo" && !slices.ContainsFunc(o.Refs, narPattern.MatchString):
			return bad("%s refers to no NAR", o.Key)
		}
		c.objects[o.Key] = o
	}
	if _, ok := c.objects[c.root]; !ok || !narinfoPattern.MatchString(c.root) {
		return bad("closure key is not among the objects: %q", c.root)
	}
	for _, o := range c.objects {
		for _, ref := range o.Refs {
			_, here := c.objects[ref]
			if _, there := s.objects[ref]; !here && !there {
				return bad("%s refers to %s, which is nowhere", o.Key, ref)
			}
		}
	}
	id := strconv.Itoa(len(s.closures) + 1)
	s.closures[id] = c
	pending := map[string]any{}
	for key, o := range c.objects {
		if _, ok := s.objects[key]; ok {
			continue
		}
		c.pending[key] = false
		if o.NarSize == nil || *o.NarSize <= largestSimple {
			pending[key] = map[string]any{"type": o.Type, "presigned_url": s.presign(r, &upload{closure: c, key: key})}
			continue
		}
		uploadID := rand.Text()
		s.parts[uploadID] = map[int]string{}
		pending[key] = map[string]any{"type": o.Type, "multipart_info": map[string]any{
			"upload_id": uploadID, "part_urls": s.presignParts(r, c, key, uploadID, 1, s.options.Parts),
		}}
	}
	return answer(w, map[string]any{"id": id, "started_at": "2026-11-30T12:00:00Z", "pending_objects": pending})
}

// presign returns an address for an upload.
func (s *Server) presign(r *http.Request, u *upload) string {
	secret := rand.Text()
	s.uploads[secret] = u
	return address(r) + "/bucket/" + u.key + "?" + url.Values{"X-Amz-Signature": {secret}}.Encode()
}

func (s *Server) presignParts(r *http.Request, c *closure, key, id string, start, n int) []string {
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = s.presign(r, &upload{closure: c, key: key, id: id, number: start + i})
	}
	return addresses
}

// ofUpload returns the closure of an upload of several parts.
func (s *Server) ofUpload(key, id string) (*closure, error) {
	for _, u := range s.uploads {
		if u.key == key && u.id == id && id != "" && s.parts[id] != nil {
			return u.closure, nil
		}
	}
	return nil, &refusal{http.StatusNotFound, "multipart upload not found"}
}

func (s *Server) requestParts(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Key   string `json:"object_key"`
		ID    string `json:"upload_id"`
		Start int    `json:"start_part_number"`
		Parts int    `json:"num_parts"`
	}
	if err := decode(r, &request); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.ofUpload(request.Key, request.ID)
	switch {
	case err != nil:
		return err
	case request.Start < 1 || request.Parts < 1 || request.Start+request.Parts > 10_001:
		return bad("invalid numbers of parts")
	}
	return answer(w, map[string]any{"start_part_number": request.Start, "part_urls": s.presignParts(r, c, request.Key, request.ID, request.Start, request.Parts)})
}

func (s *Server) exists(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[r.PathValue("key")]; !ok {
		return &refusal{http.StatusNotFound, "not found"}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pendingClosure returns the closure that a request is about.
func (s *Server) pendingClosure(r *http.Request) (*closure, error) {
	if c := s.closures[r.PathValue("id")]; c != nil {
		return c, nil
	}
	return nil, &refusal{http.StatusNotFound, "pending closure not found"}
}

// A description is what a client says of a path.
type description struct {
	StorePath   string   `json:"store_path"`
	URL         string   `json:"url"`
	Compression string   `json:"compression"`
	NarHash     string   `json:"nar_hash"`
	NarSize     uint64   `json:"nar_size"`
	References  []string `json:"references"`
	Deriver     *string  `json:"deriver"`
	Signatures  []string `json:"signatures"`
	CA          *string  `json:"ca"`
}

func (s *Server) sign(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Narinfos map[string]description `json:"narinfos"`
	}
	if err := decode(r, &request); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.pendingClosure(r)
	if err != nil {
		return err
	}
	signatures := map[string][]string{}
	for key, d := range request.Narinfos {
		if _, ok := c.pending[key]; !ok || key != narinfoKey(d.StorePath) {
			return bad("%s is not part of this closure, or not of %s", key, d.StorePath)
		}
		hash, err := nixhash.ParseAny(d.NarHash, nil)
		if err != nil || !strings.HasPrefix(d.NarHash, "sha256:") || len(d.NarHash) != 59 || d.NarSize == 0 || d.References == nil {
			return bad("invalid hash, size or references of %s", d.StorePath)
		}
		if _, there := s.objects[d.URL]; !there || !slices.Contains(c.objects[key].Refs, d.URL) || d.Compression != "zstd" {
			return bad("the NAR %q of %s was not uploaded before", d.URL, d.StorePath)
		}
		info := narinfo.NarInfo{StorePath: d.StorePath, NarHash: hash, NarSize: d.NarSize}
		for _, reference := range slices.Sorted(slices.Values(d.References)) {
			base, ok := strings.CutPrefix(reference, "/nix/store/")
			if !ok {
				return bad("reference path does not start with /nix/store: %s", reference)
			}
			info.References = append(info.References, base)
		}
		signed, err := s.secret.Sign(rand.Reader, info.Fingerprint())
		if err != nil {
			return err
		}
		c.signed[key] = signed.String()
		signatures[key] = []string{signed.String()}
	}
	return answer(w, map[string]any{"signatures": signatures})
}

// complete publishes a closure.
func (s *Server) complete(w http.ResponseWriter, r *http.Request) error {
	if err := decode(r, &struct{}{}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.pendingClosure(r)
	if err != nil {
		return err
	}
	for key, uploaded := range c.pending {
		if !uploaded {
			return bad("%s was not uploaded", key)
		}
	}
	s.roots = append(s.roots, c.root)
	delete(s.closures, r.PathValue("id"))
	s.closures[r.PathValue("id")+" done"] = c
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// keep writes an object into the bucket.
func (s *Server) keep(u *upload, data []byte) error {
	file := filepath.Join(s.options.Dir, filepath.FromSlash(u.key))
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	u.closure.pending[u.key] = true
	s.objects[u.key] = u.closure.objects[u.key].Refs
	return nil
}
