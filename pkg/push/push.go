// Package push sends store paths to binary caches.
package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// Nix is what pushing needs of Nix.
type Nix interface {
	Copy(ctx context.Context, destination string, paths []string) (nix.Traffic, error)
	Cachix(ctx context.Context, name string, paths []string) error
	Closure(ctx context.Context, paths ...string) (map[string]nix.PathInfo, error)
	NAR(ctx context.Context, path string) (io.ReadCloser, error)
}

// Secrets are what destinations may ask for. Each may be empty.
type Secrets struct {
	KeyFile     string // with the secret key that signs what nix copy pushes
	PublicKey   string // its public half, which is no secret
	AtticToken  string
	CachixToken string
	CachixKey   string
	Netrc       string // lines with users and passwords of http binary caches
	// Env has variables, NAME=VALUE, for the programs that push.
	Env []string
	// SSHKey says that there is a key for stores by ssh.
	SSHKey bool
	// Bare says that the machine has nothing of its own, as GitHub's runners: what is
	// not among these is not there.
	Bare bool
}

// A Destination is a binary cache to push to.
type Destination struct {
	// Name is what a person calls it, without credentials.
	Name string
	// Substituter is the address to read from what was pushed. Of an Attic cache,
	// it is known after Dial.
	Substituter string
	// PublicKeys are those that paths from there are signed with, as far as they
	// are known, which they are after Dial.
	PublicKeys []string
	// Public says whether anybody can read it, as far as that is known, which it is
	// after Dial of an Attic or Cachix cache.
	Public bool

	address string // for nix copy
	cachix  *cachixCache
	attic   *atticCache
}

// The kinds of stores that `nix copy --to` speaks.
var schemes = map[string]bool{
	"file": true, "http": true, "https": true, "s3": true, "ssh": true, "ssh-ng": true, "local": true, "unix": true,
}

// cachixHost is the address that Cachix serves a cache at.
var cachixHost = regexp.MustCompile(`^https?://([A-Za-z0-9-]+)\.cachix\.org/?(?:\?|$)`)

// CheckForm returns an error if a person who knows other addresses may have written the
// address of a binary cache, which Nix would take for another one, or for a directory here.
func CheckForm(address string) error {
	dir, file := strings.CutPrefix(address, "file://")
	switch {
	case file && !strings.HasPrefix(dir, "/"):
		return fmt.Errorf("%q names a host, not a directory. Write file:///%s", nix.Redact(address), nix.Redact(dir))
	case strings.HasPrefix(address, "/"):
		return fmt.Errorf("%q has no scheme. Write file://%s", address, address)
	case bareHost.MatchString(address):
		return fmt.Errorf("%q has no scheme. Write https://%s", address, address)
	}
	return nil
}

