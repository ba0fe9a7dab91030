package actions

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// Protocol is a version of the service's protocol.
type Protocol int

// The protocols.
const (
	V1 Protocol = 1
	V2 Protocol = 2
)

func (p Protocol) String() string { return fmt.Sprintf("v%d", int(p)) }

// Version is the default of Config.Version.
var Version = func() string {
	sum := sha256.Sum256([]byte("nix-matrix"))
	return hex.EncodeToString(sum[:])
}()

// Config has the address of the service and how it is called. Protocol, URL and
// Token are required; the zero value of every other field is its default.
type Config struct {
	Protocol Protocol
	// URL is the service's address: for v2 its origin, for v1 with its path. It
	// may contain a secret (act's does), so it is never shown.
	URL   string
	Token Token

	// DenyRead and DenyWrite make Open and Save fail with cache.ErrReadOnly
	// without asking the service.
	DenyRead, DenyWrite bool

	// Version, 64 characters, separates entries from those of other versions.
	Version string

	// Retries is how often a failed request is sent again, 5 by default, for a
	// block of a blob in total. Less than zero is never.
	Retries int
	// Wait is the unit of the pauses between tries where the service asks for
	// none: 1 to 2 units, then 2 to 4, then 3 to 6. By default 1 s.
	Wait time.Duration
	// Timeout bounds one call with all of its tries, and is the longest pause
	// that the service may ask for. Transfers of blobs are not counted. By
	// default 2 min, because limits are per minute.
	Timeout time.Duration
	// Stall is how long a download may bring less than 64 KiB before it is
	// continued on a fresh connection. By default 20 s. An upload may stall three
	// times as long, because sent bytes may still wait in the buffers of a slow
	// line.
	Stall time.Duration
	// afterFunc is time.AfterFunc, which tests replace to decide when a connection has
	// stalled.
	afterFunc httpcall.AfterFunc
	// BlockSize, in bytes, and Parallel are how uploads and downloads of more
	// than one block are cut and how many blocks travel at once. By default 16 MiB
	// and 8 for v2, 32 MiB and 4 for v1.
	BlockSize int64
	Parallel  int
	// Prefetch is how many blocks travel, or wait in memory until they are read, of all of
	// the cache's blobs together. By default that is 144 MiB.
	Prefetch int
	// Small is how many bytes of a blob are read when it is opened. A blob without
	// more bytes takes no further download. By default 256 KiB; less than zero is none.
	Small int64

	// Transport sends the requests; by default one like http.DefaultTransport,
	// without HTTP/2, where a fresh connection is a fresh stream only.
	Transport http.RoundTripper
	// Log gets a line for each failed try, at level Info. By default there is no log.
	Log *slog.Logger
}

func (c Config) String() string {
	host := "?"
	if u, err := url.Parse(c.URL); err == nil && u.Host != "" {
		host = u.Host
	}
	return fmt.Sprintf("Actions cache service %s at %s", c.Protocol, host)
}

// Format has every verb print the String, because fields are secrets.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue keeps secrets out of structured logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

func (c Config) withDefaults() Config {
	if c.Version == "" {
		c.Version = Version
	}
	if c.Retries == 0 {
		c.Retries = 5
	}
	c.Retries = max(c.Retries, 0)
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.Stall == 0 {
		c.Stall = 20 * time.Second
	}
	blockSize, parallel := int64(16<<20), 8
	if c.Protocol == V1 {
		blockSize, parallel = 32<<20, 4
	}
	if c.BlockSize == 0 {
		c.BlockSize = blockSize
	}
	if c.Parallel == 0 {
		c.Parallel = parallel
	}
	if c.Prefetch == 0 {
		const memory = 144 << 20
		c.Prefetch = int(max(1, memory/c.BlockSize))
	}
	if c.Small == 0 {
		c.Small = 256 << 10
	}
	if c.Transport == nil {
		transport := httpcall.HTTP1(16)
		transport.DisableCompression = true
		c.Transport = transport
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Protocol != V1 && c.Protocol != V2:
		return fmt.Errorf("the Actions cache service has no protocol %s", c.Protocol)
	case len(c.Version) != 64:
		return fmt.Errorf("the version of Actions cache entries has %d characters, not 64", len(c.Version))
	}
	_, err := serviceURL(c.URL)
	return err
}

