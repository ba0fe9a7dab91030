package actions_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache/actions"
)

func TestFromEnv(t *testing.T) {
	const v1, v2 = actions.V1, actions.V2
	for _, test := range []struct {
		name     string
		env      string // NAME=value, one a line
		protocol actions.Protocol
		url      string
		err      string // what the error names, instead
	}{
		{"github.com", "ACTIONS_CACHE_SERVICE_V2=True\nACTIONS_RESULTS_URL=https://results.example/a/b?c", v2, "https://results.example", ""},
		{"named github.com", "GITHUB_SERVER_URL=https://GitHub.com\nACTIONS_CACHE_SERVICE_V2=x\nACTIONS_RESULTS_URL=https://results.example:8/", v2, "https://results.example:8", ""},
		{"ghe.com", "GITHUB_SERVER_URL=https://acme.ghe.com\nACTIONS_CACHE_SERVICE_V2=1\nACTIONS_RESULTS_URL=https://r.example/\nACTIONS_CACHE_URL=https://c.example/", v2, "https://r.example", ""},
		{"localhost", "GITHUB_SERVER_URL=http://github.localhost:3000\nACTIONS_CACHE_SERVICE_V2=1\nACTIONS_RESULTS_URL=http://r.example/", v2, "http://r.example", ""},
		{"server", "GITHUB_SERVER_URL=https://git.acme.example\nACTIONS_CACHE_SERVICE_V2=1\nACTIONS_RESULTS_URL=https://r.example/\nACTIONS_CACHE_URL=https://c.example/path/", v1, "https://c.example/path/", ""},
		{"server alike", "GITHUB_SERVER_URL=https://notgithub.com\nACTIONS_CACHE_SERVICE_V2=1\nACTIONS_RESULTS_URL=https://r.example/x/", v1, "https://r.example/x/", ""},
		{"act", "GITHUB_SERVER_URL=https://github.com\nACTIONS_CACHE_URL=http://127.0.0.1:5/secret/", v1, "http://127.0.0.1:5/secret/", ""},
		{"v1 by the other address", "ACTIONS_RESULTS_URL=https://r.example/x/", v1, "https://r.example/x/", ""},

		{"nothing", "", 0, "", "ACTIONS_CACHE_URL"},
		{"v2 without address", "ACTIONS_CACHE_SERVICE_V2=1\nACTIONS_CACHE_URL=https://c.example/", 0, "", "ACTIONS_RESULTS_URL is not set"},
		{"no token", "ACTIONS_CACHE_URL=https://c.example/\nACTIONS_RUNTIME_TOKEN=", 0, "", "ACTIONS_RUNTIME_TOKEN is not set"},
		{"broken address", "ACTIONS_CACHE_URL=c.example/s3cret", 0, "", "ACTIONS_CACHE_URL"},
		{"broken server", "GITHUB_SERVER_URL=::s3cret", 0, "", "GITHUB_SERVER_URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := actions.FromEnv(environment("ACTIONS_RUNTIME_TOKEN=t\n" + test.env))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("error: %v, want one about %s", err, test.err)
				}
				return
			}
			if err != nil || c.Protocol != test.protocol || c.URL != test.url || c.DenyRead || c.DenyWrite {
				t.Errorf("got %v at %s (%v, %v), %v, want %v at %s", c.Protocol, c.URL, c.DenyRead, c.DenyWrite, err, test.protocol, test.url)
			}
		})
	}
}

func TestFromEnvSaysWhatToDo(t *testing.T) {
	_, err := actions.FromEnv(environment(""))
	if err == nil || !strings.Contains(err.Error(), "--cache dir:PATH") {
		t.Errorf("error: %v", err)
	}
}

func TestPermissions(t *testing.T) {
	token := func(ac string) string {
		claims, _ := json.Marshal(map[string]string{"ac": ac})
		return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".sig"
	}
	for _, test := range []struct {
		name, token, mode   string
		denyRead, denyWrite bool
	}{
		{"opaque", "opaque", "", false, false},
		{"no JWT", "a.b.c", "", false, false},
		{"no claim", "e30.e30.x", "", false, false},
		{"broken claim", token("nonsense"), "", false, false},
		{"empty claim", token("[]"), "", false, false},
		{"both", token(`[{"Scope":"refs/heads/main","Permission":3}]`), "", false, false},
		{"read only", token(`[{"Scope":"a","Permission":1},{"Scope":"b","Permission":1}]`), "", false, true},
		{"own scope", token(`[{"Scope":"refs/pull/1/merge","Permission":3},{"Scope":"refs/heads/main","Permission":1}]`), "", false, false},
		{"write only", token(`[{"Scope":"a","Permission":2}]`), "", true, false},
		{"mode none", "opaque", "none", true, true},
		{"mode read", "opaque", " Read ", false, true},
		{"mode write", "opaque", "write", false, false},
		{"mode write-only", "opaque", "write-only", true, false},
		{"mode of tomorrow", "opaque", "append", false, false},
		{"mode gives nothing", token(`[{"Scope":"a","Permission":1}]`), "write", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := actions.FromEnv(environment("ACTIONS_CACHE_URL=https://c.example/\nACTIONS_RUNTIME_TOKEN=" + test.token + "\nACTIONS_CACHE_MODE=" + test.mode))
			if err != nil || c.DenyRead != test.denyRead || c.DenyWrite != test.denyWrite {
				t.Errorf("denied: read %v, write %v, %v", c.DenyRead, c.DenyWrite, err)
			}
		})
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	c, err := actions.FromEnv(environment("ACTIONS_CACHE_URL=https://c.example/s3cret/\nACTIONS_RUNTIME_TOKEN=t0ken"))
	if err != nil {
		t.Fatal(err)
	}
	type unexported struct{ token actions.Token }
	var text strings.Builder
	for _, value := range []any{c, &c, c.Token, &c.Token, unexported{c.Token}, []actions.Config{c}, actions.New(c)} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&text, format+"\n", value)
		}
	}
	slog.New(slog.NewJSONHandler(&text, nil)).Info("", "config", c, "token", c.Token)
	slog.New(slog.NewTextHandler(&text, nil)).Info("", "config", c, "token", c.Token)
	if asJSON, err := json.Marshal(c.Token); err != nil {
		t.Error(err)
	} else {
		text.Write(asJSON)
	}
	for _, secret := range []string{"t0ken", fmt.Sprintf("%x", "t0ken"), "s3cret", fmt.Sprintf("%x", "s3cret")} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("%s is in %s", secret, text.String())
		}
	}
}

func TestConfigThatCannotWork(t *testing.T) {
	for _, c := range []actions.Config{
		{},
		{Protocol: 3, URL: "https://c.example/"},
		{Protocol: actions.V2, URL: "c.example"},
		{Protocol: actions.V2, URL: "https://c.example/", Version: "1"},
	} {
		if _, err := actions.New(c).Open(t.Context(), "key"); err == nil {
			t.Errorf("%#v opens", c)
		}
		if err := actions.New(c).Save(t.Context(), "key", strings.NewReader("x"), 1); err == nil {
			t.Errorf("%#v saves", c)
		}
	}
}

// environment is a getenv of lines NAME=value, of which the last counts.
func environment(lines string) func(string) string {
	env := map[string]string{}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		env[name] = value
	}
	return func(name string) string { return env[name] }
}
