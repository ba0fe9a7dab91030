package access

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/org/nix-matrix/internal/usage"
)

// sshAccess has the options and builders with which programs log in to other machines.
type sshAccess struct {
	options  string   // for programs that this process starts
	builders []string // for a daemon, which has its own environment
}

// ssh writes the key and the known hosts to files, and returns the options for them.
func (n *Nix) ssh(c *Config) (*sshAccess, error) {
	access := &sshAccess{builders: c.Builders}
	key, err := n.secretFile(n.host.Getenv(SSHKeyVariable))
	if err != nil {
		return nil, err
	}
	hosts, err := n.secretFile(c.KnownHosts)
	if err != nil {
		return nil, err
	}
	var options []string
	if own := n.host.Getenv("NIX_SSHOPTS"); own != "" {
		options = append(options, own)
	}
	if key != "" {
		options = append(options, "-i", key, "-o", "IdentitiesOnly=yes")
	}
	if hosts != "" {
		options = append(options, "-o", "UserKnownHostsFile="+hosts, "-o", "StrictHostKeyChecking=yes")
	}
	if key != "" || hosts != "" || n.host.Running {
		options = append(options, "-o", "BatchMode=yes") // nobody is there to answer a question
	}
	access.options = strings.Join(options, " ")
	access.builders = make([]string, len(c.Builders))
	for i, line := range c.Builders {
		if access.builders[i], err = withKeys(line, key, c.KnownHosts); err != nil {
			return nil, usage.Wrap(err)
		}
	}
	return access, nil
}

// hostKey returns the key of the host in an address, in the form of a builder's line, or an empty text if
// the host is not known.
func hostKey(address, knownHosts string) string {
	if !strings.Contains(address, "://") {
		address = "ssh://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	names := []string{u.Hostname(), knownhosts.Normalize(u.Host)}
	for rest := []byte(knownHosts); ; {
		var marker string
		var hosts []string
		var key ssh.PublicKey
		marker, hosts, key, _, rest, err = ssh.ParseKnownHosts(rest)
		if err != nil { // the end
			return ""
		}
		if marker == "" && slices.ContainsFunc(hosts, func(host string) bool { return slices.Contains(names, host) }) {
			return base64.StdEncoding.EncodeToString(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
		}
	}
}

var errBuilder = errors.New("not a remote builder as nix.conf has it, such as ssh-ng://USER@HOST x86_64-linux")

// withKeys returns the line of a builder with its key and its host's key, because the daemon that logs in
// there does not get our options. The fields are address, systems, key file, jobs, speed, features,
// mandatory features, host key.
func withKeys(line, keyFile, knownHosts string) (string, error) {
	const fieldKey, fieldHost = 2, 7
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "@") || len(fields) > fieldHost+1 {
		if len(fields) == 1 {
			return fields[0], nil // a file with builders: @/etc/nix/machines
		}
		return "", fmt.Errorf("builders: %q is %w", line, errBuilder)
	}
	set := func(n int, value string) {
		for len(fields) <= n {
			fields = append(fields, "-")
		}
		if fields[n] == "-" {
			fields[n] = value
		}
	}
	if keyFile != "" {
		set(fieldKey, keyFile)
	}
	if key := hostKey(fields[0], knownHosts); key != "" {
		set(fieldHost, key)
	}
	return strings.Join(fields, " "), nil
}
