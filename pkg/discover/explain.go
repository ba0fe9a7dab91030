package discover

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/gitcrypt"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// The messages of git, ssh and Nix when a server denies access. GitHub denies access with 404 too; from
// other servers it may mean that nothing is there.
var (
	gitRefused = lazyregexp.New(`could not read (?:Username|Password) for '([^'\n]+)'|` +
		`Authentication failed for '([^'\n]+)'|` +
		`unable to access '([^'\n]+)': The requested URL returned error: 40[13]`)
	gitNotFound      = lazyregexp.New(`repository '([^'\n]+)' not found`)
	sshRefused       = lazyregexp.New(`(?m)^(?:\S+@)?([^\s@:]+): Permission denied \([^)\n]*publickey`)
	downloadRefused  = lazyregexp.New(`unable to download '([^'\n]+)': HTTP error 40[13]`)
	downloadNotFound = lazyregexp.New(`unable to download '([^'\n]+)': HTTP error 404`)

	// gitFailed is Nix's message, with git's own words as the reason: of 2.34, 2.26 and 2.8.
	gitFailed = lazyregexp.New(`Failed to fetch git repository|resolving Git reference|program 'git' failed`)

	// The address of a repository, in words of 2.34 and of 2.26.
	repository = lazyregexp.New(`(?:git repository|from repo at) '([^'\n]+)'`)

	// Files that cannot be read: at an error, or because they are no text.
	filePattern = lazyregexp.New(`(?m)file '([^'\n]+)' cannot be represented|\bat (\S[^\n]*?):\d+(?::\d+)?:?$`)
)

// needsSecret returns the explanation that the secret of an input, in a variable, is missing.
func needsSecret(input, variable, why string) evaluate.Explanation {
	return evaluate.Explanation{Text: fmt.Sprintf("needs a secret: %s (%s), %s", input, variable, why), NeedsSecret: input}
}

// explain returns the explanation that an evaluator failed because a secret is missing or was refused, and
// an empty one for other failures.
func (d *Discovery) explain(failed *nix.Error) evaluate.Explanation {
	said := text.Plain(failed.Stderr)
	if file := encryptedFile(said); file != "" {
		if !d.host.Has(access.GitCryptVariable) {
			return needsSecret("git_crypt_key", access.GitCryptVariable, "since "+file+" is encrypted with git-crypt")
		}
		return evaluate.Explanation{Text: file + " is encrypted with git-crypt and not with the git_crypt_key that was given, or Nix has it so in its cache of sources (~/.cache/nix)"}
	}
	var m []string
	if gitFailed().MatchString(failed.Message) {
		if m = gitRefused().FindStringSubmatch(said); m == nil {
			m = d.onGitHub(gitNotFound().FindStringSubmatch(said))
		}
		if ssh := sshRefused().FindStringSubmatch(said); m == nil && ssh != nil {
			return d.refusedBySSH(ssh[1])
		}
	} else if !strings.Contains(failed.Message, "rate limit") {
		if m = downloadRefused().FindStringSubmatch(failed.Message); m == nil {
			m = d.onGitHub(downloadNotFound().FindStringSubmatch(failed.Message))
		}
	}
	if m == nil {
		return evaluate.Explanation{}
	}
	address := strings.Join(m[1:], "")
	for _, m := range repository().FindAllStringSubmatch(said, -1) {
		if sameHost(m[1], address) {
			address = m[1] // it says more than the server
		}
	}
	return d.refused(address)
}

func sameHost(one, other string) bool {
	a, err := url.Parse(one)
	if err != nil {
		return false
	}
	b, err := url.Parse(other)
	return err == nil && a.Host == b.Host
}

// encryptedFile returns the file that could not be read because git-crypt has encrypted it, or an empty
// text.
func encryptedFile(said string) string {
	for _, m := range filePattern().FindAllStringSubmatch(said, -1) {
		file := m[1] + m[2]
		if !gitcrypt.Encrypted(file) {
			continue
		}
		if inStore, ok := strings.CutPrefix(file, "/nix/store/"); ok {
			_, file, _ = strings.Cut(inStore, "/")
		} else if here, err := filepath.Abs("."); err == nil {
			file = strings.TrimPrefix(file, here+"/")
		}
		return file
	}
	return ""
}

func (d *Discovery) gitHubServer() *url.URL {
	server, err := url.Parse(cmp.Or(d.host.Getenv("GITHUB_SERVER_URL"), "https://github.com"))
	if err != nil {
		return &url.URL{}
	}
	return server
}

// onGitHub returns a match if its address is one of GitHub, else nil.
func (d *Discovery) onGitHub(m []string) []string {
	if m == nil {
		return nil
	}
	if u, err := url.Parse(m[1]); err != nil || !d.isGitHub(u.Host) {
		return nil
	}
	return m
}

func (d *Discovery) isGitHub(host string) bool {
	server := d.gitHubServer().Host
	return host == server || host == "api."+server || host == "codeload."+server || host == "raw.githubusercontent.com"
}

// refused returns the explanation which secret would give access to an address.
func (d *Discovery) refused(address string) evaluate.Explanation {
	u, err := url.Parse(address)
	if err != nil {
		return evaluate.Explanation{}
	}
	login := u.User != nil
	u.User = nil
	host := lazyregexp.New(`(?:^|\s|\.|=)` + regexp.QuoteMeta(strings.TrimPrefix(u.Hostname(), "api.")) + `\b`)
	input, variable := "netrc", access.NetrcVariable
	if d.isGitHub(u.Host) {
		input, variable = "github_access_token", access.GitHubVariable
	}
	switch {
	case input == "github_access_token" && d.host.OwnToken() != "":
	case slices.ContainsFunc(d.host.TokenLines(), host().MatchString):
		input = "the token in nix_conf"
	case host().MatchString(d.host.Getenv(access.NetrcVariable)):
		input = "the password in netrc"
	case login:
		return evaluate.Explanation{}
	default:
		return needsSecret(input, variable, "to read "+u.String())
	}
	return evaluate.Explanation{Text: fmt.Sprintf("%s was refused: it may not read %s", input, u)}
}

// refusedBySSH returns the explanation which secret would log in to a host.
func (d *Discovery) refusedBySSH(host string) evaluate.Explanation {
	switch {
	case d.host.Has(access.SSHKeyVariable):
		return evaluate.Explanation{Text: "ssh_key was refused by " + host}
	case d.host.Getenv("SSH_AUTH_SOCK") != "":
		return evaluate.Explanation{} // an agent has keys
	}
	return needsSecret("ssh_key", access.SSHKeyVariable, "to log in to "+host)
}

// unread returns the explanation that an evaluation as a whole failed for want of a secret, and an empty
// one for other errors.
func (d *Discovery) unread(err error) evaluate.Explanation {
	var failed *nix.Error
	if !errors.As(err, &failed) {
		return evaluate.Explanation{}
	}
	return d.explain(failed)
}
