package action

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// IDTokenPermission is the permission without which a job gets no token of its identity.
const IDTokenPermission = "id-token: write"

// IDTokenAdvice says how a job gets that permission.
const IDTokenAdvice = "Add the line `" + IDTokenPermission + "` below `permissions:` of the job, or of the job that calls the reusable workflow"

// ErrNoIDToken says that GitHub gives this job no token of its identity. The error around it names the
// permission.
var ErrNoIDToken = errors.New("the job may not prove its identity")

// IDTokens are tokens by which a job proves to a server which repository, ref and workflow it runs for
// (OpenID Connect). Its methods are safe for concurrent use.
type IDTokens struct {
	address *url.URL
	secret  string // with which the runner asks for tokens
	mask    func(secret string)
	client  *http.Client
	policy  *httpcall.Policy

	mu     sync.Mutex
	tokens map[string]idToken // by audience
}

type idToken struct {
	text string
	till time.Time // when it is too old to be sent
}

const (
	// A token that ends sooner is not sent: the request may wait before it is read.
	idTokenMargin = time.Minute
	// Of a token without a readable end. GitHub's last five minutes or more.
	idTokenShortest = 2 * time.Minute

	idTokenAnswer  = 64 << 10 // bytes
	idTokenLongest = 16 << 10 // bytes: servers take no longer header
	idTokenStall   = 30 * time.Second
)

// IDTokens returns the source of the tokens of this job, or nil if GitHub gives it none.
func (a *Action) IDTokens() *IDTokens {
	secret, address := strings.TrimSpace(a.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")), strings.TrimSpace(a.getenv("ACTIONS_ID_TOKEN_REQUEST_URL"))
	if secret == "" || address == "" {
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil
	}
	return &IDTokens{
		address: u, secret: secret, mask: a.Mask, tokens: map[string]idToken{},
		client: &http.Client{
			Transport:     &httpcall.Transport{Next: http.DefaultTransport, Stall: idTokenStall, MaxAnswer: idTokenAnswer},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		policy: &httpcall.Policy{Retries: 4, Pause: httpcall.Exponential(time.Second, time.Minute), Spread: true, MaxPause: time.Minute},
	}
}

// Issuer returns the address that tokens of a job's identity name as theirs: that of github.com, or of an
// Enterprise Server.
func (a *Action) Issuer() string {
	server := strings.TrimSuffix(a.getenv("GITHUB_SERVER_URL"), "/")
	if server == "" || server == "https://github.com" {
		return "https://token.actions.githubusercontent.com"
	}
	return server + "/_services/token"
}

// jwt is the form of a token: three parts, of which the second has the claims.
var jwt = lazyregexp.New(`^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$`)

// Token returns a token for the server that calls itself by that audience. It is valid for a minute at
// least, and kept out of the log. The error wraps ErrNoIDToken if the permission is missing.
func (t *IDTokens) Token(ctx context.Context, audience string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.tokens[audience]; ok && time.Now().Before(known.till) {
		return known.text, nil
	}
	t.mask(t.secret)
	address := *t.address
	query := address.Query()
	query.Set("audience", audience)
	address.RawQuery = query.Encode()
	var answer struct{ Value string }
	err := t.policy.Ask(ctx, t.client, httpcall.Call{
		Method: http.MethodGet, Address: address.String(),
		Header: http.Header{"Authorization": {"Bearer " + t.secret}, "Accept": {"application/json"}},
	}, &answer, func(resp *http.Response, data []byte) error {
		var said struct{ Message string }
		_ = httpcall.Unmarshal(data, &said) // or it says nothing
		err := error(httpcall.NewStatusError(resp, "", said.Message, t.secret))
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			err = fmt.Errorf("%w: %w. %s", ErrNoIDToken, err, IDTokenAdvice)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("cannot get a token of the job's identity from GitHub: %w", err)
	}
	parts := jwt().FindStringSubmatch(answer.Value)
	if parts == nil || len(answer.Value) > idTokenLongest {
		return "", errors.New("cannot get a token of the job's identity from GitHub: the answer has none")
	}
	t.mask(answer.Value)
	t.tokens[audience] = idToken{answer.Value, idTokenEnd(parts[1])}
	return answer.Value, nil
}

// idTokenEnd returns until when a token with these claims is sent.
func idTokenEnd(claims string) time.Time {
	var says struct {
		Exp float64 // seconds since 1970
	}
	data, err := base64.RawURLEncoding.DecodeString(claims)
	if err == nil {
		err = json.Unmarshal(data, &says)
	}
	if err != nil || says.Exp <= 0 || says.Exp > float64(1<<40) {
		return time.Now().Add(idTokenShortest)
	}
	return time.Unix(int64(says.Exp), 0).Add(-idTokenMargin)
}
