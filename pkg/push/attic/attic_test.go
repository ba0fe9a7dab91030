package attic_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

func TestDial(t *testing.T) {
	for _, test := range []struct {
		name             string
		endpoint         string
		api, substituter string // that the server gives
		wantSubstituter  string
		wantHost         string // that is asked afterwards
	}{
		{"as it is", endpoint, "", "", endpoint + "/test", "attic.example"},
		{"slash", endpoint + "/", "", "", endpoint + "/test", "attic.example"},
		{"the server says nothing", endpoint, "none", "none", endpoint + "/test", "attic.example"},
		{"elsewhere", endpoint, "http://api.example/prefix/", "http://read.example/cache/", "http://read.example/cache", "api.example"},
		{"elsewhere without slash", endpoint, "http://api.example/prefix", "http://read.example/cache", "http://read.example/cache", "api.example"},
		{"nonsense", endpoint, "::", "ftp://x/", endpoint + "/test", "attic.example"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := map[string]string{}
				server, options := serve(t, attictest.Options{
					API: test.api, Substituter: test.substituter, Upstream: []string{"cache.nixos.org-1"},
					Before: func(_ http.ResponseWriter, r *http.Request) bool {
						hosts[path.Base(r.URL.Path)] = r.Host
						return false
					},
				})
				options.Endpoint = test.endpoint
				c := dial(t, options)
				if got := c.Substituter(); got != test.wantSubstituter {
					t.Errorf("the substituter is %s, want %s", got, test.wantSubstituter)
				}
				if got := c.PublicKey(); got != server.PublicKey() {
					t.Errorf("the key is %s, want %s", got, server.PublicKey())
				}
				if !c.Upstream("cache.nixos.org-1") || c.Upstream("cache.nixos.org") {
					t.Error("the names of upstream keys are wrong")
				}
				s := &shop{}
				if _, err := c.Push(t.Context(), s.paths(1), s.nar); err != nil {
					t.Error(err)
				}
				if got := hosts["upload-path"]; got != test.wantHost || hosts["get-missing-paths"] != got {
					t.Errorf("asked %v, want %s", hosts, test.wantHost)
				}
			})
		})
	}
}

// roundTripper is a network of one's own.
type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// A token that goes to an https address does not go to any other.
func TestNoDowngrade(t *testing.T) {
	for _, test := range []struct{ given, want string }{
		{"http://attic.example/", "https://attic.example"},
		{"http://api.example/", "https://attic.example"},
		{"https://api.example/", "https://api.example"},
	} {
		var asked []string
		c := dial(t, attic.Options{
			Endpoint: "https://attic.example", Cache: "test", Token: "secret",
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				asked = append(asked, r.URL.Scheme+"://"+r.URL.Host)
				answer := fmt.Sprintf(`{"missing_paths":[],"api_endpoint":%q,"substituter_endpoint":%q}`, test.given, test.given+"test")
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(answer))}, nil
			}),
		})
		s := &shop{}
		if _, err := c.Push(t.Context(), s.paths(1), s.nar); err != nil {
			t.Error(err)
		}
		if want := []string{"https://attic.example", test.want}; !slices.Equal(asked, want) {
			t.Errorf("%s: asked %v, want %v", test.given, asked, want)
		}
		if got := c.Substituter(); got != test.want+"/test" {
			t.Errorf("%s: the substituter is %s", test.given, got)
		}
	}
}

