package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// reading adds substituters to Nix: further ones, and the destinations and sources whose public keys are
// known. One that refuses access may end a discovery.
func (n *Nix) reading(ctx context.Context, substituters, keys []string) error {
	netrc := n.host.Getenv(NetrcVariable)
	// Our file replaces the user's, which other substituters may need.
	own, unread := os.ReadFile(n.Text("netrc-file"))
	n.Push.Secrets.Netrc = netrc + "\n" + string(own)
	for _, to := range n.readFrom() {
		dialing, cancel := context.WithTimeout(ctx, 2*nix.AnswerTimeout) // pushing has patience of its own
		err := to.Dial(dialing, n.Push.Secrets)
		cancel()
		if err != nil {
			if err := n.unusable(to, err); err != nil {
				return err
			}
			n.host.Log.Warn("Cannot read from "+to.Name+", so its paths are built again", err)
			continue
		}
		if (len(to.PublicKeys) > 0 || len(keys) > 0) && !to.Missing() {
			substituters = append(substituters, to.Substituter)
			keys = append(keys, to.PublicKeys...)
		}
		netrc += "\n" + to.Netrc(n.Push.Secrets)
	}
	n.Read(substituters, keys)
	if strings.TrimSpace(netrc) == "" {
		return nil
	}
	if unread != nil && !errors.Is(unread, fs.ErrNotExist) {
		n.host.Log.Warn("The machine's own netrc file has no effect", fmt.Errorf("%w. Repeat its lines in the input netrc", unread))
	}
	netrc += "\n" + string(own)
	file, err := n.secretFile(netrc)
	n.Set(nix.Set("netrc-file", file))
	return err
}

// Read adds substituters and public keys to Nix's settings, each once.
func (n *Nix) Read(substituters, keys []string) {
	fresh := func(all, of []string) []string {
		return slices.DeleteFunc(slices.Clone(of), func(s string) bool { return slices.Contains(all, s) })
	}
	substituters, keys = fresh(n.further, substituters), fresh(n.keys, keys)
	n.further, n.keys = append(n.further, substituters...), append(n.keys, keys...)
	var options []nix.Option
	if len(substituters) > 0 {
		options = append(options, nix.Set("extra-substituters", substituters...))
	}
	if len(keys) > 0 {
		options = append(options, nix.Set("extra-trusted-public-keys", keys...))
	}
	n.Set(options...)
}

// Substituters returns the sorted addresses of all substituters.
func (n *Nix) Substituters() []string {
	all := slices.Concat(n.Setting("substituters"), n.further)
	slices.Sort(all)
	return slices.Compact(all)
}

// readFrom returns the binary caches that are asked where and how they are read.
func (n *Nix) readFrom() []*push.Destination {
	var all []*push.Destination
	for _, some := range [][]push.Destination{n.Destinations, n.sources} {
		for i := range some {
			all = append(all, &some[i])
		}
	}
	return all
}

// unusable returns the error that ends discovery because a binary cache refuses access, or nil if that is a
// warning.
func (n *Nix) unusable(to *push.Destination, err error) error {
	var refused *push.RefusedError
	var wrong *usage.Error
	source, final, mistaken := n.reads(to), errors.As(err, &refused), errors.As(err, &wrong)
	if !n.config.Evaluates || !final && !mistaken {
		return nil
	}
	if source && !n.host.Withheld {
		return usage.Errorf("cannot read from %s: %w", to.Name, err)
	}
	if pushes := !source && n.NoSecret(to) == nil; pushes && mistaken {
		return fmt.Errorf("cannot push to %s: %w", to.Name, err)
	} else if pushes {
		return n.cannotPush(to, err)
	}
	return nil
}

// reads reports whether a binary cache is only read from.
func (n *Nix) reads(to *push.Destination) bool {
	return slices.ContainsFunc(n.sources, func(d push.Destination) bool { return d.Name == to.Name })
}

// substituters returns the addresses of substituters, and those whose servers name address and keys.
func (c *Config) substituters() (addresses []string, sources []push.Destination, err error) {
	for _, address := range c.Substituters {
		if !strings.HasPrefix(address, "cachix:") {
			addresses = append(addresses, address)
			continue
		}
		source, err := push.Parse(address)
		if err != nil {
			return nil, nil, usage.Errorf("--substituters: %w", err)
		}
		sources = append(sources, source)
	}
	return addresses, sources, nil
}

// Destinations parses the addresses of binary caches to push to.
func Destinations(addresses []string) ([]push.Destination, error) {
	var all []push.Destination
	for _, address := range addresses {
		d, err := push.Parse(address)
		if err != nil {
			return nil, usage.Wrap(err)
		}
		all = append(all, d)
	}
	return all, nil
}
