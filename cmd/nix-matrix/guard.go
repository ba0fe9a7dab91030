package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/nix"
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
	if socket := a.getenv("SSH_AUTH_SOCK"); socket != "" && agentHasKeys(ctx, socket) {
		all = append(all, "an ssh agent with keys")
	}
	all = append(all, at.privateCaches()...)
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

// privateCaches names the credentials with which this Nix reads from binary caches that
// not everybody can read. From one that does not answer, nothing is read.
func (s *site) privateCaches() []string {
	var all []string
	for i := range s.to {
		to := &s.to[i]
		kind, _, _ := strings.Cut(to.Name, ":")
		token := map[string]string{"attic": "attic_token", "cachix": "cachix_auth_token"}[kind]
		if token != "" && to.Netrc(s.push.Secrets) != "" && !to.Public && len(to.PublicKeys) > 0 {
			all = append(all, fmt.Sprintf("%s for %s", token, to.Name))
		}
	}
	aws := slices.ContainsFunc(s.env, func(variable string) bool {
		name, value, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "AWS_") && value != "" && !openPattern.MatchString(name)
	})
	read := s.substituters()
	for i := range s.to {
		read = append(read, s.to[i].Substituter)
	}
	if at := slices.IndexFunc(read, func(address string) bool { return strings.HasPrefix(address, "s3:") }); aws && at >= 0 {
		all = append(all, "env for "+nix.Redact(read[at]))
	}
	return all
}

// agentHasKeys reports whether an ssh agent has keys, also if it does not say so in time.
func agentHasKeys(ctx context.Context, socket string) bool {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return false // nobody is there
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	keys, err := agent.NewClient(conn).List()
	return err != nil || len(keys) > 0
}