// Token is a secret that is never printed.
type Token struct{ secret *string }

// NewToken returns the secret as a Token.
func NewToken(secret string) Token { return Token{&secret} }

func (t Token) String() string { return "(secret)" }

// GoString returns the String.
func (t Token) GoString() string { return t.String() }

// MarshalText returns the String.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t Token) reveal() string {
	if t.secret == nil {
		return ""
	}
	return *t.secret
}

// FromEnv returns the Config of the environment that the runner gives an action. A missing
// variable is an error that names it.
//
// The rules are those of the official client: hosts that are GitHub's own speak
// v2 if ACTIONS_CACHE_SERVICE_V2 is set, all others v1, and ACTIONS_CACHE_MODE
// is none, read, write or write-only. Actions that the token does not permit are
// not tried either.
func FromEnv(getenv func(string) string) (Config, error) {
	var c Config
	server := getenv("GITHUB_SERVER_URL")
	hosted, err := hosted(server)
	if err != nil {
		return Config{}, err
	}
	names := []string{"ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"}
	c.Protocol = V1
	if hosted && getenv("ACTIONS_CACHE_SERVICE_V2") != "" {
		names = []string{"ACTIONS_RESULTS_URL"}
		c.Protocol = V2
	}
	for _, name := range names {
		if c.URL = getenv(name); c.URL == "" {
			continue
		}
		u, err := serviceURL(c.URL)
		if err != nil {
			return Config{}, fmt.Errorf("%s: %w", name, err)
		}
		if c.Protocol == V2 {
			c.URL = u.Scheme + "://" + u.Host
		}
		break
	}
	if c.URL == "" {
		return Config{}, missing(strings.Join(names, " nor "))
	}
	secret := getenv("ACTIONS_RUNTIME_TOKEN")
	if secret == "" {
		return Config{}, missing("ACTIONS_RUNTIME_TOKEN")
	}
	c.Token = NewToken(secret)
	read, write := permissions(secret)
	switch strings.ToLower(strings.TrimSpace(getenv("ACTIONS_CACHE_MODE"))) {
	case "none":
		read, write = false, false
	case "read":
		write = false
	case "write-only":
		read = false
	}
	c.DenyRead, c.DenyWrite = !read, !write
	return c, nil
}

func missing(names string) error {
	verb := "is not set"
	if strings.Contains(names, " nor ") {
		names, verb = "neither "+names, "is set"
	}
	return fmt.Errorf("cannot find the Actions cache service: %s %s, because the runner sets it for actions only. "+
		"Start nix-matrix by its action, or use a directory with --cache dir:PATH", names, verb)
}

// hosted reports whether the server is GitHub's own and not a GitHub Enterprise
// Server.
func hosted(server string) (bool, error) {
	if server == "" {
		return true, nil
	}
	u, err := serviceURL(server)
	if err != nil {
		return false, fmt.Errorf("GITHUB_SERVER_URL: %w", err)
	}
	host := strings.ToLower(u.Hostname())
	return host == "github.com" || strings.HasSuffix(host, ".ghe.com") || strings.HasSuffix(host, ".localhost"), nil
}

// serviceURL parses an address. Its error does not repeat it, because it may
// contain a secret.
func serviceURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the address does not have the form https://HOST/")
	}
	return u, nil
}

// permissions reports whether the token's claim "ac" has a scope that may be read and one
// that may be written. For a token without the claim, which is not the service's, both are
// true.
func permissions(token string) (read, write bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return true, true
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return true, true
	}
	var claims struct {
		AC string `json:"ac"`
	}
	var scopes []struct{ Permission int }
	if json.Unmarshal(payload, &claims) != nil || json.Unmarshal([]byte(claims.AC), &scopes) != nil || len(scopes) == 0 {
		return true, true
	}
	const readBit, writeBit = 1, 2
	for _, scope := range scopes {
		read = read || scope.Permission&readBit != 0
		write = write || scope.Permission&writeBit != 0
	}
	return read, write
}
