// Package push sends store paths to binary caches.
package push

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// Nix is what pushing needs of Nix.
type Nix interface {
	Copy(ctx context.Context, destination string, paths []string) error
	Cachix(ctx context.Context, name string, paths []string) error
}

// A Destination is a binary cache to push to.
type Destination struct {
	// Name is what a person calls it, without credentials.
	Name string
	// Substituter is the address to read from what was pushed.
	Substituter string

	address string // for nix copy
	cachix  string // name of a Cachix cache
}

// The kinds of stores that `nix copy --to` speaks.
var schemes = map[string]bool{
	"file": true, "http": true, "https": true, "s3": true, "ssh": true, "ssh-ng": true, "local": true, "unix": true,
}

// Parse reads the address of a destination.
func Parse(address string) (Destination, error) {
	scheme, rest, ok := strings.Cut(address, ":")
	switch {
	case !ok || rest == "":
		return Destination{}, fmt.Errorf("push: %q is not the address of a binary cache; write for example cachix:NAME, s3://BUCKET, https://HOST or file:///DIR", nix.Redact(address))
	case scheme == "cachix":
		if strings.ContainsAny(rest, "/:@ ") {
			return Destination{}, fmt.Errorf("push: %q: after cachix: goes the name of the cache, such as cachix:my-fleet", address)
		}
		return Destination{Name: address, Substituter: "https://" + rest + ".cachix.org", cachix: rest}, nil
	case !schemes[scheme]:
		return Destination{}, fmt.Errorf("push: %q: nothing speaks %q; write for example cachix:NAME, s3://BUCKET, https://HOST or file:///DIR", nix.Redact(address), scheme)
	}
	if _, err := url.Parse(address); err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // it quotes the address, which may hold a password
		}
		return Destination{}, fmt.Errorf("push: the %s address is not valid: %w", scheme, err)
	}
	return Destination{Name: nix.Redact(address), Substituter: address, address: address}, nil
}

// Push sends the closures of the paths. keyFile signs what goes to a binary
// cache; it may be empty.
func (d Destination) Push(ctx context.Context, n Nix, paths []string, keyFile string) error {
	if d.cachix != "" {
		return n.Cachix(ctx, d.cachix, paths)
	}
	address := d.address
	if keyFile != "" {
		address = withParameter(address, "secret-key", keyFile)
	}
	return n.Copy(ctx, address, paths)
}

func withParameter(address, name, value string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	return address + separator + name + "=" + url.QueryEscape(value)
}

// KeyFile writes a signing key to a file that only its owner can read, and gives
// what removes it. An empty key makes no file.
func KeyFile(key string) (name string, remove func(), err error) {
	if strings.TrimSpace(key) == "" {
		return "", func() {}, nil
	}
	f, err := os.CreateTemp("", "nix-matrix-key-") // mode 0600
	if err != nil {
		return "", nil, fmt.Errorf("write the signing key: %w", err)
	}
	remove = func() { _ = os.Remove(f.Name()) }
	_, err = f.WriteString(strings.TrimSpace(key) + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		remove()
		return "", nil, fmt.Errorf("write the signing key: %w", err)
	}
	return f.Name(), remove, nil
}
