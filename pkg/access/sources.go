package access

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/org/nix-matrix/pkg/git"
)

// tokenUser is as whom one logs in to GitHub with a token.
const tokenUser = "x-access-token"

// fetchAccess is how an evaluator gets to private sources.
type fetchAccess struct {
	conf string   // lines of a nix.conf, for what Nix fetches itself
	git  string   // lines of a file that git's configuration includes
	env  []string // for git
}

// fetching gives access to private sources: by the token for GitHub, or whatever
// server this is, and by ssh with these options.
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
	if h.Getenv(SSHKeyVariable) == "" { // else ssh is meant
		access.git += fmt.Sprintf("[url %q]\n\tinsteadOf = git@%s:\n\tinsteadOf = ssh://git@%[2]s/\n", base, server.Host)
	}
	return access
}

// gitEnv is the environment with what git includes in a file.
func (n *Nix) gitEnv(access fetchAccess) ([]string, error) {
	file, err := n.secretFile(access.git)
	if err != nil || file == "" {
		return access.env, err
	}
	env := access.env
	if count := n.host.Getenv("GIT_CONFIG_COUNT"); count != "" { // beside which ours is
		env = append(env, "GIT_CONFIG_COUNT="+count)
	}
	return git.Configure(env, git.Setting{Name: "include.path", Value: file}), nil
}

// include writes lines of a nix.conf to a file, and returns the line that includes it: what
// is in Nix's environment, an evaluation or a builder may ask for.
func (h *Host) include(conf string) (line string, remove func(), err error) {
	if strings.TrimSpace(conf) == "" {
		return "", func() {}, nil
	}
	file, remove, err := h.Secrets.File([]byte(conf + "\n"))
	return "include " + file, remove, err
}
