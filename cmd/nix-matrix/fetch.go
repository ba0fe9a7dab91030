package main

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// fetchAccess is how an evaluator gets to private sources.
type fetchAccess struct {
	conf string   // lines of a nix.conf, for what Nix fetches itself
	env  []string // for git
}

// fetching gives access to private sources: by the token for GitHub, or whatever
// server this is, and by ssh with these options.
func (a *app) fetching(ssh string) fetchAccess {
	var access fetchAccess
	if ssh != "" {
		access.env = append(access.env, "GIT_SSH_COMMAND=ssh "+ssh)
	}
	token := strings.TrimSpace(a.getenv(gitHubVariable))
	server, err := url.Parse(or(a.getenv("GITHUB_SERVER_URL"), "https://github.com"))
	if token == "" || err != nil || server.Host == "" {
		return access
	}
	access.conf = fmt.Sprintf("extra-access-tokens = %s=%s\n", server.Host, token)
	base := server.Scheme + "://" + server.Host + "/"
	a.gitConfig(&access, "http."+base+".extraheader",
		"AUTHORIZATION: basic "+base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token)))
	if a.getenv(sshKeyVariable) == "" { // else ssh is meant
		a.gitConfig(&access, "url."+base+".insteadOf", "git@"+server.Host+":")
		a.gitConfig(&access, "url."+base+".insteadOf", "ssh://git@"+server.Host+"/")
	}
	return access
}

// gitConfig adds to git's configuration by the environment, beside what is there.
func (a *app) gitConfig(access *fetchAccess, key, value string) {
	const count = "GIT_CONFIG_COUNT="
	n, _ := strconv.Atoi(a.getenv("GIT_CONFIG_COUNT")) // none is 0
	for _, variable := range access.env {
		if text, ok := strings.CutPrefix(variable, count); ok {
			n, _ = strconv.Atoi(text)
		}
	}
	access.env = append(access.env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, value), count+strconv.Itoa(n+1))
}
