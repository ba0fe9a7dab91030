package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/push"
)

// guard keeps what is private from where anybody can read it: in a public repository
// nothing is cached or uploaded in clear that was made with a private credential.
// Pushing to a public binary cache is the user's own decision, and is warned about.
func (d *discovery) guard(ctx context.Context, at *site) error {
	a := at.app
	if !a.action.Running() && !slices.ContainsFunc(at.to, func(to push.Destination) bool { return to.Public }) {
		return nil
	}
	private, err := d.private(ctx, at)
	if err != nil || len(private) == 0 {
		return err
	}
	means := strings.Join(private, ", ")
	for i := range at.to {
		if to := &at.to[i]; to.Public {
			a.warn("Private sources may get into a public binary cache", fmt.Errorf("anybody can read %s, and there is %s: make sure that nothing private is in what is built", to.Name, means))
		}
	}
	if d.local || a.seal != nil || !a.action.Public(ctx) {
		return nil
	}
	return &usageError{fmt.Errorf("%w, and there is %s, so private sources may be among what is cached: set the secret encryption_key for all of discover, build and report (make one with openssl rand -base64 32), and it is sealed", errPublic, means)}
}

var errPublic = errors.New("anybody can read the Actions cache and the artifacts of a public repository")

// private names what may give access to private sources. The token that each
// workflow has does not.
func (d *discovery) private(ctx context.Context, at *site) ([]string, error) {
	a := at.app
	var all []string
	if a.ownToken() != "" {
		all = append(all, "github_access_token")
	}
	known := []string{"", strings.TrimSpace(a.getenv(gitHubVariable)), strings.TrimSpace(a.getenv(action.GitHubVariable))}
	switch tokens := at.nix.AccessTokens(); {
	case tokenPattern.MatchString(a.getenv(confVariable)):
		all = append(all, "nix_conf with access-tokens")
	case slices.ContainsFunc(slices.Collect(maps.Values(tokens)), func(token string) bool { return !slices.Contains(known, token) }):
		all = append(all, "the setting access-tokens of this machine's Nix")
	}
	if a.getenv("SSH_AUTH_SOCK") != "" {
		all = append(all, "an ssh agent")
	}
	for _, secret := range [][2]string{{"netrc", netrcVariable}, {"ssh_key", sshKeyVariable}, {"git_crypt_key", gitCryptVariable}} {
		if strings.TrimSpace(a.getenv(secret[1])) != "" {
			all = append(all, secret[0])
		}
	}
	checkouts, err := d.checkouts(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for what git-crypt has decrypted: %w", err)
	}
	for _, c := range checkouts {
		if len(c.Open) > 0 {
			all = append(all, fmt.Sprintf("%s, which git-crypt has decrypted", c.Open[0]))
		}
	}
	return all, nil
}
