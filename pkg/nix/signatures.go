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

// verifyUntrusted is the exit code of nix store verify if it checked all paths, and
// some have too few signatures. Other codes mean that it could not check some, or ended early.
const verifyUntrusted = 2

// maxVerify bounds how often it runs, each time without the paths that it found wrong.
const maxVerify = 4

// TrustedPaths returns the paths that a substituter has and that are signed by a trusted key,
// or need not be. A path is only returned if it was checked: one that the substituter lacks, or
// whose narinfo is damaged, is not. It is an error if none could be checked.
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
		return nil, fmt.Errorf("cannot check signatures: %w", failed)
	}
	return trusted, nil
}

// verify returns the paths that nix store verify has checked and found good. The error says
// why others could not be checked.
func (n *Nix) verify(ctx context.Context, paths []string, substituter string) ([]string, error) {
	var failed error
	for try := 0; try < maxVerify && len(paths) > 0; try++ {
		var stderr bytes.Buffer
		with := n.asking(asked).add("store", "verify", "--no-contents", "--store").checked(valid.Address, substituter)
		cmd := n.query(ctx, "nix", with.operands(valid.StorePath, paths...))
		cmd.Stderr = &stderr
		err := n.run(cmd)
		if err == nil {
			return paths, failed
		}
		code := cmd.ProcessState.ExitCode()
		if code != verifyUntrusted {
			failed = redactErr(err, substituter)
		}
		left := withoutNamed(paths, text.Plain(stderr.String()))
		switch {
		case len(left) == len(paths):
			return nil, errors.Join(failed, fmt.Errorf("nix store verify failed and named none of %d paths", len(paths)))
		case code == verifyUntrusted:
			return left, failed
		case ctx.Err() != nil:
			return nil, failed
		}
		paths = left // nothing is known of them yet, because the exit code is for all paths
	}
	return nil, failed
}

// withoutNamed returns the paths that nix store verify names in no line of its stderr other
// than "checking '…'". It names a damaged narinfo by the hash of its path.
func withoutNamed(paths []string, stderr string) []string {
	var wrong strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "checking '") {
			wrong.WriteString(line)
		}
	}
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		hash, _, _ := strings.Cut(strings.TrimPrefix(path, "/nix/store/"), "-")
		return strings.Contains(wrong.String(), hash)
	})
}

// trustedStore reports whether the address of a store has the parameter trusted, with which its
// paths need no signatures.
func trustedStore(address string) bool {
	_, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	return err == nil && slices.Contains([]string{"1", "true"}, values.Get("trusted"))
}

// PublicKey returns the public key of a secret key that signs store paths. The secret key is
// passed on stdin.
func (n *Nix) PublicKey(ctx context.Context, secretKey string) (string, error) {
	cmd := n.command(ctx, "nix", args("key", "convert-secret-to-public"))
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.TrimSpace(secretKey)), &out, io.Discard
	if err := n.run(cmd); err != nil {
		return "", errors.New("cannot read the signing key: it must be NAME:BASE64. Create one with nix-store --generate-binary-cache-key")
	}
	return strings.TrimSpace(out.String()), nil
}
