package push

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

func TestParseNiks3(t *testing.T) {
	for address, want := range map[string]string{ // empty: it is accepted
		"niks3:https://niks3.example":                      "",
		"niks3:http://127.0.0.1:5751/prefix":               "",
		"niks3:https://niks3.example?audience=https://a.b": "",
		"niks3:niks3.example":                              "Write for example niks3:https://niks3.example.org",
		"niks3:https://":                                   "address of the server is missing",
		"niks3:ftp://niks3.example":                        "address of the server is missing",
		"niks3:https://u:s3cr3t@niks3.example":             "Set NIKS3_AUTH_TOKEN (input env)",
		"niks3:https://niks3.example?token=x":              "the only parameter is audience",
		"niks3:https://niks3.example?audience=a%0ab":       "the only parameter is audience",
		"niks3:https://niks3.example#x":                    "address of the server is missing",
		"niks3:https://u:s3cr3t%zz@niks3.example":          "address of the server is missing",
	} {
		d, err := Parse(address)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr3t")) {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil && d.Name != address {
			t.Errorf("%s: its name is %s", address, d.Name)
		}
	}
}

// shop is a store whose paths have NARs.
type shop struct {
	calls
	shelf
}

func (s shop) Closure(ctx context.Context, paths ...string) (map[string]nix.PathInfo, error) {
	infos, err := s.shelf.Closure(ctx, paths...)
	for path, info := range infos {
		info.NarHash, info.NarSize = strings.Repeat("0", 64), 1
		infos[path] = info
	}
	return infos, err
}

func (s shop) Copy(ctx context.Context, to string, paths []string, env ...string) (nix.Traffic, error) {
	return s.calls.Copy(ctx, to, paths, env...)
}

func (s shop) Cachix(ctx context.Context, name string, paths []string) error {
	return s.calls.Cachix(ctx, name, paths)
}

func (s shop) NAR(ctx context.Context, path string) (io.ReadCloser, error) {
	return s.calls.NAR(ctx, path)
}

func dialNiks3(t *testing.T, options niks3test.Options, query string, secrets Secrets) (Destination, error) {
	t.Helper()
	options.Dir, options.Accepts, options.Issuer = t.TempDir(), func(string) int { return 0 }, "https://token.example"
	server := niks3test.Start(t, options)
	d, err := Parse("niks3:" + server.URL + query)
	if err != nil {
		t.Fatal(err)
	}
	secrets.Issuer = "https://token.example"
	return d, d.Dial(t.Context(), secrets)
}

func TestDialNiks3(t *testing.T) {
	t.Setenv(niks3Variable, "")
	for name, test := range map[string]struct {
		server niks3test.Options
		query  string
		token  string
		wrong  bool // a usage error
		says   string
	}{
		"all is well":             {},
		"for another":             {server: niks3test.Options{Audience: "sts.amazonaws.com"}, wrong: true, says: "?audience=sts.amazonaws.com"},
		"and that is meant":       {server: niks3test.Options{Audience: "sts.amazonaws.com"}, query: "?audience=sts.amazonaws.com"},
		"with a fixed token":      {server: niks3test.Options{Audience: "sts.amazonaws.com"}, token: "t"},
		"a key that is too short": {server: niks3test.Options{Keys: []string{"a-1:aaaa"}}, says: `invalid public key "a-1:aaaa"`},
		"a key of two lines":      {server: niks3test.Options{Keys: []string{"a-1:aaaa\nb"}}, says: "invalid public key"},
		"private":                 {server: niks3test.Options{Private: true}},
	} {
		t.Run(name, func(t *testing.T) {
			secrets := Secrets{Env: []string{niks3Variable + "=" + test.token}}
			d, err := dialNiks3(t, test.server, test.query, secrets)
			var wrong *usage.Error
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) || errors.As(err, &wrong) != test.wrong {
				t.Errorf("error: %v", err)
			}
			if err == nil && (d.Substituter == "" || len(d.PublicKeys) != 1 || d.Public == test.server.Private || d.Netrc(secrets) != "") {
				t.Errorf("%+v", d)
			}
		})
	}
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden} {
		_, err := dialNiks3(t, niks3test.Options{Fault: func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
			w.WriteHeader(status)
			return true
		}}, "", Secrets{})
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Status != status {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Without an identity and a token, nothing can be pushed, and a push says so.
func TestLacksNiks3(t *testing.T) {
	t.Setenv(niks3Variable, "")
	d, err := Parse("niks3:https://niks3.example")
	if err != nil {
		t.Fatal(err)
	}
	id := func(context.Context, string) (string, error) { return "", nil }
	for name, test := range map[string]struct {
		secrets Secrets
		lacks   bool
	}{
		"nothing":      {Secrets{}, true},
		"identity":     {Secrets{IDToken: id}, false},
		"later":        {Secrets{IDTokenLater: true}, false},
		"a token":      {Secrets{Env: []string{niks3Variable + "=t"}}, false},
		"an empty one": {Secrets{Env: []string{niks3Variable + "="}}, true},
	} {
		lacks := d.Lacks(test.secrets)
		if (lacks != nil) != test.lacks || lacks != nil && !strings.Contains(lacks.Error(), "id-token: write is not set. Add the line `id-token: write` below `permissions:`") {
			t.Errorf("%s: lacks %v", name, lacks)
		}
	}
	server := niks3test.Start(t, niks3test.Options{Dir: t.TempDir()})
	if d, err = Parse("niks3:" + server.URL + "?audience=x"); err != nil {
		t.Fatal(err)
	}
	var lacks *LackError
	if _, err := d.Push(t.Context(), shop{shelf: shelf{"a": nil}}, []string{shelved("a")}, Secrets{IDTokenLater: true}); !errors.As(err, &lacks) {
		t.Errorf("error: %v", err)
	}
}
