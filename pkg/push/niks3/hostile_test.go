package niks3_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/niks3"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

// A token for another server, such as a cloud's, is not for the asking.
func TestAudience(t *testing.T) {
	for name, test := range map[string]struct {
		says, want string // of the server, and of the options
		bad        string // the error says
	}{
		"its address":         {says: "http://SERVER"},
		"below its address":   {says: "https://SERVER/niks3"},
		"its host":            {says: "SERVER"},
		"another server":      {says: "sts.amazonaws.com", bad: `tokens that are for "sts.amazonaws.com", which is not its own address`},
		"another address":     {says: "https://cloud.example", bad: "not its own address"},
		"its name in another": {says: "https://SERVER.evil.example", bad: "not its own address"},
		"a login":             {says: "https://SERVER@evil.example", bad: "not its own address"},
		"the user says so":    {says: "https://cloud.example", want: "https://other.example"},
		"hostile":             {says: "a\x1b[2J\n::error::", bad: "not its own address"},
	} {
		t.Run(name, func(t *testing.T) {
			var server *niks3test.Running
			server, options := start(t, niks3test.Options{Fault: func(w http.ResponseWriter, r *http.Request, name string, _ int) bool {
				if name == "cache-config" {
					_ = json.NewEncoder(w).Encode(map[string]string{"oidc_audience": strings.ReplaceAll(test.says, "SERVER", r.Host)})
				}
				return name == "cache-config"
			}})
			var asked []string
			options.Audience = test.want
			options.Token = func(_ context.Context, audience string) (string, error) {
				asked = append(asked, audience)
				return token, nil
			}
			var s shop
			top := s.add("a", []byte("top"))
			_, err := dial(t, options).Push(t.Context(), s.infos, []string{top}, s.nar)
			var other *niks3.AudienceError
			if (err == nil) != (test.bad == "") || errors.As(err, &other) != (test.bad != "") || !strings.Contains(fmt.Sprint(err), test.bad) {
				t.Errorf("error: %v", err)
			}
			if err != nil && (len(asked) > 0 || strings.ContainsAny(err.Error(), "\x1b\n")) {
				t.Errorf("asked for %q: %q", asked, err)
			}
			want := strings.ReplaceAll(test.says, "SERVER", strings.TrimPrefix(server.URL, "http://"))
			if test.want != "" {
				want = test.want
			}
			if err == nil && asked[0] != want {
				t.Errorf("asked for %q, want %q", asked, want)
			}
		})
	}
	server, options := start(t, niks3test.Options{})
	options.Issuer = "https://elsewhere.example"
	if _, err := dial(t, options).Audience(); err == nil || !strings.Contains(err.Error(), "accepts no tokens of https://elsewhere.example") {
		t.Errorf("%s: %v", server.URL, err)
	}
}

// Answers of a server that has been taken over.
func TestHostileAnswers(t *testing.T) {
	key := strings.Repeat("a", 32) + ".narinfo"
	create := func(answer string) func(http.ResponseWriter, *http.Request, string, int) bool {
		return func(w http.ResponseWriter, r *http.Request, name string, _ int) bool {
			if name == "create" {
				_, _ = io.WriteString(w, strings.ReplaceAll(strings.ReplaceAll(answer, "KEY", key), "HERE", "http://"+r.Host))
			}
			return name == "create"
		}
	}
	for name, test := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request, string, int) bool
		says  string
	}{
		"no JSON":           {create("<html>"), "niks3 server?"},
		"nothing":           {create("{}"), "no id"},
		"an id that climbs": {create(`{"id": "../../x"}`), "no id"},
		"a secret path":     {create(`{"id": "1", "pending_objects": {"nix-cache-info": {"presigned_url": "HERE/x"}}}`), `nobody offers: "nix-cache-info"`},
		"another type":      {create(`{"id": "1", "pending_objects": {"KEY": {"type": "nar", "presigned_url": "HERE/x"}}}`), "nobody offers"},
		"a file":            {create(`{"id": "1", "pending_objects": {"nar/NAR": {}}}`), "nobody offers"},
		"a signature of two lines": {func(w http.ResponseWriter, _ *http.Request, name string, _ int) bool {
			if name == "sign" {
				fmt.Fprintf(w, `{"signatures": {%q: ["a:AAAA\nStorePath: /nix/store/x"]}}`, key)
			}
			return name == "sign"
		}, "signature is not one"},
		"many keys": {func(w http.ResponseWriter, _ *http.Request, name string, _ int) bool {
			if name == "cache-config" {
				fmt.Fprintf(w, `{"public_keys": ["a"%s]}`, strings.Repeat(`, "a"`, 100))
			}
			return name == "cache-config"
		}, "101 public keys"},
	} {
		t.Run(name, func(t *testing.T) {
			_, options := start(t, niks3test.Options{Fault: test.fault})
			var s shop
			top := s.add("a", []byte("top"))
			c, err := niks3.Dial(t.Context(), options)
			if err == nil {
				_, err = c.Push(t.Context(), s.infos, []string{top}, s.nar)
			}
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error: %v, want it to say %q", err, test.says)
			}
		})
	}
}

