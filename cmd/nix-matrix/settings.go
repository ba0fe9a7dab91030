package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// The environment variables with secrets. None is ever an argument.
const (
	signingKeyVariable = "NIX_MATRIX_SIGNING_KEY"
	netrcVariable      = "NIX_MATRIX_NETRC"
	envVariable        = "NIX_MATRIX_ENV"
	sshKeyVariable     = "NIX_MATRIX_SSH_KEY"
	confVariable       = "NIX_MATRIX_CONF"
	gitHubVariable     = "NIX_MATRIX_GITHUB_ACCESS_TOKEN"
	encryptionVariable = "NIX_MATRIX_ENCRYPTION_KEY"
	gitCryptVariable   = "NIX_MATRIX_GIT_CRYPT_KEY"
)

const secretsHelp = `Secrets are taken from the environment: ATTIC_TOKEN and CACHIX_AUTH_TOKEN, the key
that signs what nix copy pushes in NIX_MATRIX_SIGNING_KEY, lines of a netrc file in
NIX_MATRIX_NETRC and of a nix.conf in NIX_MATRIX_CONF, an ssh key in
NIX_MATRIX_SSH_KEY, and in NIX_MATRIX_ENV what other destinations and your own steps
want, as lines NAME=VALUE (AWS_ACCESS_KEY_ID and such). With a text in
NIX_MATRIX_ENCRYPTION_KEY all that is cached or uploaded is sealed.`

// surroundings are the settings that discovery and build have in common: where
// paths come from and go to, and where things are built.
type surroundings struct {
	push         []string
	pushRequired bool
	pushTimeout  string
	substituters []string
	publicKeys   []string
	store        string
	builders     []string
	knownHosts   string
	nixpkgs      string // flake of the programs that discovery runs or hands on

	// evaluates says that sources are fetched, for which an evaluator gets what a
	// builder does not.
	evaluates bool
}

func (s *surroundings) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.push, "push", a.action.Lines("push"),
		"binary cache to push to: attic:https://SERVER/CACHE, cachix:NAME or any `ADDRESS` that nix copy speaks; may be repeated")
	a.boolFlag(cmd, &s.pushRequired, "push-required", true,
		"whether a push that fails or can't happen is an error; else it is a warning, as is one without secrets in a pull request from a fork or from Dependabot")
	f.StringSliceVar(&s.substituters, "substituters", words(a.action.Input("substituters")), "further `ADDRESS`es to fetch from")
	f.StringSliceVar(&s.publicKeys, "trusted-public-keys", words(a.action.Input("trusted_public_keys")), "further `KEY`s whose signature is enough to take a path")
	f.StringVar(&s.store, "store", a.action.Input("store"), "build in another store, such as ssh-ng://USER@HOST, by its `ADDRESS`")
	f.StringArrayVar(&s.builders, "builders", a.action.Lines("builders"), "remote `BUILDER`, as in nix.conf; may be repeated")
	f.StringVar(&s.knownHosts, "ssh-known-hosts", a.action.Input("ssh_known_hosts"), "`LINES` as of a known_hosts file, for a store and builders by ssh")
}

// pushFlags are those of the commands that push.
func (s *surroundings) pushFlags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.pushTimeout, "push-timeout", or(a.action.Input("push_timeout"), "30m"), "how long a binary cache may take to take in what has come together, as a `TIME`")
}

// elsewhere says whether a system is built by another machine than the one that
// the entry runs on.
func (s *surroundings) elsewhere(system string) bool {
	return s.store != "" || slices.ContainsFunc(s.builders, func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 1 && slices.Contains(strings.Split(fields[1], ","), system)
	})
}

// A site is a Nix with all its settings, and what is to be cleaned up after it.
type site struct {
	app *app
	nix *nix.Nix // with the store of this machine
	// store has what is built: a remote one, or this machine's.
	store  *nix.Nix
	remote string // its address, empty if it is this machine's
	// elsewhere says whether a system is built by another machine.
	elsewhere func(system string) bool

	further  []string        // substituters, beside those of Nix's settings
	mute     map[string]bool // substituters that don't answer
	to       []push.Destination
	push     push.Options
	ssh      string   // options for it
	required bool     // whether a push that fails is an error
	withheld bool     // whether GitHub gives the run no secrets
	notices  []string // of discovery, about pushes that can't happen
	env      []string // variables of the secret env
	remove   []func()
}

// close removes the files with secrets.
func (s *site) close() {
	for _, remove := range s.remove {
		remove()
	}
}

