package s3

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nearest"
)

// Scheme begins the address of a cache in a bucket.
const Scheme = "s3://"

// An Address says where a cache is, and has no secret: s3://BUCKET/PREFIX?PARAMETERS.
type Address struct {
	Bucket   string
	Prefix   string // before the names of all objects, without a slash at its ends; may be empty
	Endpoint string // HOST or HOST:PORT; empty for Amazon's
	Plain    bool   // http, not https
	Region   string // empty for that of the environment
	Branch   string // that a machine outside of GitHub Actions reads
}

// maxPrefix is the most bytes of a prefix. Names of objects have at most 1024, of which a key takes
// up to 512.
const maxPrefix = 200

var (
	bucketPattern  = lazyregexp.New(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	segmentPattern = lazyregexp.New(`^[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*$`)
	regionPattern  = lazyregexp.New(`^[a-z0-9][a-z0-9-]{0,62}$`)
	hostPattern    = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	branchPattern  = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,199}$`)
)

// parameters are those that an address may have.
var parameters = []string{"endpoint", "region", "scheme", "branch"}

// ErrSecret says that an address has credentials, so that it must not be shown.
var ErrSecret = errors.New("must not contain credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")

// secretParameter matches names of parameters that would have a secret.
var secretParameter = lazyregexp.New(`(?i)key|secret|token|password|signature|credential`)

// hasSecret reports whether an address seems to contain credentials.
func hasSecret(address string) bool {
	rest, ok := strings.CutPrefix(address, Scheme)
	place, query, _ := strings.Cut(rest, "?")
	if strings.Contains(place, "@") {
		return ok
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err != nil || secretParameter().MatchString(decoded) || strings.Contains(value, "@") && name == "endpoint" {
			return ok
		}
	}
	return false
}

// ParseAddress parses an address. Its error says what the address must be, and repeats no part that
// may be a secret.
func ParseAddress(text string) (Address, error) {
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return Address{}, errors.New("must be s3://BUCKET/PREFIX?region=REGION")
	}
	if hasSecret(text) {
		return Address{}, ErrSecret
	}
	place, query, _ := strings.Cut(rest, "?")
	var a Address
	a.Bucket, a.Prefix, _ = strings.Cut(place, "/")
	a.Prefix = strings.TrimSuffix(a.Prefix, "/")
	if _, err := netip.ParseAddr(a.Bucket); err == nil || !bucketPattern().MatchString(a.Bucket) || strings.Contains(a.Bucket, "..") {
		return Address{}, fmt.Errorf("must have a bucket of 3 to 63 characters a-z, 0-9, dots and dashes, not %.80q", a.Bucket)
	}
	if err := checkPrefix(a.Prefix); err != nil {
		return Address{}, err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Address{}, errors.New("must have parameters of the form NAME=VALUE, separated by &")
	}
	for name, all := range values {
		switch {
		case !slices.Contains(parameters, name):
			return Address{}, fmt.Errorf("has no parameter %.40q%s; there are %s", name, nearest.Hint(name, parameters), strings.Join(parameters, ", "))
		case len(all) != 1:
			return Address{}, fmt.Errorf("must have the parameter %s once", name)
		}
	}
	a.Region, a.Branch = values.Get("region"), values.Get("branch")
	if values.Has("region") && !regionPattern().MatchString(a.Region) {
		return Address{}, fmt.Errorf("must have a region of a-z, 0-9 and dashes, such as eu-central-1, not %.80q", a.Region)
	}
	if values.Has("branch") && (!branchPattern().MatchString(a.Branch) || strings.Contains(a.Branch, "..")) {
		return Address{}, fmt.Errorf("must have the name of a branch, such as main, not %.80q", a.Branch)
	}
	return a, a.setEndpoint(values)
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxPrefix {
		return fmt.Errorf("must have a prefix of at most %d characters", maxPrefix)
	}
	for segment := range strings.SplitSeq(prefix, "/") {
		if !segmentPattern().MatchString(segment) {
			return fmt.Errorf("must have a prefix of names of A-Z, a-z, 0-9 and ._=+- with slashes between them, not %.80q", prefix)
		}
	}
	return nil
}

func (a *Address) setEndpoint(values url.Values) error {
	endpoint, scheme := values.Get("endpoint"), values.Get("scheme")
	for _, s := range []string{"http", "https"} {
		if host, ok := strings.CutPrefix(endpoint, s+"://"); ok && scheme == "" {
			endpoint, scheme = strings.TrimSuffix(host, "/"), s
		}
	}
	if values.Has("scheme") && scheme != "http" && scheme != "https" {
		return fmt.Errorf("must have the scheme http or https, not %.80q", scheme)
	}
	if !values.Has("endpoint") {
		if scheme == "http" {
			return errors.New("must have an endpoint with the scheme http")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port = endpoint, "443"
	}
	number, err := strconv.ParseUint(port, 10, 16)
	_, notIP := netip.ParseAddr(host)
	if err != nil || number == 0 || notIP != nil && !hostPattern().MatchString(host) || strings.Contains(host, "..") {
		return fmt.Errorf("must have an endpoint of the form HOST or HOST:PORT, without a path, not %.80q", endpoint)
	}
	a.Endpoint, a.Plain = endpoint, scheme == "http"
	return nil
}

// String returns the address of the bucket and the prefix.
func (a Address) String() string {
	return strings.TrimSuffix(Scheme+a.Bucket+"/"+a.Prefix, "/")
}
