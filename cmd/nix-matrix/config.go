package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
)

const secretsHelp = `Secrets are taken from the environment: ATTIC_TOKEN and CACHIX_AUTH_TOKEN, the key
that signs what nix copy pushes in NIX_MATRIX_SIGNING_KEY, lines of a netrc file in
NIX_MATRIX_NETRC and of a nix.conf in NIX_MATRIX_CONF, an ssh key in
NIX_MATRIX_SSH_KEY, and in NIX_MATRIX_ENV what other destinations and your own steps
want, as lines NAME=VALUE (AWS_ACCESS_KEY_ID and such). With a text in
NIX_MATRIX_ENCRYPTION_KEY all that is cached or uploaded is sealed.`

// accessFlags are those that discovery and build have in common: where paths come from and go to,
// and where things are built.
type accessFlags struct {
	access.Config
	pushTimeout string
}

func (c *accessFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&c.Push, "push", a.action.Lines("push"),
		"binary cache to push to: attic:https://SERVER/CACHE, cachix:NAME or any `ADDRESS` that nix copy speaks; may be repeated")
	a.boolFlag(cmd, &c.PushRequired, "push-required", true,
		"whether a push that fails or can't happen is an error; else it is a warning, as is one without secrets in a pull request from a fork or from Dependabot")
	f.StringSliceVar(&c.Substituters, "substituters", words(a.action.Input("substituters")), "further `ADDRESS`es to fetch from")
	f.StringSliceVar(&c.PublicKeys, "trusted-public-keys", words(a.action.Input("trusted_public_keys")), "further `KEY`s whose signature is enough to take a path")
	f.StringVar(&c.Store, "store", a.action.Input("store"), "build in another store, such as ssh-ng://USER@HOST, by its `ADDRESS`")
	f.StringArrayVar(&c.Builders, "builders", a.action.Lines("builders"), "remote `BUILDER`, as in nix.conf; may be repeated")
	f.StringVar(&c.KnownHosts, "ssh-known-hosts", a.action.Input("ssh_known_hosts"), "`LINES` as of a known_hosts file, for a store and builders by ssh")
}

// pushFlags are those of the commands that push.
func (c *accessFlags) pushFlags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.pushTimeout, "push-timeout", or(a.action.Input("push_timeout"), "30m"), "how long a binary cache may take to take in what has come together, as a `TIME`")
}

// parse returns the values of the flags.
func (c *accessFlags) parse() (_ *access.Config, err error) {
	c.PushTimeout, err = duration("push-timeout", c.pushTimeout)
	return &c.Config, err
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
		return 0, usage.Errorf("--%s %s: it is a time such as 90m or 1h30m", flag, value)
	}
	return d, nil
}

// setUpFlag is that of the user's script before everything.
func (a *app) setUpFlag(cmd *cobra.Command, script *string) {
	cmd.Flags().StringVar(script, "setup", a.action.Input("setup"), "bash `SCRIPT` to run before anything; what it exports is in effect afterwards, also for evaluators and builders")
}

// hooks returns what runs the user's scripts.
func (a *app) hooks() (*hooks.Runner, error) {
	env, err := a.host.Env()
	if err != nil {
		return nil, err
	}
	return &hooks.Runner{Secrets: &a.secretDir, Env: env, Log: a.log, Mask: a.action.Mask}, nil
}

// fetchRetries are the pauses before failed downloads are tried again.
var fetchRetries = []time.Duration{5 * time.Second, 20 * time.Second}

// provisoTime is how long the user's script may take to decide about a target.
var provisoTime = time.Minute

// packing is what a user can say of how paths go through the cache.
type packing struct {
	engine reuse.EngineChoice
	policy string // what is saved
	limit  string // bytes of all packs together
	root   string // of a store that is not this machine's
}

