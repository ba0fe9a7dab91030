// Package access opens a Nix that can reach the user's binary caches, remote builders and private
// sources, until it is closed. It knows all secrets, which programs may see each of them, and how to
// keep them out of logs and stores.
package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/glob"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// Config says where paths come from and go to, and where things are built.
type Config struct {
	Push         []string    // addresses of binary caches
	PushWhen     []glob.Glob // the refs whose runs push; all without any
	PushFilter   []glob.Glob // the store paths that are pushed; all without any
	PushRequired bool        // a push that fails or cannot happen is an error
	PushTimeout  time.Duration
	Substituters []string // addresses, and cachix:NAME
	PublicKeys   []string
	Store        string   // address of a remote store, empty for this machine's
	Builders     []string // remote builders, as lines of nix.conf
	KnownHosts   string   // lines of a known_hosts file
	Nixpkgs      string   // flake of the programs that discovery runs or hands on
	// PushesLater says that the pushes are those of another job, which may have further permissions.
	PushesLater bool
	// Evaluates says that sources are fetched: an evaluator gets credentials for them, which a
	// builder does not.
	Evaluates bool
}

// Remotely reports whether another machine than the one that the entry runs on builds for a system.
func (c *Config) Remotely(system string) bool {
	return c.Store != "" || slices.ContainsFunc(c.Builders, func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 1 && slices.Contains(strings.Split(fields[1], ","), system)
	})
}

// A Nix is a Nix with all its settings. The caller closes it, which removes the files with secrets.
type Nix struct {
	*nix.Nix          // with the store of this machine
	Store    *nix.Nix // in which derivations are built: the remote store, or this machine's
	Remote   string   // address of the remote store, empty if it is this machine's
	SSH      string   // options for ssh
	Env      []string // variables of the secret env

	Destinations []push.Destination
	Push         push.Options
	sources      []push.Destination // that are only read from: their servers name the address and the keys
	Notices      []string           // about pushes that cannot happen, for the plan

	host     *Host
	config   *Config
	further  []string // substituters that Nix's settings do not name
	keys     []string // public keys that they do not name
	required bool     // a push that fails is an error
	remove   []func()
}

// Close removes the files with secrets.
func (n *Nix) Close() {
	for _, remove := range n.remove {
		remove()
	}
}

// AtClose adds a function that Close calls.
func (n *Nix) AtClose(remove func()) { n.remove = append(n.remove, remove) }

// secretFile writes a secret to a file, which Close removes. An empty secret makes none.
func (n *Nix) secretFile(secret string) (string, error) {
	if strings.TrimSpace(secret) == "" {
		return "", nil
	}
	name, remove, err := n.host.Secrets.File([]byte(strings.TrimSpace(secret) + "\n"))
	if err != nil {
		return "", err
	}
	n.AtClose(remove)
	return name, nil
}

// Open finds Nix and gives it all settings, with the variables that Env has returned, and with further
// substituters and public keys that are planned. The caller closes it.
func (h *Host) Open(ctx context.Context, c *Config, env, planned, keys []string) (_ *Nix, err error) {
	n := &Nix{Env: env, host: h, config: c, Remote: c.Store, required: c.PushRequired}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if err := c.check(); err != nil {
		return nil, err
	}
	if n.Destinations, err = Destinations(c.Push); err != nil {
		return nil, err
	}
	var substituters []string
	if substituters, n.sources, err = c.substituters(); err != nil {
		return nil, err
	}
	for _, to := range n.Destinations {
		if c.Store != "" && to.NeedsFiles() {
			return nil, usage.Errorf("cannot push to %s with --store: Cachix's program pushes only from the store of this machine. Leave one of the two out", to.Name)
		}
	}
	n.Push.Timeout, n.Push.Filter = c.PushTimeout, push.NewFilter(c.PushFilter)
	n.AtClose(n.tellFilter)
	n.hold()
	h.maskParts()
	ssh, err := n.ssh(c)
	if err != nil {
		return nil, err
	}
	with := nix.Config{Env: n.Env, SSH: ssh.options}
	conf := h.Getenv(ConfVariable)
	if c.Evaluates {
		fetch := h.fetching(ssh.options)
		conf, with.Nixpkgs = fetch.conf+conf, c.Nixpkgs
		if with.Fetch, err = n.gitEnv(fetch); err != nil {
			return nil, err
		}
	}
	var remove func()
	if with.Conf, remove, err = h.include(conf); err != nil {
		return nil, err
	}
	n.AtClose(remove)
	if n.Nix, err = h.reach(ctx, with); err != nil {
		return nil, err
	}
	if n.Push.Secrets, err = n.secrets(ctx); err != nil {
		return nil, err
	}
	n.SSH = ssh.options
	n.Set(nix.Set("fallback", "true")) // a cache that fails costs a build and no error
	if len(c.Builders) > 0 {
		n.Set(nix.Set("builders", strings.Join(ssh.builders, " ; ")))
	}
	n.warn(ctx)
	if c.Evaluates {
		if err = n.pushable(); err != nil {
			return nil, err
		}
	}
	return n, n.reading(ctx, slices.Concat(substituters, planned), slices.Concat(c.PublicKeys, keys))
}

// OpenStore finds Nix with the user's nix.conf lines alone, which stay until the end of the process. A
// store at another root need not exist yet.
func (h *Host) OpenStore(ctx context.Context, root string) (*nix.Nix, error) {
	conf, _, err := h.include(h.Getenv(ConfVariable))
	if err != nil {
		return nil, err
	}
	with := nix.Config{Conf: conf}
	if root == "" {
		return h.reach(ctx, with)
	}
	n, err := nix.Find(ctx, h.Log, with)
	if err != nil {
		return nil, err
	}
	return n.WithRoot(root), nil
}