// secretFile writes a secret to a file that is there until close. An empty one makes none.
func (s *site) secretFile(secret string) (string, error) {
	if strings.TrimSpace(secret) == "" {
		return "", nil
	}
	name, remove, err := s.app.secretDir.File([]byte(strings.TrimSpace(secret) + "\n"))
	if err != nil {
		return "", err
	}
	s.remove = append(s.remove, remove)
	return name, nil
}

// open finds Nix and gives it all settings, with what the plan names besides. The
// caller closes the site.
func (s *surroundings) open(ctx context.Context, a *app, p *job.Plan) (_ *site, err error) {
	at := &site{app: a, remote: s.store, elsewhere: s.elsewhere, required: s.pushRequired, withheld: a.action.SecretsWithheld()}
	defer func() {
		if err != nil {
			at.close()
		}
	}()
	if err := s.check(); err != nil {
		return nil, &usageError{err}
	}
	if at.to, err = destinations(s.push); err != nil {
		return nil, err
	}
	for _, to := range at.to {
		if s.store != "" && to.NeedsFiles() {
			return nil, usagef("--push %s: Cachix's program pushes what is on this machine, and with --store nothing is: leave one of them out", to.Name)
		}
	}
	if at.push.Timeout, err = duration("push-timeout", s.pushTimeout); err != nil {
		return nil, err
	}
	if at.env, err = a.secretEnv(); err != nil {
		return nil, err
	}
	a.maskParts()
	ssh, err := s.ssh(at)
	if err != nil {
		return nil, err
	}
	with := nix.Surroundings{Env: at.env, SSH: ssh.options}
	conf := a.getenv(confVariable)
	if s.evaluates {
		fetch := a.fetching(ssh.options)
		conf, with.Nixpkgs = fetch.conf+conf, s.nixpkgs
		if with.Fetch, err = at.gitEnv(fetch); err != nil {
			return nil, err
		}
	}
	var remove func()
	if with.Conf, remove, err = a.include(conf); err != nil {
		return nil, err
	}
	at.remove = append(at.remove, remove)
	at.nix, err = findNix(ctx, a, with)
	if err != nil {
		return nil, err
	}
	if at.push.Secrets, err = a.secrets(ctx, at); err != nil {
		return nil, err
	}
	at.ssh = ssh.options
	at.with(nix.Set("fallback", "true")) // a cache that fails costs a build, no more
	if len(s.builders) > 0 {
		at.with(nix.Set("builders", strings.Join(ssh.builders, " ; ")))
	}
	s.warn(ctx, at)
	if s.evaluates {
		if err = at.pushable(); err != nil {
			return nil, err
		}
	}
	return at, at.reading(ctx, s.evaluates, slices.Concat(s.substituters, p.Substituters), slices.Concat(s.publicKeys, p.PublicKeys))
}

