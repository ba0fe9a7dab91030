package action_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/action/githubtest"
)

// tokensOf is the source of tokens of a job, and its log.
func tokensOf(t *testing.T, s *githubtest.IDTokens) (*action.IDTokens, *bytes.Buffer) {
	t.Helper()
	env := s.Start(t).Env()
	env["GITHUB_ACTIONS"] = "true"
	log := &bytes.Buffer{}
	tokens := action.New(func(name string) string { return env[name] }, log).IDTokens()
	if tokens == nil {
		t.Fatal("the job has no tokens")
	}
	return tokens, log
}

// A token is asked for once for each audience, until it ends.
func TestIDTokens(t *testing.T) {
	for name, test := range map[string]struct {
		lifetime time.Duration
		asked    int
	}{
		"it lasts":      {time.Hour, 2},
		"it ends":       {30 * time.Second, 4}, // sooner than it may take to send it
		"it ended then": {-time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			server := &githubtest.IDTokens{Lifetime: test.lifetime}
			tokens, log := tokensOf(t, server)
			for _, audience := range []string{"https://a.example", "https://b.example/&x=1", "https://a.example", "https://b.example/&x=1"} {
				token, err := tokens.Token(t.Context(), audience)
				if err != nil {
					t.Fatal(err)
				}
				if got := server.Audience(token); got != audience && test.lifetime > 0 {
					t.Errorf("the token is for %q, want %q", got, audience)
				}
				if !strings.Contains(log.String(), "::add-mask::"+token) {
					t.Error("the token is not masked")
				}
			}
			if server.Asked() != test.asked {
				t.Errorf("asked %d times, want %d", server.Asked(), test.asked)
			}
		})
	}
}

func TestIDTokensRefused(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, int) bool {
		return func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for name, test := range map[string]struct {
		fault      func(http.ResponseWriter, int) bool
		permission bool
		says       string
		asked      int
	}{
		"no permission":      {answer(403, `{"message": "not allowed"}`), true, "403: not allowed. Add the line `id-token: write` below `permissions:` of the job", 1},
		"an old request":     {answer(401, ``), true, "id-token: write", 1},
		"GitHub is down":     {answer(503, ``), false, "the server answers 503", 5},
		"no token":           {answer(200, `{}`), false, "the answer has none", 1},
		"no JSON":            {answer(200, `<html>`), false, "something other than the expected JSON", 1},
		"two lines":          {answer(200, `{"value": "a.b.c\nX: y"}`), false, "the answer has none", 1},
		"endless":            {answer(200, `{"value": "a.b.`+strings.Repeat("c", 20<<10)+`"}`), false, "the answer has none", 1},
		"it is back at last": {func(w http.ResponseWriter, n int) bool { return n < 3 && answer(500, "")(w, n) }, false, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			server := &githubtest.IDTokens{Fault: test.fault}
			tokens, _ := tokensOf(t, server)
			_, err := tokens.Token(t.Context(), "https://a.example")
			switch {
			case test.says == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, action.ErrNoIDToken) != test.permission:
				t.Errorf("error: %v, want it to say %q", err, test.says)
			case strings.Contains(err.Error(), "request-"), strings.Contains(err.Error(), "127.0.0.1"):
				t.Errorf("the error has a secret: %v", err)
			}
			if server.Asked() != test.asked {
				t.Errorf("asked %d times, want %d", server.Asked(), test.asked)
			}
		})
	}
}

func TestNoIDTokens(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"nothing":    {},
		"no secret":  {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://github.example/x"},
		"no address": {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3cret"},
		"a file":     {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3cret", "ACTIONS_ID_TOKEN_REQUEST_URL": "file:///etc/passwd"},
		"nonsense":   {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3cret", "ACTIONS_ID_TOKEN_REQUEST_URL": "::"},
	} {
		if tokens := action.New(func(name string) string { return env[name] }, io.Discard).IDTokens(); tokens != nil {
			t.Errorf("%s: there are tokens", name)
		}
	}
	for server, want := range map[string]string{
		"":                     "https://token.actions.githubusercontent.com",
		"https://github.com":   "https://token.actions.githubusercontent.com",
		"https://ghe.example":  "https://ghe.example/_services/token",
		"https://ghe.example/": "https://ghe.example/_services/token",
	} {
		if got := action.New(func(string) string { return server }, io.Discard).Issuer(); got != want {
			t.Errorf("%s: the issuer is %s", server, got)
		}
	}
}
