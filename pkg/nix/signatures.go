package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// verifyUntrusted is the exit code of nix store verify where all paths were checked, and
// some have too few signatures. Others say that it could not check some, or ended early.
const verifyUntrusted = 2

// maxVerify is how often it is asked again without the paths that it says are wrong.
const maxVerify = 4

// TrustedPaths says which of the paths that a substituter has are signed by a key that
// is trusted, or need not be. That is so of a path only if it was checked and found
// good: one that the substituter has not, or damaged, is not. An error says that none
// could be checked.
func (n *Nix) TrustedPaths(ctx context.Context, paths []string, substituter string) (map[string]bool, error) {
	trusted := make(map[string]bool, len(paths))
	if !n.requiresSignatures() || trustedStore(substituter) {
		for _, path := range paths {
			trusted[path] = true
		}
		return trusted, nil
	}
	var failed error
	for _, piece := range chunks(paths) {
		good, err := n.verify(ctx, piece, substituter)
		for _, path := range good {
			trusted[path] = true
		}
		failed = errors.Join(failed, err)
	}
	if len(trusted) == 0 && failed != nil {
		return nil, fmt.Errorf("ask for signatures: %w", failed)
	}
	return trusted, nil
}

// verify returns those of the paths that nix store verify has checked and found good.
// The error says what kept it from checking others.
func (n *Nix) verify(ctx context.Context, paths []string, substituter string) ([]string, error) {
	var failed error
	for try := 0; try < maxVerify && len(paths) > 0; try++ {
		var said bytes.Buffer
		with := n.asking(asked).add("store", "verify", "--no-contents", "--store").checked(valid.Address, substituter)
		cmd := n.question(ctx, "nix", with.operands(valid.StorePath, paths...))
		cmd.Stderr = &said
		err := n.run(cmd)
		if err == nil {
			return paths, failed
		}
		code := cmd.ProcessState.ExitCode()
		if code != verifyUntrusted {
			failed = redactErr(err, substituter)
		}
		left := withoutNamed(paths, text.Plain(said.String()))
		switch {
		case len(left) == len(paths): // and which one is wrong, it does not say
			return nil, errors.Join(failed, fmt.Errorf("nix store verify names none of %d paths", len(paths)))
		case code == verifyUntrusted:
			return left, failed
		case ctx.Err() != nil:
			return nil, failed
		}
		paths = left // of which nothing is known yet: the exit code is one for all
	}
	return nil, failed
}

// withoutNamed returns the paths that are named in no line of what nix store verify
// says, but where it only says that it checks them. A damaged narinfo is named by the
// hash of its path.
func withoutNamed(paths []string, said string) []string {
	var wrong strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "checking '") {
			wrong.WriteString(line)
		}
	}
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		hash, _, _ := strings.Cut(strings.TrimPrefix(path, "/nix/store/"), "-")
		return strings.Contains(wrong.String(), hash)
	})
}

// trustedStore reports whether the address of a store says that its paths need no
// signatures.
func trustedStore(address string) bool {
	_, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	return err == nil && slices.Contains([]string{"1", "true"}, values.Get("trusted"))
}

// PublicKey gives the public half of a secret key that signs store paths, which
// nothing but the program's stdin gets to see.
func (n *Nix) PublicKey(ctx context.Context, secretKey string) (string, error) {
	cmd := n.command(ctx, "nix", args("key", "convert-secret-to-public"))
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.TrimSpace(secretKey)), &out, io.Discard
	if err := n.run(cmd); err != nil {
		return "", errors.New("the signing key is none: it should be as nix-store --generate-binary-cache-key makes it, NAME:BASE64")
	}
	return strings.TrimSpace(out.String()), nil
}