func (p *packing) restoreFlags(a *app, cmd *cobra.Command) {
	p.engine.Strict, p.engine.AsRoot = !a.action.Running(), serveDirect
	cmd.Flags().StringVar(&p.engine.Name, "engine", or(a.action.Input("engine"), reuse.EngineAuto),
		"how paths get into the store: direct, unpacked side by side and then registered; protocol, as Nix itself does it; import, by nix-store --import; or auto, the first of them that can be had")
}

// checkEngine returns a usage error unless there is an engine of the name that was given.
func (p *packing) checkEngine() error { return oneOf("engine", p.engine.Name, reuse.EngineNames...) }

func (p *packing) policyFlag(a *app, cmd *cobra.Command, otherwise storecache.Policy) {
	cmd.Flags().StringVar(&p.policy, "store-cache", or(a.action.Input("store_cache"), string(otherwise)),
		"what is saved: built, what no public cache has; all; or off, nothing")
}

func (p *packing) limitFlag(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.limit, "store-cache-limit", or(a.action.Input("store_cache_limit"), "5GB"),
		"`SIZE` that all packs together may have, such as 5GB; what was not needed for longest goes first, and 0 is no limit")
}

func (p *packing) rootFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.root, "store", "", "a store in `ROOT`/nix/store, in place of this machine's")
}

// parsePolicy returns what is saved.
func (p *packing) parsePolicy() (storecache.Policy, error) {
	policy, err := storecache.ParsePolicy(p.policy)
	if err != nil {
		return "", usage.Errorf("--store-cache: %w", err)
	}
	return policy, nil
}

// defaultPolicy is what is saved of a build: at home, a store stays as it is.
func (a *app) defaultPolicy() storecache.Policy {
	if a.action.Running() {
		return storecache.Built
	}
	return storecache.Off
}

// workingFlags are those of the commands that build.
type workingFlags struct {
	timeout, silence, reclaim, post string
	postNeeds                       []string
	keepGoing                       bool
}

func (o *workingFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.timeout, "timeout", or(a.action.Input("timeout"), a.defaultTimeout()),
		"how long an entry may take, such as 5h20m; what is finished by then is pushed, and a rerun goes on from there")
	f.StringVar(&o.silence, "max-silent-time", a.action.Input("max_silent_time"), "how long a builder may print nothing, as a `TIME`")
	a.boolFlag(cmd, &o.keepGoing, "keep-going", true,
		"go on with what else an entry needs when none of its targets can be built any more, for later runs to start from")
	f.StringVar(&o.post, "post-build", a.action.Input("post_build"),
		"bash `SCRIPT` to run for each target that is built, with NIX_MATRIX_OUT, _OUTPUTS, _ATTR, _NAME, _HOST, _KIND, _SYSTEM and _DRV in its environment")
	f.StringSliceVar(&o.postNeeds, "post-build-needs", words(a.action.Input("post_build_needs")), "`VARIABLE`s without which post-build is left out")
	f.StringVar(&o.reclaim, "reclaim-disk", or(a.action.Input("reclaim_disk"), "auto"),
		"auto, true or false: remove what is preinstalled on GitHub's own runners, by default when room is foreseen to be short")
}

// defaultTimeout leaves time to push before GitHub ends a job of its own runners,
// which it does after six hours.
func (a *app) defaultTimeout() string {
	if a.host.Hosted {
		return "5h20m"
	}
	return "0"
}

// parse returns the values of the flags.
func (o *workingFlags) parse(a *app) (build.Options, error) {
	w := build.Options{Retries: fetchRetries, Reclaim: o.reclaim, KeepGoing: o.keepGoing, Hosted: a.host.Hosted, Spread: a.inActions(), PostBuild: hooks.PostBuild{Script: o.post, Needs: o.postNeeds}}
	var err error
	if w.Timeout, err = duration("timeout", o.timeout); err != nil {
		return w, err
	}
	if w.MaxSilent, err = duration("max-silent-time", o.silence); err != nil {
		return w, err
	}
	return w, oneOf("reclaim-disk", o.reclaim, "auto", "true", "false")
}