// reach finds Nix and opens its store.
func (h *Host) reach(ctx context.Context, with nix.Config) (*nix.Nix, error) {
	n, err := nix.Find(ctx, h.Log, with)
	if err == nil {
		err = n.Reach(ctx)
	}
	return n, err
}

// check returns an error if an address or a key is invalid, before Nix does.
func (c *Config) check() error {
	addresses, _, err := c.substituters()
	if err != nil {
		return err
	}
	for flag, err := range map[string]error{
		"substituters":        cmp.Or(valid.All(push.CheckForm, addresses...), valid.All(valid.Substituter, addresses...)),
		"trusted-public-keys": valid.All(valid.Key, c.PublicKeys...),
	} {
		if err != nil {
			return usage.Errorf("--%s: %w", flag, err)
		}
	}
	return checkStore(c.Store)
}

// checkStore returns an error if Nix cannot build in the store with this address. An empty one is this
// machine's store.
func checkStore(address string) error {
	if address == "" {
		return nil
	}
	if err := valid.Address(address); err != nil {
		return usage.Errorf("--store: %w. Give an address such as ssh-ng://USER@HOST, or the absolute path of a directory", err)
	}
	shown := nix.Redact(address)
	switch scheme, _, _ := strings.Cut(address, "://"); scheme {
	case "ssh":
		return usage.Errorf("cannot build in --store: Nix builds on another machine only by ssh-ng://. Write ssh-ng%s", strings.TrimPrefix(shown, scheme))
	case "http", "https", "s3", "file":
		return usage.Errorf("cannot build in --store: %q is a binary cache. Name it with --substituters or --push", shown)
	}
	return nil
}

// Reach returns an error that wraps [nix.ErrUnreachable] if a store on another machine cannot be
// opened.
func (n *Nix) Reach(ctx context.Context) error {
	if n.Remote == "" {
		return nil // Open has opened it
	}
	return n.Store.Reach(ctx)
}

// warn logs the settings that have no effect.
func (n *Nix) warn(ctx context.Context) {
	c := n.config
	if c.Store != "" && len(c.Substituters)+len(c.PublicKeys) > 0 {
		n.host.Log.Warn("Some settings are only for discovery", errors.New("builds in another store fetch by the settings of its own nix.conf"))
	}
	daemon := unix.Access("/nix/store", unix.W_OK) != nil
	credentials := slices.ContainsFunc(slices.Concat(c.Push, c.Substituters), func(address string) bool {
		return strings.HasPrefix(address, "s3:") || strings.HasPrefix(address, "ssh")
	})
	if daemon && credentials && c.Store == "" && !c.Evaluates {
		n.host.Log.Warn("Some binary caches are read with the daemon's own credentials", errors.New("the Nix daemon asks s3:// and ssh stores as root, without the variables of env and the ssh key; paths that it cannot read there are built again"))
	}
	if daemon && c.Store == "" && len(c.Substituters)+len(c.PublicKeys)+len(c.Builders) > 0 {
		if err := n.Distrust(ctx); errors.Is(err, nix.ErrUntrusted) {
			n.host.Log.Warn("Some settings have no effect", fmt.Errorf("%w: it ignores builders, public keys and substituters that its own settings don't name", err))
		}
	}
}

// Set overrides settings.
func (n *Nix) Set(options ...nix.Option) { n.use(n.WithOptions(options...)) }

// Lock has flakes evaluated with other inputs.
func (n *Nix) Lock(l nix.Lock) { n.use(n.WithLock(l)) }

// ResolveLock is of [nix.Nix.ResolveLock].
func (n *Nix) ResolveLock(ctx context.Context, flakes []string) error {
	resolved, err := n.Nix.ResolveLock(ctx, flakes)
	if err == nil {
		n.use(resolved)
	}
	return err
}

func (n *Nix) use(here *nix.Nix) {
	n.Nix, n.Store = here, here
	if n.Remote != "" {
		n.Store = here.WithStore(n.Remote)
	}
}

// Remotely reports whether another machine builds for a system.
func (n *Nix) Remotely(system string) bool { return n.config.Remotely(system) }

// secrets returns the secrets that a push needs.
func (n *Nix) secrets(ctx context.Context) (push.Secrets, error) {
	h := n.host
	secrets := push.Secrets{
		AtticToken:  h.Getenv("ATTIC_TOKEN"),
		CachixToken: h.Getenv("CACHIX_AUTH_TOKEN"),
		CachixKey:   h.Getenv("CACHIX_SIGNING_KEY"),
		Env:         n.Env,
		SSHKey:      h.Has(SSHKeyVariable),
		Bare:        h.Hosted,
		IDToken:     h.IDToken,
		Issuer:      h.Issuer,
		Mask:        h.mask,
		// Discovery has fewer permissions than the job that builds.
		IDTokenLater: n.config.PushesLater && h.Running && !h.Withheld,
	}
	if !h.Has(SigningKeyVariable) {
		return secrets, nil
	}
	var err error
	secrets.PublicKey, err = n.PublicKey(ctx, h.Getenv(SigningKeyVariable))
	return secrets, err
}

// Sign writes the key that signs pushed paths to a file, which does not exist during an evaluation.
func (n *Nix) Sign() (err error) {
	n.Push.Secrets.KeyFile, err = n.secretFile(n.host.Getenv(SigningKeyVariable))
	return err
}