// check finds what is neither an address nor a key before Nix would.
func (s *surroundings) check() error {
	for flag, err := range map[string]error{
		"substituters":        cmp.Or(valid.All(push.CheckForm, s.substituters...), valid.All(valid.Substituter, s.substituters...)),
		"trusted-public-keys": valid.All(valid.Key, s.publicKeys...),
	} {
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return checkStore(s.store)
}

// findNix finds a Nix whose store can be opened.
func findNix(ctx context.Context, a *app, with nix.Surroundings) (*nix.Nix, error) {
	n, err := nix.Find(ctx, a.show, with)
	if err == nil {
		err = n.Reach(ctx)
	}
	return n, err
}

// warn tells of what was given and can't have any effect.
func (s *surroundings) warn(ctx context.Context, at *site) {
	if s.store != "" && len(s.substituters)+len(s.publicKeys) > 0 {
		at.app.warn("Some settings are only for discovery", errors.New("what is built in another store fetches by the settings of its own nix.conf"))
	}
	daemon := unix.Access("/nix/store", unix.W_OK) != nil
	abroad := slices.ContainsFunc(slices.Concat(s.push, s.substituters), func(address string) bool {
		return strings.HasPrefix(address, "s3:") || strings.HasPrefix(address, "ssh")
	})
	if daemon && abroad && s.store == "" && !s.evaluates {
		at.app.warn("Some binary caches are read with the daemon's own credentials", errors.New("the Nix daemon asks s3:// and ssh stores as root, without the variables of env and the ssh key; what it can't read there is built again"))
	}
	if daemon && s.store == "" && len(s.substituters)+len(s.publicKeys)+len(s.builders) > 0 {
		if err := at.nix.Distrust(ctx); errors.Is(err, nix.ErrUntrusted) {
			at.app.warn("Some settings have no effect", fmt.Errorf("%w: it ignores builders, public keys and substituters that its own settings don't name", err))
		}
	}
}

// with overrides settings.
func (s *site) with(options ...nix.Option) {
	s.nix = s.nix.With(options...)
	s.store = s.nix
	if s.remote != "" {
		s.store = s.nix.At(s.remote)
	}
}

// secrets are those of the environment.
func (a *app) secrets(ctx context.Context, at *site) (push.Secrets, error) {
	secrets := push.Secrets{
		AtticToken:  a.getenv("ATTIC_TOKEN"),
		CachixToken: a.getenv("CACHIX_AUTH_TOKEN"),
		CachixKey:   a.getenv("CACHIX_SIGNING_KEY"),
		Env:         at.env,
		SSHKey:      strings.TrimSpace(a.getenv(sshKeyVariable)) != "",
		Bare:        a.hosted(),
	}
	key := a.getenv(signingKeyVariable)
	if strings.TrimSpace(key) == "" {
		return secrets, nil
	}
	var err error
	secrets.PublicKey, err = at.nix.PublicKey(ctx, key)
	return secrets, err
}

// sign puts the key for what is pushed into a file. While something is evaluated, it is
// in none.
func (s *site) sign() (err error) {
	s.push.Secrets.KeyFile, err = s.secretFile(s.app.getenv(signingKeyVariable))
	return err
}

// reading has Nix take what it can from further substituters and from where we
// push, if it is known by which key that is signed. Where a destination refuses us, a
// discovery may end.
func (s *site) reading(ctx context.Context, discovers bool, substituters, keys []string) error {
	netrc := s.app.getenv(netrcVariable)
	// It takes the place of the user's, which other substituters may need.
	own, unread := os.ReadFile(s.nix.Text("netrc-file"))
	s.push.Secrets.Netrc = netrc + "\n" + string(own)
	for i := range s.to {
		to := &s.to[i]
		dialing, cancel := context.WithTimeout(ctx, 2*nix.Patience) // pushing has patience of its own
		err := to.Dial(dialing, s.push.Secrets)
		cancel()
		if err != nil {
			var refused *push.RefusedError
			if discovers && errors.As(err, &refused) && s.noSecret(to) == nil {
				if err := s.cannotPush(to, err); err != nil {
					return err
				}
			}
			s.app.warn("What is at "+to.Name+" already is built again", err)
			continue
		}
		if (len(to.PublicKeys) > 0 || len(keys) > 0) && !to.Missing() {
			substituters = append(substituters, to.Substituter)
			keys = append(keys, to.PublicKeys...)
		}
		netrc += "\n" + to.Netrc(s.push.Secrets)
	}
	s.read(substituters, keys)
	if strings.TrimSpace(netrc) == "" {
		return nil
	}
	if unread != nil && !errors.Is(unread, fs.ErrNotExist) {
		s.app.warn("The machine's own netrc file is not in effect, since ours takes its place", fmt.Errorf("%w; repeat its lines in the input netrc", unread))
	}
	netrc += "\n" + string(own)
	file, err := s.secretFile(netrc)
	s.with(nix.Set("netrc-file", file))
	return err
}

// read has Nix take paths from substituters too that the keys have signed.
func (s *site) read(substituters, keys []string) {
	s.further = append(s.further, substituters...)
	var options []nix.Option
	if len(substituters) > 0 {
		options = append(options, nix.Set("extra-substituters", substituters...))
	}
	if len(keys) > 0 {
		options = append(options, nix.Set("extra-trusted-public-keys", keys...))
	}
	s.with(options...)
}

// substituters are all that Nix fetches from.
func (s *site) substituters() []string {
	all := slices.Concat(s.nix.Setting("substituters"), s.further)
	slices.Sort(all)
	return slices.Compact(all)
}

func destinations(addresses []string) ([]push.Destination, error) {
	var all []push.Destination
	for _, address := range addresses {
		d, err := push.Parse(address)
		if err != nil {
			return nil, &usageError{err}
		}
		all = append(all, d)
	}
	return all, nil
}

// words splits an input whose values stand in lines or behind commas.
func words(input string) []string {
	return strings.FieldsFunc(input, func(c rune) bool { return strings.ContainsRune(" ,\t\r\n", c) })
}

// duration reads a time, such as 90m or 1h30m; 0 is for none.
func duration(flag, value string) (time.Duration, error) {
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, usagef("--%s %s: it is a time such as 90m or 1h30m", flag, value)
	}
	return d, nil
}