func TestDialFails(t *testing.T) {
	answer := func(status int, header, value, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set(header, value)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for _, test := range []struct {
		name   string
		server attictest.Options
		change func(*attic.Options)
		token  bool // ErrToken
		says   []string
	}{
		{"no address", attictest.Options{}, func(o *attic.Options) { o.Endpoint = "" }, false, []string{"address", "https://HOST"}},
		{"no host", attictest.Options{}, func(o *attic.Options) { o.Endpoint = "attic.example" }, false, []string{`"attic.example"`}},
		{"another scheme", attictest.Options{}, func(o *attic.Options) { o.Endpoint = "ftp://attic.example" }, false, []string{"ftp://"}},
		{"credentials", attictest.Options{}, func(o *attic.Options) { o.Endpoint = "https://me:hunter2@attic.example" }, false, []string{"token"}},
		{"credentials in nonsense", attictest.Options{}, func(o *attic.Options) { o.Endpoint = "https://me:hunter2%@attic.example" }, false, []string{"not a valid address"}},
		{"query", attictest.Options{}, func(o *attic.Options) { o.Endpoint += "?a=b" }, false, []string{"https://HOST"}},
		{"no cache", attictest.Options{}, func(o *attic.Options) { o.Cache = "" }, false, []string{"for an Attic cache"}},
		{"cache with slash", attictest.Options{}, func(o *attic.Options) { o.Cache = "a/b" }, false, []string{"for an Attic cache"}},
		{"unknown cache", attictest.Options{}, func(o *attic.Options) { o.Cache = "other" }, false, []string{"other", "404 NoSuchCache", "attic cache create other"}},
		{"no token", attictest.Options{}, func(o *attic.Options) { o.Token = "" }, true, []string{"401 Unauthorized", "There was no token"}},
		{"bad token", attictest.Options{}, func(o *attic.Options) { o.Token = "hunter2" }, true, []string{"401 Unauthorized", "make-token", "--push test"}},
		{"not Attic", attictest.Options{Before: answer(200, "", "", "<html>hello")}, nil, false, []string{"is the address that of an Attic server?"}},
		{"not Attic either", attictest.Options{Before: answer(404, "", "", "<html>no</html>")}, nil, false, []string{"404: no", "Is the address"}},
		{"moved", attictest.Options{Before: answer(301, "Location", "https://new.example/", "")}, nil, false, []string{"301", "https://new.example/"}},
		{"echo", attictest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
			return answer(500, "", "", r.Header.Get("Authorization"))(w, r)
		}}, func(o *attic.Options) { o.Token = " hunter2\n" }, false, []string{"500: bearer ***"}},
		{"endless", attictest.Options{Before: answer(500, "", "", strings.Repeat("€", 1000))}, nil, false, []string{"€…"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, options := serve(t, test.server)
				if test.change != nil {
					test.change(&options)
				}
				log := recordLog(&options)
				_, err := attic.Dial(t.Context(), options)
				if err == nil {
					t.Fatal("no error")
				}
				if errors.Is(err, attic.ErrToken) != test.token {
					t.Errorf("%v: ErrToken is %v", err, !test.token)
				}
				for _, want := range test.says {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v does not say %q", err, want)
					}
				}
				if strings.Contains(err.Error()+log.String(), "hunter2") {
					t.Errorf("it tells the secret: %v, %s", err, log)
				}
				if len(err.Error()) > 600 {
					t.Errorf("it is long: %v", err)
				}
			})
		})
	}
}

func TestPublicCacheIsReadWithoutToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, options := serve(t, attictest.Options{Public: true})
		options.Token = ""
		c := dial(t, options)
		s := &shop{}
		stats, err := c.Push(t.Context(), s.paths(2), s.nar)
		if !errors.Is(err, attic.ErrToken) || !strings.Contains(err.Error(), "There was no token") || stats.Failed != 2 {
			t.Errorf("pushing without a token: %+v, %v", stats, err)
		}
	})
}

func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, options := serve(t, attictest.Options{Upstream: []string{"cache.nixos.org-1"}})
		c := dial(t, options)
		s := &shop{}
		there := s.path("there", "there")
		if _, err := c.Push(t.Context(), []attic.Path{there}, s.nar); err != nil {
			t.Fatal(err)
		}
		a := s.path("a", "a NAR")
		b := s.path("b", "b's NAR")
		b.References = []string{b.StorePath, there.StorePath, a.StorePath, a.StorePath}
		slices.Sort(b.References)
		slices.Reverse(b.References)
		b.Deriver = s.path("b.drv", "").StorePath
		b.Signatures = []string{"mine:c2ln"}
		b.CA = "fixed:r:sha256:0000000000000000000000000000000000000000000000000000"
		same := s.path("same", "a NAR")
		same.Deriver = "unknown-deriver"
		upstream := s.path("upstream", "upstream")
		upstream.Signatures = []string{"mine:c2ln", "cache.nixos.org-1:c2ln"}

		options.Jobs = 1
		c = dial(t, options)
		paths := []attic.Path{there, a, a, b, same, upstream}
		stats, err := c.Push(t.Context(), paths, s.nar)
		if err != nil {
			t.Fatal(err)
		}
		want := attic.Stats{Uploaded: 2, Deduplicated: 1, Present: 1, Filtered: 1, Bytes: a.NarSize + b.NarSize}
		if stats != want {
			t.Errorf("got %+v, want %+v", stats, want)
		}
		if server.Has(upstream.StorePath) || s.openings(upstream) != 0 || s.openings(there) != 1 {
			t.Error("paths that are elsewhere were pushed")
		}
		uploads := server.Uploads()[1:]
		if len(uploads) != 3 || !uploads[2].Deduplicated {
			t.Fatalf("the server has taken %+v", uploads)
		}
		for i, want := range []attic.Path{a, b, same} {
			if uploads[i].StorePath != want.StorePath || uploads[i].Length != want.NarSize {
				t.Errorf("upload %d is of %s with Content-Length %d", i, uploads[i].StorePath, uploads[i].Length)
			}
		}
		info := uploads[1].Info
		references := []string{path.Base(there.StorePath), path.Base(a.StorePath), path.Base(b.StorePath)}
		slices.Sort(references) // as Nix does before it verifies the signature
		if !slices.Equal(*info.References, references) {
			t.Errorf("the references are %v, want %v", *info.References, references)
		}
		if info.Deriver == nil || *info.Deriver != path.Base(b.Deriver) || info.CA == nil || *info.CA != b.CA || !slices.Equal(*info.Signatures, b.Signatures) {
			got, _ := json.Marshal(info)
			t.Errorf("the server was told %s", got)
		}
		if info := uploads[2].Info; info.Deriver != nil || info.CA != nil || info.System != nil {
			got, _ := json.Marshal(info)
			t.Errorf("the server was told %s", got)
		}
		if stats, err = c.Push(t.Context(), paths, s.nar); err != nil || stats != (attic.Stats{Present: 4, Filtered: 1}) {
			t.Errorf("once more: %+v, %v", stats, err)
		}
		if stats, err = c.Push(t.Context(), nil, s.nar); err != nil || stats != (attic.Stats{}) {
			t.Errorf("nothing: %+v, %v", stats, err)
		}
		if left := s.left(); left != 0 {
			t.Errorf("%d NARs were left open", left)
		}
	})
}

