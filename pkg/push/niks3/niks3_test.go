package niks3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/niks3"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

const (
	issuer = "https://token.example"
	token  = "t0ken-of-the-job"
)

// shop is a store with paths whose NARs are any bytes.
type shop struct {
	infos map[string]nix.PathInfo
	nars  map[string][]byte
}

// add adds a path, whose name begins with the given letter, and returns it.
func (s *shop) add(letter string, nar []byte, references ...string) string {
	if s.infos == nil {
		s.infos, s.nars = map[string]nix.PathInfo{}, map[string][]byte{}
	}
	storePath := "/nix/store/" + strings.Repeat(letter, 32) + "-" + letter
	sum := sha256.Sum256(nar)
	s.nars[storePath] = nar
	s.infos[storePath] = nix.PathInfo{Path: storePath, NarHash: hex.EncodeToString(sum[:]), NarSize: int64(len(nar)), References: references}
	return storePath
}

func (s *shop) nar(_ context.Context, storePath string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.nars[storePath])), nil
}

// accepts is a server's check of a token.
func accepts(given string) int {
	if given != token {
		return http.StatusUnauthorized
	}
	return 0
}

func start(t *testing.T, o niks3test.Options) (*niks3test.Running, niks3.Options) {
	t.Helper()
	o.Dir, o.Issuer = t.TempDir(), issuer
	if o.Accepts == nil {
		o.Accepts = accepts
	}
	server := niks3test.Start(t, o)
	return server, niks3.Options{
		Server: server.URL, Issuer: issuer, Wait: time.Millisecond, MaxWait: 2 * time.Millisecond, Busy: time.Minute,
		Token: func(_ context.Context, audience string) (string, error) {
			if audience != server.URL {
				return "", fmt.Errorf("asked for a token for %s", audience)
			}
			return token, nil
		},
	}
}

func dial(t *testing.T, o niks3.Options) *niks3.Cache {
	t.Helper()
	c, err := niks3.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPush(t *testing.T) {
	server, options := start(t, niks3test.Options{Parts: 1})
	c := dial(t, options)
	if c.Substituter() != server.URL+"/cache" || !slices.Equal(c.PublicKeys(), []string{server.PublicKey()}) {
		t.Errorf("it is read at %s with %v", c.Substituter(), c.PublicKeys())
	}
	large := make([]byte, 21<<20) // of three parts
	_, _ = rand.NewChaCha8([32]byte{7}).Read(large)
	var s shop
	base := s.add("a", []byte("base"))
	again := s.add("b", []byte("base")) // another path with the same NAR
	big := s.add("c", large, base)
	self := "/nix/store/" + strings.Repeat("d", 32) + "-d"
	top := s.add("d", []byte("top"), again, big, self)
	apart := s.add("f", []byte("apart"), base)

	stats, err := c.Push(t.Context(), s.infos, []string{base, top, apart, top}, s.nar)
	if err != nil {
		t.Fatal(err)
	}
	if want := (niks3.Stats{Paths: 4, Bytes: int64(len("base")+len(large)) + 8}); stats != want {
		t.Errorf("sent %+v, want %+v", stats, want)
	}
	want := []string{strings.Repeat("d", 32) + ".narinfo", strings.Repeat("f", 32) + ".narinfo"}
	if diff := cmp.Diff(want, server.Roots()); diff != "" {
		t.Error(diff)
	}
	for storePath := range s.infos {
		if !server.Has(storePath) {
			t.Errorf("%s is missing", storePath)
		}
	}
	if n := server.Calls("request-parts"); n != 1 {
		t.Errorf("asked for addresses %d times", n)
	}

	// An object that is there is not sent again, and one that this process knows of is not asked for.
	creates := server.Calls("create")
	if stats, err := c.Push(t.Context(), s.infos, []string{top}, s.nar); err != nil || stats != (niks3.Stats{}) || server.Calls("create") != creates {
		t.Errorf("again: %+v, %v", stats, err)
	}
	puts := server.Calls("put")
	if stats, err := dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar); err != nil || stats != (niks3.Stats{}) || server.Calls("put") != puts {
		t.Errorf("by another process: %+v, %v", stats, err)
	}
	next := s.add("g", []byte("next"), top)
	if stats, err := c.Push(t.Context(), s.infos, []string{next}, s.nar); err != nil || stats.Paths != 1 {
		t.Errorf("one more: %+v, %v", stats, err)
	}
}

// fault answers the first so many requests of a name with a status.
func fault(name string, status, times int, text string) func(http.ResponseWriter, *http.Request, string, int) bool {
	return func(w http.ResponseWriter, _ *http.Request, of string, n int) bool {
		if of != name || n > times {
			return false
		}
		http.Error(w, text, status)
		return true
	}
}

