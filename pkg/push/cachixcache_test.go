package push

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const cachixKey = "fleet.cachix.org-1:MCgxJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zM="

func TestCachixKeys(t *testing.T) {
	asked := 0
	answer := func(w http.ResponseWriter) {
		_, _ = w.Write([]byte(`{"name": "fleet", "isPublic": true, "publicSigningKeys": ["` + cachixKey + `"]}`))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/api/v1/cache/fleet" || r.Header.Get("Authorization") != "Bearer t0ken" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w)
	}))
	defer server.Close()
	dial := func(token string) (Destination, error) {
		d := Destination{Name: "cachix:fleet", Substituter: "https://fleet.cachix.org", kind: &cachixCache{name: "fleet", api: server.URL + "/api/v1/cache/"}}
		err := d.Dial(t.Context(), Secrets{CachixToken: token})
		if err == nil {
			err = d.Dial(t.Context(), Secrets{CachixToken: token})
		}
		return d, err
	}
	d, err := dial("t0ken")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{cachixKey}, d.PublicKeys); diff != "" || asked != 1 || !d.Public {
		t.Errorf("asked %d times: %s", asked, diff)
	}
	if _, err := dial("wr0ng"); err == nil || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "401") {
		t.Errorf("got %v", err)
	}
	many := strings.Repeat(`"`+cachixKey+`", `, 20) + `"` + cachixKey + `"`
	for _, body := range []string{"", "{}", `{"publicSigningKeys": []}`, `[]`, `{"publicSigningKeys": ["fleet.cachix.org-1:AAAA"]}`, `{"publicSigningKeys": [` + many + `]}`} {
		answer = func(w http.ResponseWriter) { _, _ = w.Write([]byte(body)) }
		if d, err := dial("t0ken"); err == nil || d.PublicKeys != nil {
			t.Errorf("%q: %+v, %v", body, d, err)
		}
	}
}

func TestLacks(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	all := Secrets{AtticToken: "t", CachixToken: "t"}
	for address, want := range map[string]struct{ lacks, netrc string }{
		"attic:https://a.example.org/fleet": {"ATTIC_TOKEN", ""}, // where it is to be read from is known after Dial
		"cachix:fleet":                      {"CACHIX_AUTH_TOKEN", "machine fleet.cachix.org password t\n"},
		"file:///srv":                       {},
	} {
		d, err := Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Lacks(Secrets{}); (got == nil) != (want.lacks == "") || got != nil && !strings.HasPrefix(got.What, want.lacks) {
			t.Errorf("%s lacks %v", address, got)
		}
		if got := d.Lacks(all); got != nil {
			t.Errorf("%s with all of them lacks %v", address, got)
		}
		if got := d.Netrc(all); want.netrc != "" && got != want.netrc || d.Netrc(Secrets{}) != "" {
			t.Errorf("%s: the netrc is %q", address, got)
		}
	}
}