// The description of an upload goes into a header below 4 KiB and before the NAR above;
// the server refuses what is too large for either.
func TestPreamble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, options := serve(t, attictest.Options{})
		options.Jobs = 1
		c := dial(t, options)
		s := &shop{}
		var paths []attic.Path
		for i := range 1000 {
			p := s.path(fmt.Sprintf("path-%03d", i), "the same NAR")
			p.Signatures = []string{"k:" + strings.Repeat("x", 3200+i)}
			paths = append(paths, p)
		}
		most := s.path("most", "NAR")
		most.Signatures = []string{"k:" + strings.Repeat("x", 1<<20-1000)}
		paths = append(paths, most)
		tooMuch := s.path("too-much", "NAR")
		tooMuch.Signatures = []string{"k:" + strings.Repeat("x", 1<<20)}
		paths = append(paths, tooMuch)

		stats, err := c.Push(t.Context(), paths, s.nar)
		if stats.Uploaded+stats.Deduplicated != 1001 || stats.Failed != 1 || err == nil || !strings.Contains(err.Error(), tooMuch.StorePath+": it has too many references") {
			t.Errorf("%+v, %v", stats, err)
		}
		edge := 0
		for i, upload := range server.Uploads() {
			info, err := json.Marshal(upload.Info)
			if err != nil {
				t.Fatal(err)
			}
			length := int64(len(info))
			if upload.Preamble != (length >= 4096) {
				t.Errorf("upload %d: preamble %v with %d bytes", i, upload.Preamble, length)
			}
			if want := *upload.Info.NarSize; upload.Preamble && upload.Length != want+length || !upload.Preamble && upload.Length != want {
				t.Errorf("upload %d: Content-Length is %d", i, upload.Length)
			}
			if length == 4095 || length == 4096 {
				edge++
			}
		}
		if edge != 2 {
			t.Error("the edge was not tried")
		}
	})
}

// A server that answers without the NAR does not get it, if it is large.
func TestConsent(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	t.Run("known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, options := serve(t, attictest.Options{TrustHash: true})
			c := dial(t, options)
			s := &shop{}
			first, second := s.path("first", large), s.path("second", large)
			if _, err := c.Push(t.Context(), []attic.Path{first}, s.nar); err != nil {
				t.Fatal(err)
			}
			stats, err := c.Push(t.Context(), []attic.Path{second}, s.nar)
			if err != nil || stats != (attic.Stats{Deduplicated: 1}) || s.openings(second) != 0 {
				t.Errorf("%+v, %v, opened %d times", stats, err, s.openings(second))
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, options := serve(t, attictest.Options{Fault: func(int) attictest.Fault { return attictest.Fault{Expire: true} }})
			c := dial(t, options)
			s := &shop{}
			p := s.path("path", large)
			if _, err := c.Push(t.Context(), []attic.Path{p}, s.nar); !errors.Is(err, attic.ErrToken) || s.openings(p) != 0 {
				t.Errorf("%v, opened %d times", err, s.openings(p))
			}
		})
	})
}

