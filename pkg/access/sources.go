package access

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/org/nix-matrix/pkg/git"
)

// tokenUser is the user name that belongs to a token of GitHub.
const tokenUser = "x-access-token"

// fetchAccess has the credentials of an evaluator for private sources.
type fetchAccess struct {
	conf string   // lines of a nix.conf, for Nix's own downloads
	git  string   // lines of a file that git's configuration includes
	env  []string // for git
}

// fetching returns the credentials for private sources: the token for GitHub, or a GitHub server, and
// ssh with these options.
func (h *Host) fetching(ssh string) fetchAccess {
	var access fetchAccess
	if ssh != "" {
		access.env = append(access.env, "GIT_SSH_COMMAND=ssh "+ssh)
	}
	token := strings.TrimSpace(h.Getenv(GitHubVariable))
	server, err := url.Parse(cmp.Or(h.Getenv("GITHUB_SERVER_URL"), "https://github.com"))
	if token == "" || err != nil || server.Host == "" {
		return access
	}
	access.conf = fmt.Sprintf("extra-access-tokens = %s=%s\n", server.Host, token)
	base := server.Scheme + "://" + server.Host + "/"
	access.git = fmt.Sprintf("[http %q]\n\textraheader = \"AUTHORIZATION: basic %s\"\n", base, basicAuth(tokenUser, token))
	if !h.Has(SSHKeyVariable) { // with a key, ssh is used
		access.git += fmt.Sprintf("[url %q]\n\tinsteadOf = git@%s:\n\tinsteadOf = ssh://git@%[2]s/\n", base, server.Host)
	}
	return access
}

// gitEnv returns the environment of git, with a file that its configuration includes.
func (n *Nix) gitEnv(access fetchAccess) ([]string, error) {
	file, err := n.secretFile(access.git)
	if err != nil || file == "" {
		return access.env, err
	}
	env := access.env
	if count := n.host.Getenv("GIT_CONFIG_COUNT"); count != "" { // ours is added
		env = append(env, "GIT_CONFIG_COUNT="+count)
	}
	return git.Configure(env, git.Setting{Name: "include.path", Value: file}), nil
}

// include writes lines of a nix.conf to a file, and returns the line that includes it, because an
// evaluation or a builder may read Nix's environment.
func (h *Host) include(conf string) (line string, remove func(), err error) {
	if strings.TrimSpace(conf) == "" {
		return "", func() {}, nil
	}
	file, remove, err := h.Secrets.File([]byte(conf + "\n"))
	return "include " + file, remove, err
}
