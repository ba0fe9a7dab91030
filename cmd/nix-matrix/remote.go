package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// checkStore returns an error if the value of --store is no address of a store that Nix
// builds in. None is fine.
func checkStore(address string) error {
	if address == "" {
		return nil
	}
	if err := valid.Address(address); err != nil {
		return fmt.Errorf("--store: %w: it must be one such as ssh-ng://USER@HOST, or the absolute path of a directory", err)
	}
	shown := nix.Redact(address)
	switch scheme, _, _ := strings.Cut(address, "://"); scheme {
	case "ssh":
		return fmt.Errorf("--store: Nix does not build in the store of another machine by ssh://. Write ssh-ng%s", strings.TrimPrefix(shown, scheme))
	case "http", "https", "s3", "file":
		return fmt.Errorf("--store: %q is a binary cache, where nothing can be built. Name it with --substituters or --push", shown)
	}
	return nil
}

// reach returns an error that wraps [nix.ErrUnreachable] if a store on another machine
// can't be opened.
func (s *site) reach(ctx context.Context) error {
	if s.remote == "" {
		return nil // findNix has opened it
	}
	return s.store.Reach(ctx)
}

// sshAccess is how programs log in to other machines.
type sshAccess struct {
	options  string   // for programs that this process starts
	builders []string // for a daemon, which has its own environment
}

// ssh makes the key and the known hosts available.
func (s *surroundings) ssh(at *site) (*sshAccess, error) {
	access := &sshAccess{builders: s.builders}
	key, err := at.secretFile(at.app.getenv(sshKeyVariable))
	if err != nil {
		return nil, err
	}
	hosts, err := at.secretFile(s.knownHosts)
	if err != nil {
		return nil, err
	}
	var options []string
	if own := at.app.getenv("NIX_SSHOPTS"); own != "" {
		options = append(options, own)
	}
	if key != "" {
		options = append(options, "-i", key, "-o", "IdentitiesOnly=yes")
	}
	if hosts != "" {
		options = append(options, "-o", "UserKnownHostsFile="+hosts, "-o", "StrictHostKeyChecking=yes")
	}
	if key != "" || hosts != "" || at.app.action.Running() {
		options = append(options, "-o", "BatchMode=yes") // nobody is there to answer a question
	}
	access.options = strings.Join(options, " ")
	access.builders = make([]string, len(s.builders))
	for i, line := range s.builders {
		if access.builders[i], err = withKeys(line, key, s.knownHosts); err != nil {
			return nil, &usageError{err}
		}
	}
	return access, nil
}

// hostKey gives the key of the host that an address is of, as a builder wants it,
// or nothing if it is not among the known ones.
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
		if err != nil { // no more of them
			return ""
		}
		if marker == "" && slices.ContainsFunc(hosts, func(host string) bool { return slices.Contains(names, host) }) {
			return base64.StdEncoding.EncodeToString(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
		}
	}
}

var errBuilder = errors.New("not a remote builder as nix.conf has it, such as ssh-ng://USER@HOST x86_64-linux")

// withKeys gives a builder its key and its host's key, since the daemon that logs
// in there knows nothing of ours. The fields are address, systems, key file, jobs,
// speed, features, mandatory features, host key.
func withKeys(line, keyFile, knownHosts string) (string, error) {
	const fieldKey, fieldHost = 2, 7
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "@") || len(fields) > fieldHost+1 {
		if len(fields) == 1 {
			return fields[0], nil // a file of the machine that has some: @/etc/nix/machines
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