// No NAR ends before three are read: fewer uploads at a time would not end at
// all, which synctest notices.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, options := serve(t, attictest.Options{Delay: 5 * time.Millisecond})
		options.Jobs = 3
		c := dial(t, options)
		arrived, three := make(chan bool), make(chan bool)
		s := &shop{wrap: func(ctx context.Context, _ string, _ int, nar io.Reader) (io.Reader, error) {
			return readerFunc(func(p []byte) (int, error) {
				select {
				case arrived <- true:
				case <-three:
				case <-ctx.Done():
					return 0, ctx.Err()
				}
				<-three
				return nar.Read(p)
			}), nil
		}}
		go func() {
			for range 3 {
				<-arrived
			}
			close(three)
		}()
		stats, err := c.Push(t.Context(), s.paths(30), s.nar)
		if err != nil || stats.Uploaded != 30 {
			t.Errorf("%+v, %v", stats, err)
		}
		if s.most != 3 {
			t.Errorf("%d at a time, want 3", s.most)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPathsThatCannotBePushed(t *testing.T) {
	errAny := errors.New("any error")
	bad := func(change func(*attic.Path)) func(*shop) attic.Path {
		return func(s *shop) attic.Path {
			p := s.path("bad", "bad NAR")
			change(&p)
			return p
		}
	}
	// reads has the NAR of the bad path be another.
	reads := func(other func() (io.Reader, error)) func(*shop) attic.Path {
		return func(s *shop) attic.Path {
			p := s.path("bad", "bad NAR")
			s.wrap = func(_ context.Context, storePath string, _ int, nar io.Reader) (io.Reader, error) {
				if storePath == p.StorePath {
					return other()
				}
				return nar, nil
			}
			return p
		}
	}
	for _, test := range []struct {
		name string
		make func(*shop) attic.Path
		says string
	}{
		{"no store path", bad(func(p *attic.Path) { p.StorePath = "/tmp/bad" }), "not a store path"},
		{"another store", bad(func(p *attic.Path) { p.StorePath = "/gnu/store/" + path.Base(p.StorePath) }), "cache's store /nix/store"},
		{"no hash", bad(func(p *attic.Path) { p.NarHash = "" }), "NAR hash is not valid"},
		{"another hash", bad(func(p *attic.Path) { p.NarHash = "sha1:" + p.NarHash[:40] }), "NAR hash is not valid"},
		{"no size", bad(func(p *attic.Path) { p.NarSize = 0 }), "size is not valid"},
		{"wrong hash", bad(func(p *attic.Path) { p.NarHash = strings.Repeat("0", 64) }), "400 RequestError: General request error: Bad NAR Hash or Size. Run `nix-store --verify-path`"},
		{"shorter", bad(func(p *attic.Path) { p.NarSize++ }), "is not the 8 bytes"},
		{"longer", bad(func(p *attic.Path) { p.NarSize-- }), "is not the 6 bytes"},
		{"cannot be opened", reads(func() (io.Reader, error) { return nil, errAny }), "open the NAR: any error"},
		{"cannot be read", reads(func() (io.Reader, error) {
			return readerFunc(func([]byte) (int, error) { return 0, errAny }), nil
		}), "read the NAR: any error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, options := serve(t, attictest.Options{})
				options.Jobs = 1
				c := dial(t, options)
				s := &shop{}
				p := test.make(s)
				others := s.paths(2)
				begun := time.Now()
				stats, err := c.Push(t.Context(), []attic.Path{others[0], p, others[1]}, s.nar)
				var failure *attic.PushError
				if !errors.As(err, &failure) || len(failure.Failed) != 1 || failure.Failed[0].StorePath != p.StorePath {
					t.Fatalf("error: %v", err)
				}
				if !strings.Contains(err.Error(), p.StorePath) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%v does not say %q", err, test.says)
				}
				if stats.Failed != 1 || stats.Uploaded != 2 || server.Has(p.StorePath) || !server.Has(others[1].StorePath) {
					t.Errorf("%+v", stats)
				}
				if strings.Contains(test.says, "any error") && !errors.Is(err, errAny) {
					t.Errorf("%v does not wrap the reason", err)
				}
				if took := time.Since(begun); took != 0 {
					t.Error("it was tried again")
				}
				if left := s.left(); left != 0 {
					t.Errorf("%d NARs were left open", left)
				}
			})
		})
	}
}
