// Package push sends store paths to binary caches.
package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/nix"
)

// Nix is what pushing needs of Nix.
type Nix interface {
	Copy(ctx context.Context, destination string, paths []string, env ...string) (nix.Traffic, error)
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
	// Bare says that the machine has nothing of its own, as GitHub's runners: a secret that is
	// not among these does not exist.
	Bare bool
	// IDToken returns a token by which this job proves its identity to the server that calls itself
	// by an audience. It is nil if the job may not.
	IDToken func(ctx context.Context, audience string) (string, error)
	// Issuer is the address that these tokens name as theirs.
	Issuer string
	// Mask keeps a text out of the log of a job; nil where there is none.
	Mask func(secret string)
	// IDTokenLater says that the job that pushes is another one, which may have such tokens where
	// this one has none.
	IDTokenLater bool
}

// identified reports whether the job that pushes can prove its identity, as far as is known.
func (s *Secrets) identified() bool { return s.IDToken != nil || s.IDTokenLater }

// variable returns the value of a variable of Env, or else of this process.
func (s *Secrets) variable(name string) string {
	for _, variable := range slices.Backward(s.Env) {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return os.Getenv(name)
}

// A Destination is a binary cache to push to.
type Destination struct {
	// Name is for people, without credentials.
	Name string
	// Substituter is the address to read pushed paths from. Of an Attic and a niks3 cache, it is
	// known after Dial.
	Substituter string
	// PublicKeys are the keys that sign paths from there, as far as they are known, which they
	// are after Dial.
	PublicKeys []string
	// Public reports whether anybody can read it, as far as that is known, which it is after Dial
	// of an Attic, Cachix or niks3 cache.
	Public bool

	kind kind
}

// A kind of binary cache, with the address of one.
type kind interface {
	// dial asks the binary cache for the facts that reading from it takes, and writes them to
	// the destination.
	dial(ctx context.Context, d *Destination, secrets Secrets) error
	// push sends the closures of paths, as Destination.Push does.
	push(ctx context.Context, n Nix, paths []string, secrets Secrets) (nix.Traffic, error)
	// lacks returns what Destination.Lacks does.
	lacks(secrets Secrets) *LackError
	// token returns the token that reading takes too, or an empty text.
	token(secrets Secrets) string
	// program returns the name of the program that pushes, or an empty text for Nix and us.
	program() string
}

// bareHost is the name of a server without a scheme, perhaps with a path.
var bareHost = lazyregexp.New(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]+)?(/[^ :@]*)?$`)

// CheckForm returns an error if an address has the form of another tool's, which Nix would take
// for another binary cache, or for a directory here.
func CheckForm(address string) error {
	dir, file := strings.CutPrefix(address, "file://")
	switch {
	case file && !strings.HasPrefix(dir, "/"):
		return fmt.Errorf("%q names a host, not a directory. Write file:///%s", nix.Redact(address), nix.Redact(dir))
	case strings.HasPrefix(address, "/"):
		return fmt.Errorf("%q has no scheme. Write file://%s", address, address)
	case bareHost().MatchString(address):
		return fmt.Errorf("%q has no scheme. Write https://%s", address, address)
	}
	return nil
}

// Parse reads the address of a destination. Its errors have no password.
func Parse(address string) (Destination, error) {
	d, err := parse(address)
	if err != nil {
		return Destination{}, fmt.Errorf("push: %w", err)
	}
	return d, nil
}

func parse(address string) (Destination, error) {
	const examples = "attic:https://SERVER/CACHE, cachix:NAME, niks3:https://SERVER, s3://BUCKET, https://HOST or file:///DIR"
	name := nix.Redact(address)
	if err := CheckForm(address); err != nil {
		return Destination{}, err
	}
	scheme, rest, ok := strings.Cut(address, ":")
	switch {
	case !ok || rest == "":
		return Destination{}, fmt.Errorf("%q is not the address of a binary cache. Write for example %s", name, examples)
	case scheme == "cachix":
		return parseCachix(address, rest)
	case scheme == "attic":
		return parseAttic(address, rest)
	case scheme == "niks3":
		return parseNiks3(address, rest)
	case !schemes[scheme]:
		return Destination{}, fmt.Errorf("%q: unknown scheme %q. Write for example %s", name, scheme, examples)
	}
	return parseStore(address)
}

// Dial asks a destination for the facts that reading from it takes: an Attic or niks3 server for address
// and key, Cachix for the keys. All others are read at the address that they are written to, and
// signed by our key. Its error is a *RefusedError where the destination's answer makes it
// certain that nothing can be pushed there.
func (d *Destination) Dial(ctx context.Context, secrets Secrets) error {
	return refusedBy(d.kind.dial(ctx, d, secrets))
}

// Netrc returns the line of a netrc file that lets Nix read from a destination that wants a
// token, or an empty text.
func (d *Destination) Netrc(secrets Secrets) string {
	token := d.kind.token(secrets)
	u, err := url.Parse(d.Substituter)
	if token == "" || err != nil {
		return ""
	}
	return fmt.Sprintf("machine %s password %s\n", u.Hostname(), token)
}

// Lacks returns the secret or permission without which nothing can be pushed there, as in a pull request
// from a fork; nil if none is known to be missing.
func (d *Destination) Lacks(secrets Secrets) *LackError { return d.kind.lacks(secrets) }

// Program returns the name of the program that pushes there, which is empty where none
// but Nix is needed.
func (d *Destination) Program() string { return d.kind.program() }

// NeedsFiles reports whether pushed paths must be on this machine, because another program than
// Nix reads them.
func (d *Destination) NeedsFiles() bool { return d.kind.program() != "" }

// dir returns the directory of a binary cache in one.
func (d *Destination) dir() (string, bool) {
	s, _ := d.kind.(nixStore)
	dir, ok := strings.CutPrefix(s.address, "file://")
	dir, _, _ = strings.Cut(dir, "?")
	return dir, ok
}

// Missing reports whether a destination is a directory that does not exist yet. A
// daemon that is asked to read from there would make it, for itself alone.
func (d *Destination) Missing() bool {
	dir, ok := d.dir()
	if !ok {
		return false
	}
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// Withdraw makes a binary cache in a directory forget paths, so that the next Push sends
// them again. It reports whether it could: others take no path that they say they have.
func (d *Destination) Withdraw(paths []string) (bool, error) {
	dir, ok := d.dir()
	if !ok {
		return false, nil
	}
	for _, path := range paths {
		hash, _, _ := strings.Cut(filepath.Base(path), "-")
		if err := os.Remove(filepath.Join(dir, hash+".narinfo")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// Push sends the closures of the paths. It returns the paths that the destination lacked and
// has got, with an error too, as far as they are known: of Cachix, they are not. The
// error is a *RefusedError where the destination's answer is the reason.
//
// DRV!* among the paths stands for the outputs of a derivation, which are among them too:
// where outputs follow from their contents, a destination must be told which derivation
// has them. Those that have no place for that get the outputs alone.
func (d Destination) Push(ctx context.Context, n Nix, paths []string, secrets Secrets) (nix.Traffic, error) {
	sent, err := d.kind.push(ctx, n, paths, secrets)
	return sent, refusedBy(err)
}

// IsDerivation reports whether one of the paths to push is DRV!*.
func IsDerivation(path string) bool { return strings.HasSuffix(path, "!*") }

// outputs returns the paths without DRV!*.
func outputs(paths []string) []string { return slices.DeleteFunc(slices.Clone(paths), IsDerivation) }