// roundTripper is a network of one's own.
type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

// Uploads go to addresses of http alone, and of https alone where the server has one. No token goes with them.
func TestAddresses(t *testing.T) {
	for address, says := range map[string]string{
		"https://storage.example/x?X=s3cret": "",
		"http://storage.example/x?X=s3cret":  "at storage.example for an upload that is not https",
		"file:///etc/passwd":                 "that is none",
		"https://u:s3cret@storage.example":   "that is none",
		"::s3cret":                           "that is none",
		"":                                   "that is none",
	} {
		var s shop
		top := s.add("a", []byte("top"))
		sum := sha256.Sum256([]byte("top"))
		var paths []string
		c := dial(t, niks3.Options{
			Server: "https://niks3.example", Audience: "x", Retries: -1, Token: func(context.Context, string) (string, error) { return token, nil },
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				answer := `{"signatures": {}}`
				paths = append(paths, r.Method+" "+r.URL.Host+r.URL.Path)
				switch {
				case r.URL.Host == "storage.example":
					answer = ""
					if r.Header.Get("Authorization") != "" {
						t.Error("the storage gets the token")
					}
				case path.Base(r.URL.Path) == "pending_closures":
					answer = fmt.Sprintf(`{"id": "1", "pending_objects": {"nar/%s.nar.zst": {"presigned_url": %q}}}`, nixbase32.EncodeToString(sum[:]), address)
				}
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, nil
			}),
		})
		_, err := c.Push(t.Context(), s.infos, []string{top}, s.nar)
		if (err == nil) != (says == "") || !strings.Contains(fmt.Sprint(err), says) || strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("%s: %v", address, err)
		}
		if says != "" && slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, "PUT ") }) {
			t.Errorf("%s: %v", address, paths)
		}
	}
}

// Paths are checked before they are described to the server.
func TestPaths(t *testing.T) {
	for name, change := range map[string]func(*nix.PathInfo){
		"another store":   func(i *nix.PathInfo) { i.Path = "/gnu/store/" + path.Base(i.Path) },
		"no hash":         func(i *nix.PathInfo) { i.NarHash = "" },
		"a short hash":    func(i *nix.PathInfo) { i.NarHash = "abcd" },
		"no size":         func(i *nix.PathInfo) { i.NarSize = 0 },
		"a bad reference": func(i *nix.PathInfo) { i.References = []string{"/nix/store/x"} },
		"a lost one":      func(i *nix.PathInfo) { i.References = []string{"/nix/store/" + strings.Repeat("z", 32) + "-z"} },
	} {
		t.Run(name, func(t *testing.T) {
			server, options := start(t, niks3test.Options{})
			var s shop
			top := s.add("a", []byte("top"))
			infos := maps.Clone(s.infos)
			info := infos[top]
			change(&info)
			infos[top] = info
			if _, err := dial(t, options).Push(t.Context(), infos, []string{top}, s.nar); err == nil || server.Calls("create") > 0 {
				t.Errorf("error: %v", err)
			}
		})
	}
}
