package access

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/org/nix-matrix/pkg/nix"
)

// Private returns the names of credentials that may give access to private sources, and of files that
// git-crypt has decrypted. The token of each workflow gives none.
func (n *Nix) Private(ctx context.Context, decrypted []string) []string {
	h := n.host
	var all []string
	if h.OwnToken() != "" {
		all = append(all, "github_access_token")
	}
	known := []string{"", strings.TrimSpace(h.Getenv(GitHubVariable)), strings.TrimSpace(h.JobToken)}
	switch tokens := n.AccessTokens(); {
	case tokenPattern().MatchString(h.Getenv(ConfVariable)):
		all = append(all, "nix_conf with access-tokens")
	case slices.ContainsFunc(slices.Collect(maps.Values(tokens)), func(token string) bool { return !slices.Contains(known, token) }):
		all = append(all, "the setting access-tokens of this machine's Nix")
	}
	if socket := h.Getenv("SSH_AUTH_SOCK"); socket != "" && agentHasKeys(ctx, socket) {
		all = append(all, "an ssh agent with keys")
	}
	all = append(all, n.privateCaches()...)
	for _, secret := range [][2]string{{"netrc", NetrcVariable}, {"ssh_key", SSHKeyVariable}, {"git_crypt_key", GitCryptVariable}} {
		if h.Has(secret[1]) {
			all = append(all, secret[0])
		}
	}
	for _, file := range decrypted {
		all = append(all, file+", which git-crypt has decrypted")
	}
	return all
}

// privateCaches returns the names of the credentials with which Nix reads from private binary caches. A
// cache that does not answer is not read.
func (n *Nix) privateCaches() []string {
	var all []string
	for _, to := range n.readFrom() {
		kind, _, _ := strings.Cut(to.Name, ":")
		token := map[string]string{"attic": "attic_token", "cachix": "cachix_auth_token"}[kind]
		if token != "" && to.Netrc(n.Push.Secrets) != "" && !to.Public && len(to.PublicKeys) > 0 {
			all = append(all, fmt.Sprintf("%s for %s", token, to.Name))
		}
	}
	aws := slices.ContainsFunc(n.Env, func(variable string) bool {
		name, value, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "AWS_") && value != "" && !openPattern().MatchString(name)
	})
	read := n.Substituters()
	for _, to := range n.readFrom() {
		read = append(read, to.Substituter)
	}
	if at := slices.IndexFunc(read, func(address string) bool { return strings.HasPrefix(address, "s3:") }); aws && at >= 0 {
		all = append(all, "env for "+nix.Redact(read[at]))
	}
	return all
}

// agentHasKeys reports whether an ssh agent has keys. One that does not answer in time may have some.
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
