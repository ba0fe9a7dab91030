package s3

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// Credentials are secrets that are never printed. The zero value is anonymous access.
type Credentials struct{ secret *credentials.Value }

// Anonymous reports whether there are none.
func (c Credentials) Anonymous() bool { return c.secret == nil }

func (c Credentials) String() string { return "(credentials)" }

// Format has every verb print the String.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// CredentialsFrom returns the credentials in the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
// and AWS_SESSION_TOKEN, and anonymous ones without the first two. One of them alone is an error.
func CredentialsFrom(getenv func(string) string) (Credentials, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	v := credentials.Value{
		AccessKeyID: get("AWS_ACCESS_KEY_ID"), SecretAccessKey: get("AWS_SECRET_ACCESS_KEY"), SessionToken: get("AWS_SESSION_TOKEN"),
		SignerType: credentials.SignatureV4,
	}
	switch {
	case v.AccessKeyID == "" && v.SecretAccessKey == "":
		return Credentials{}, nil
	case v.AccessKeyID == "":
		return Credentials{}, errors.New("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not: set both or none")
	case v.SecretAccessKey == "":
		return Credentials{}, errors.New("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not: set both or none")
	}
	return Credentials{&v}, nil
}

// RegionFrom returns the region in the variables AWS_REGION and AWS_DEFAULT_REGION, empty without
// them.
func RegionFrom(getenv func(string) string) (string, error) {
	region := cmp.Or(strings.TrimSpace(getenv("AWS_REGION")), strings.TrimSpace(getenv("AWS_DEFAULT_REGION")))
	if region != "" && !regionPattern().MatchString(region) {
		return "", fmt.Errorf("AWS_REGION or AWS_DEFAULT_REGION is %.80q, which is not the name of a region", region)
	}
	return region, nil
}

// Config says where a bucket is and how it is called. The zero value of every field but Address is
// its default.
type Config struct {
	Address
	Credentials Credentials

	// Retries is how often a failed request is sent again, 5 by default. Less than zero is never.
	Retries int
	// Wait is the unit of the pauses between tries: 1 to 2 units, then 2 to 4, then 3 to 6. By
	// default 1 s.
	Wait time.Duration
	// Stall is how long a transfer may bring less than 64 KiB, or take nothing, before it is
	// sent again on a fresh connection. By default 20 s.
	Stall time.Duration
	// PartSize, in bytes and at least 5 MiB, and Parallel are how uploads of more than one part
	// are cut and how many parts travel at once. By default 16 MiB and 4.
	PartSize int64
	Parallel int
	// Reserve is for how long an upload of more than one part keeps others from its key, should its process be
	// killed. By default 2 h.
	Reserve time.Duration
	// Small is how many bytes of a blob are read when it is opened. By default 64 KiB.
	Small int64

	// Transport sends the requests; by default one like http.DefaultTransport, without HTTP/2.
	Transport http.RoundTripper
	// Log gets a line for each failed try, at level Info. By default there is no log.
	Log *slog.Logger
	// Warn is called once for each fault of the server that the user can mend and that costs no
	// more than the cache. It may be nil.
	Warn func(title string, err error)
}

func (c Config) withDefaults() Config {
	c.Region = cmp.Or(c.Region, "us-east-1")
	c.Retries = max(cmp.Or(c.Retries, 5), 0)
	c.Wait = cmp.Or(c.Wait, time.Second)
	c.Stall = cmp.Or(c.Stall, 20*time.Second)
	c.PartSize = cmp.Or(c.PartSize, 16<<20)
	c.Parallel = cmp.Or(c.Parallel, 4)
	c.Reserve = cmp.Or(c.Reserve, 2*time.Hour)
	c.Small = cmp.Or(c.Small, 64<<10)
	if c.Transport == nil {
		t := httpcall.HTTP1(16)
		t.DisableCompression = true
		c.Transport = t
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Bucket is a place for caches, one for each way to combine scopes.
type Bucket struct {
	config Config
	client client

	probing sync.Mutex
	creates creation

	warned sync.Map              // titles
	denied atomic.Pointer[error] // why nothing can be read without credentials
}

// New returns the bucket of a config. It sends no request.
func New(config Config) (*Bucket, error) {
	c := config.withDefaults()
	core, err := newCore(&c)
	if err != nil {
		return nil, err
	}
	return &Bucket{config: c, client: newClient(core)}, nil
}

// A Scope is a part of a bucket, for the cache of a ref. The zero value is the default scope, for the
// default branch.
type Scope struct {
	Class string // such as "proposals", which bucket policies can name; empty for the default scope
	Name  string // any text
}

// maxScope is the most bytes of a scope's name in the name of an object.
const maxScope = 120

// dir returns what is before the keys of a scope, with a slash at its end unless it is empty.
func (b *Bucket) dir(s Scope) string {
	dir := b.classDir(s)
	if s.Name != "" {
		name := cache.Escape(s.Name)
		if len(name) > maxScope {
			sum := sha256.Sum256([]byte(s.Name))
			name = fmt.Sprintf("%s+%x", name[:maxScope-33], sum[:16])
		}
		dir += name + "/"
	}
	return dir
}

// classDir returns what is before the keys of all scopes of a class.
func (b *Bucket) classDir(s Scope) string {
	var dir string
	for _, part := range []string{b.config.Prefix, s.Class} {
		if part != "" {
			dir += part + "/"
		}
	}
	return dir
}

// scoped is a cache that writes one scope and reads several.
type scoped struct {
	*Bucket
	own  Scope
	dirs []string // own first
}

// Cache returns the cache that writes into a scope, and reads that and then others, in their order.
// List and Remove are about the scope that it writes.
func (b *Bucket) Cache(own Scope, others ...Scope) cache.Collectable {
	c := &scoped{Bucket: b, own: own, dirs: []string{b.dir(own)}}
	for _, s := range others {
		c.dirs = append(c.dirs, b.dir(s))
	}
	return c
}

// warn warns of a fault once.
func (b *Bucket) warn(title string, err error) {
	if _, again := b.warned.LoadOrStore(title, true); !again && b.config.Warn != nil {
		b.config.Warn(title, err)
	}
}