// bareHost is the name of a server without a scheme, perhaps with a path.
var bareHost = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?(/[^ :@]*)?$`)

// Parse reads the address of a destination.
func Parse(address string) (Destination, error) {
	scheme, rest, ok := strings.Cut(address, ":")
	name := nix.Redact(address)
	if err := CheckForm(address); err != nil {
		return Destination{}, fmt.Errorf("push: %w", err)
	}
	if host := cachixHost.FindStringSubmatch(address); host != nil {
		return Destination{}, fmt.Errorf("push: %q: Cachix takes no pushes by its address. Write cachix:%s", name, host[1])
	}
	switch {
	case !ok || rest == "":
		return Destination{}, fmt.Errorf("push: %q is not the address of a binary cache; write for example attic:https://SERVER/CACHE, cachix:NAME, s3://BUCKET, https://HOST or file:///DIR", name)
	case scheme == "cachix":
		if valid.Name(rest) != nil {
			return Destination{}, fmt.Errorf("push: %q: after cachix: goes the name of the cache, such as cachix:my-fleet", name)
		}
		return Destination{Name: address, Substituter: "https://" + rest + ".cachix.org", cachix: &cachixCache{name: rest, api: cachixAPI}}, nil
	case scheme == "attic":
		return parseAttic(address, rest)
	case !schemes[scheme]:
		return Destination{}, fmt.Errorf("push: %q: nothing speaks %q; write for example attic:https://SERVER/CACHE, cachix:NAME, s3://BUCKET, https://HOST or file:///DIR", name, scheme)
	}
	if _, err := url.Parse(name); err != nil { // whose error may quote what it likes
		return Destination{}, fmt.Errorf("push: the address is not valid: %w", err)
	}
	if _, err := url.Parse(address); err != nil {
		return Destination{}, fmt.Errorf("push: %q: the password can't stand like that in an address: percent-encode it", name)
	}
	if err := valid.Substituter(address); err != nil {
		return Destination{}, fmt.Errorf("push: %w", err)
	}
	return Destination{Name: name, Substituter: address, address: address}, nil
}

// Dial asks a destination what is to be known for reading from it: an Attic
// server for address and key, Cachix for the keys. All others are read where they
// are written, and what we sign is known by our key. Its error is a *RefusedError where
// the destination's answer makes it certain that nothing can be pushed there.
func (d *Destination) Dial(ctx context.Context, secrets Secrets) error {
	switch {
	case d.attic != nil:
		c, err := d.attic.dial(ctx, secrets.AtticToken)
		if err != nil {
			return refusedBy(err)
		}
		if err := cmp.Or(valid.Substituter(c.Substituter()), valid.Key(c.PublicKey())); err != nil {
			return fmt.Errorf("the server's configuration: %w", err)
		}
		d.Substituter, d.PublicKeys, d.Public = c.Substituter(), []string{c.PublicKey()}, c.Public()
	case d.cachix != nil:
		keys, err := d.cachix.keys(ctx, secrets.CachixToken)
		if err != nil {
			return err
		}
		if err := valid.All(valid.Key, keys...); err != nil {
			return fmt.Errorf("the keys of %s: %w", d.Name, err)
		}
		d.PublicKeys, d.Public = keys, d.cachix.public
	default:
		if secrets.PublicKey != "" {
			d.PublicKeys = []string{secrets.PublicKey}
		}
		if strings.HasPrefix(d.address, "http") {
			return askHTTP(ctx, d.address, secrets.Netrc)
		}
	}
	return nil
}

// Netrc is the line of a netrc file that lets Nix read from a destination that
// wants a token, or empty.
func (d *Destination) Netrc(secrets Secrets) string {
	var token string
	switch {
	case d.attic != nil:
		token = secrets.AtticToken
	case d.cachix != nil:
		token = secrets.CachixToken
	}
	u, err := url.Parse(d.Substituter)
	if token == "" || err != nil {
		return ""
	}
	return fmt.Sprintf("machine %s password %s\n", u.Hostname(), token)
}

// Lacks names the secret without which nothing can be pushed there, as in a pull
// request from a fork; empty if it is not known to be missing.
func (d *Destination) Lacks(secrets Secrets) string {
	switch {
	case d.attic != nil && secrets.AtticToken == "":
		return "ATTIC_TOKEN (input attic_token)"
	case d.cachix != nil && secrets.CachixToken == "" && secrets.CachixKey == "" && !cachixConfigured():
		return "CACHIX_AUTH_TOKEN (input cachix_auth_token) or CACHIX_SIGNING_KEY (input cachix_signing_key)"
	case strings.HasPrefix(d.address, "s3:"):
		return secrets.lacksAWS()
	case strings.HasPrefix(d.address, "ssh") && secrets.Bare && !secrets.SSHKey && os.Getenv("SSH_AUTH_SOCK") == "":
		return "an ssh key (input ssh_key)"
	}
	return ""
}

// lacksAWS names a variable of AWS that is said to be there and empty, or that none
// is where there is nothing else.
func (s *Secrets) lacksAWS() string {
	for _, variable := range slices.Concat(s.Env, os.Environ()) {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case !strings.HasPrefix(name, "AWS_"):
		case value == "" && slices.Contains(s.Env, variable):
			return name + " (input env)"
		case name != "AWS_REGION" && name != "AWS_DEFAULT_REGION":
			return ""
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(filepath.Join(home, ".aws")); err == nil {
			return ""
		}
	}
	if !s.Bare {
		return "" // the machine may have a role
	}
	return "AWS_ACCESS_KEY_ID (input env)"
}

// Program returns the name of the program that pushes there, which is empty where none
// but Nix is needed.
func (d *Destination) Program() string {
	if d.cachix != nil {
		return "cachix"
	}
	return ""
}

// NeedsFiles says whether what is pushed must be on this machine.
func (d *Destination) NeedsFiles() bool { return d.cachix != nil }

// Missing says whether a destination is a directory that is yet to be made. A
// daemon that is asked to read from there would make it, for itself alone.
func (d *Destination) Missing() bool {
	dir, ok := strings.CutPrefix(d.address, "file://")
	if !ok {
		return false
	}
	dir, _, _ = strings.Cut(dir, "?")
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// Withdraw makes a binary cache in a directory forget paths, so that the next Push sends
// them again. It reports whether it could: others take no path that they say they have.
func (d *Destination) Withdraw(paths []string) (bool, error) {
	dir, ok := strings.CutPrefix(d.address, "file://")
	if !ok {
		return false, nil
	}
	dir, _, _ = strings.Cut(dir, "?")
	for _, path := range paths {
		hash, _, _ := strings.Cut(filepath.Base(path), "-")
		if err := os.Remove(filepath.Join(dir, hash+".narinfo")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// Push sends the closures of the paths. Beside an error too, it says what the
// destination lacked and has got, as far as that is known: of Cachix, it is not. The
// error is a *RefusedError where the destination's answer is the reason.
//
// DRV!* among the paths stands for the outputs of a derivation, which are among them too:
// where outputs follow from what is in them, a destination must be told which derivation
// has them. Those that have no place for that get the outputs alone.
func (d Destination) Push(ctx context.Context, n Nix, paths []string, secrets Secrets) (sent nix.Traffic, err error) {
	if d.cachix != nil || d.attic != nil || strings.HasPrefix(d.address, "ssh:") {
		paths = slices.DeleteFunc(slices.Clone(paths), IsDerivation)
	}
	switch {
	case d.cachix != nil:
		err = n.Cachix(ctx, d.cachix.name, paths)
	case d.attic != nil:
		sent, err = d.attic.push(ctx, n, paths, secrets.AtticToken)
	default:
		sent, err = n.Copy(ctx, d.target(secrets), paths)
	}
	return sent, refusedBy(err)
}

// IsDerivation reports whether one of the paths to push is DRV!*.
func IsDerivation(path string) bool { return strings.HasSuffix(path, "!*") }

// target is the address for nix copy.
func (d *Destination) target(secrets Secrets) string {
	address := d.address
	if !nix.IsBinaryCache(address) {
		return address
	}
	if secrets.KeyFile != "" {
		address = withParameter(address, "secret-key", secrets.KeyFile)
	}
	if !strings.Contains(address, "compression=") { // Nix's own default is xz, ten times slower
		address = withParameter(withParameter(address, "compression", "zstd"), "parallel-compression", "true")
	}
	return address
}

func withParameter(address, name, value string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	// Nix takes a + for itself.
	return address + separator + name + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}
