// Package push sends store paths to binary caches.
package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// Nix is what pushing needs of Nix.
type Nix interface {
	Copy(ctx context.Context, destination string, paths []string) error
	Cachix(ctx context.Context, name string, paths []string) error
	ClosureInfo(ctx context.Context, paths ...string) ([]nix.PathInfo, error)
	NAR(ctx context.Context, path string) (io.ReadCloser, error)
}

// Secrets are what destinations may ask for. Each may be empty.
type Secrets struct {
	KeyFile    string // with the secret key that signs what nix copy pushes
	AtticToken string
}

// A Destination is a binary cache to push to.
type Destination struct {
	// Name is what a person calls it, without credentials.
	Name string
	// Substituter is the address to read from what was pushed. Of an Attic cache,
	// it and the key are known after Dial.
	Substituter string
	// PublicKey is what paths from there are signed with, if that is known.
	PublicKey string

	address string // for nix copy
	cachix  string // name of a Cachix cache
	attic   *atticCache
}

// The kinds of stores that `nix copy --to` speaks.
var schemes = map[string]bool{
	"file": true, "http": true, "https": true, "s3": true, "ssh": true, "ssh-ng": true, "local": true, "unix": true,
}

// Parse reads the address of a destination.
func Parse(address string) (Destination, error) {
	scheme, rest, ok := strings.Cut(address, ":")
	name := nix.Redact(address)
	switch {
	case !ok || rest == "":
		return Destination{}, fmt.Errorf("push: %q is not the address of a binary cache; write for example attic:https://SERVER/CACHE, cachix:NAME, s3://BUCKET, https://HOST or file:///DIR", name)
	case scheme == "cachix":
		if strings.ContainsAny(rest, "/:@ ") {
			return Destination{}, fmt.Errorf("push: %q: after cachix: goes the name of the cache, such as cachix:my-fleet", name)
		}
		return Destination{Name: address, Substituter: "https://" + rest + ".cachix.org", cachix: rest}, nil
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
	return Destination{Name: name, Substituter: address, address: address}, nil
}

// Push sends the closures of the paths.
func (d Destination) Push(ctx context.Context, n Nix, paths []string, secrets Secrets) error {
	switch {
	case d.cachix != "":
		return n.Cachix(ctx, d.cachix, paths)
	case d.attic != nil:
		return d.attic.push(ctx, n, paths, secrets.AtticToken)
	}
	address := d.address
	if secrets.KeyFile != "" {
		address = withParameter(address, "secret-key", secrets.KeyFile)
	}
	return n.Copy(ctx, address, paths)
}

func withParameter(address, name, value string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	// Nix takes a + for itself.
	return address + separator + name + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// SecretFile writes a secret to a file that only its owner can read, and gives
// what removes it. An empty secret makes no file.
func SecretFile(secret string) (name string, remove func(), err error) {
	if strings.TrimSpace(secret) == "" {
		return "", func() {}, nil
	}
	f, err := os.CreateTemp("", "nix-matrix-secret-") // mode 0600
	if err != nil {
		return "", nil, fmt.Errorf("write a secret to a file: %w", err)
	}
	remove = func() { _ = os.Remove(f.Name()) }
	_, err = f.WriteString(strings.TrimSpace(secret) + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		remove()
		return "", nil, fmt.Errorf("write a secret to a file: %w", err)
	}
	return f.Name(), remove, nil
}