func TestFaults(t *testing.T) {
	const always = 1 << 30
	for name, test := range map[string]struct {
		fault  func(http.ResponseWriter, *http.Request, string, int) bool
		accept func(string) int
		status int      // of niks3.Status
		says   []string // nothing where it is made up for
	}{
		"busy for a while":           {fault: fault("create", 503, 2, "busy")},
		"another client is at it":    {fault: fault("create", 409, 7, "upload in progress")},
		"another client stays at it": {fault: fault("create", 409, always, "upload in progress"), status: 409, says: []string{"upload in progress"}},
		"the storage is slow":        {fault: fault("put", 503, 3, "<Error><Code>SlowDown</Code></Error>")},
		"signing fails once":         {fault: fault("sign", 500, 1, "no")},
		"broken for good":            {fault: fault("create", 500, always, "no database"), status: 500, says: []string{"the server answers 500: no database. The server's log says more"}},
		"broken at the end":          {fault: fault("complete", 502, always, "<html>bad gateway"), status: 502, says: []string{"502: bad gateway"}},
		"the storage refuses":        {fault: fault("put", 403, always, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"), says: []string{"the storage at 127.0.0.1:", "403 AccessDenied: no"}},
		"the token is refused":       {accept: func(string) int { return 401 }, status: 401, says: []string{"401: Unauthorized", "bound_claims"}},
		"the token may only read":    {accept: func(string) int { return 403 }, status: 403, says: []string{"token lacks scope write", "grant the scope write"}},
		"no niks3":                   {fault: fault("create", 404, always, "404 page not found"), status: 404, says: []string{"Is the address that of a niks3 server?"}},
		"it echoes":                  {fault: fault("create", 400, always, "you sent "+token), status: 400, says: []string{"you sent ***"}},
	} {
		t.Run(name, func(t *testing.T) {
			server, options := start(t, niks3test.Options{Fault: test.fault, Accepts: test.accept})
			options.Busy = 50 * time.Millisecond
			var s shop
			top := s.add("b", []byte("top"), s.add("a", []byte("base")))
			_, err := dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar)
			switch {
			case (err == nil) != (test.says == nil), niks3.Status(err) != test.status:
				t.Errorf("error: %v, status %d", err, niks3.Status(err))
			case err == nil && !server.Has(top):
				t.Error("it has not arrived")
			case err != nil && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "X-Amz")):
				t.Errorf("the error has a secret: %v", err)
			}
			for _, part := range test.says {
				if !strings.Contains(fmt.Sprint(err), part) {
					t.Errorf("the error is %v, want it to say %q", err, part)
				}
			}
		})
	}
}

// Another client may end its upload of the same NAR first.
func TestSuperseded(t *testing.T) {
	for name, there := range map[string]bool{"the other has uploaded it": true, "the upload is lost": false} {
		t.Run(name, func(t *testing.T) {
			large := make([]byte, 11<<20)
			_, _ = rand.NewChaCha8([32]byte{8}).Read(large)
			encoder, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			var s shop
			top := s.add("a", large)
			sum := sha256.Sum256(large)
			key := "nar/" + nixbase32.EncodeToString(sum[:]) + ".nar.zst"
			var server *niks3test.Running
			server, options := start(t, niks3test.Options{Fault: func(w http.ResponseWriter, _ *http.Request, name string, n int) bool {
				switch {
				case name == "put" && n == 1 && there:
					if err := server.Take(key, encoder.EncodeAll(large, nil)); err != nil {
						t.Error(err)
					}
				case name == "complete-multipart" && !there:
					http.Error(w, "multipart upload not found", http.StatusNotFound)
					return true
				}
				return false
			}})
			_, err = dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar)
			if (err == nil) != there || server.Has(top) != there || server.Calls("exists") != 1 {
				t.Errorf("error: %v; asked %d times", err, server.Calls("exists"))
			}
		})
	}
}

// A NAR that is not the one in the store's database is not published, and the other paths are.
func TestDamaged(t *testing.T) {
	large := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(large)
	for name, damage := range map[string]struct {
		nar  []byte
		open error
		says string
	}{
		"other bytes": {[]byte("xxxx"), nil, "nix-store --verify-path /nix/store/aaa"},
		"shorter":     {[]byte("ba"), nil, "--verify-path"},
		"longer":      {append([]byte("base"), large...), nil, "longer than the store's database says"},
		"unreadable":  {nil, errors.New("it is gone"), "cannot open it: it is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			server, options := start(t, niks3test.Options{})
			var s shop
			damaged := s.add("a", []byte("base"))
			top, good := s.add("b", []byte("top"), damaged), s.add("c", []byte("good"))
			_, err := dial(t, options).Push(t.Context(), s.infos, []string{top, good}, func(ctx context.Context, storePath string) (io.ReadCloser, error) {
				if storePath != damaged {
					return s.nar(ctx, storePath)
				}
				return io.NopCloser(bytes.NewReader(damage.nar)), damage.open
			})
			if err == nil || !strings.Contains(err.Error(), damage.says) || niks3.Status(err) != 0 {
				t.Errorf("error: %v", err)
			}
			if server.Has(damaged) || server.Has(top) || !server.Has(good) || server.Calls("complete") != 1 {
				t.Error("the wrong paths have arrived")
			}
		})
	}
}

// Each request has a token that is valid then.
func TestTokens(t *testing.T) {
	n := 0
	server, options := start(t, niks3test.Options{Accepts: func(given string) int {
		if given != fmt.Sprint("token-", n) {
			return http.StatusUnauthorized // it has expired
		}
		return 0
	}})
	options.Token = func(context.Context, string) (string, error) {
		n++
		return fmt.Sprint("token-", n), nil
	}
	var s shop
	top := s.add("a", []byte("top"))
	if _, err := dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar); err != nil || len(server.Tokens()) != 3 {
		t.Errorf("%v, with %v", err, server.Tokens())
	}
	refused := errors.New("the job may not")
	options.Token = func(context.Context, string) (string, error) { return "", refused }
	top = s.add("b", []byte("top"))
	if _, err := dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar); !errors.Is(err, refused) {
		t.Errorf("error: %v", err)
	}
}
