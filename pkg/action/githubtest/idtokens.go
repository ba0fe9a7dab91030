package githubtest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// IDTokens is the service of which a job with the permission id-token: write gets tokens of its identity.
// It is an http.Handler, and refuses what GitHub's does not ask for.
type IDTokens struct {
	Issuer   string        // that the tokens name
	Lifetime time.Duration // of a token, by default five minutes
	// Fault may answer the n-th request, counted from 1; true means that it has.
	Fault func(w http.ResponseWriter, n int) bool

	secret string
	server *httptest.Server

	mu     sync.Mutex
	issued map[string]string // audience by token
	asked  int
}

// Start listens on a free port of this machine, for as long as the test runs.
func (s *IDTokens) Start(t interface {
	Helper()
	Cleanup(func())
}) *IDTokens {
	t.Helper()
	if s.Lifetime == 0 {
		s.Lifetime = 5 * time.Minute
	}
	s.secret, s.issued = "request-"+rand.Text(), map[string]string{}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	return s
}

// Env are the variables of a job that has the permission.
func (s *IDTokens) Env() map[string]string {
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": s.secret,
		"ACTIONS_ID_TOKEN_REQUEST_URL":   s.server.URL + "/token?api-version=2.0",
	}
}

// Audience returns for whom a token is, or an empty text if it is none or has ended.
func (s *IDTokens) Audience(token string) string {
	parts := strings.Split(token, ".")
	var claims struct{ Exp int64 }
	if len(parts) == 3 {
		data, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(data, &claims)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Unix() > claims.Exp {
		return ""
	}
	return s.issued[token]
}

// Asked counts the requests so far.
func (s *IDTokens) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *IDTokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	audience := r.URL.Query().Get("audience")
	switch {
	case s.Fault != nil && s.Fault(w, s.asked):
		return
	case r.Method != http.MethodGet || r.URL.Path != "/token" || r.URL.Query().Get("api-version") != "2.0" || audience == "":
		http.Error(w, `{"message": "bad request"}`, http.StatusBadRequest)
		return
	case !strings.EqualFold(r.Header.Get("Authorization"), "bearer "+s.secret):
		http.Error(w, `{"message": "unauthorized"}`, http.StatusUnauthorized)
		return
	}
	part := func(value any) string {
		data, _ := json.Marshal(value)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	token := part(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": s.Issuer, "aud": audience, "sub": "repo:org/fleet:ref:refs/heads/main", "repository": "org/fleet",
		"exp": time.Now().Add(s.Lifetime).Unix(), "jti": rand.Text(),
	}) + "." + rand.Text()
	s.issued[token] = audience
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"count": 1000, "value": token})
}
