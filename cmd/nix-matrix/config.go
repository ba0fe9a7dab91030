package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/glob"
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
type accessFlags struct{ access.Config }

func (c *accessFlags) flags(cmd *cobra.Command) {
	c.readFlags(cmd)
	bind(cmd, flagvalue.Bool(&c.PushRequired, true), "push-required")
	bind(cmd, flagvalue.Each(&c.PushWhen, "GLOB", glob.Parse), "push-when")
	bind(cmd, flagvalue.Each(&c.PushFilter, "GLOB", glob.Parse), "push-filter")
	bind(cmd, flagvalue.Text(&c.Store, "ADDRESS", ""), "store")
	bind(cmd, flagvalue.Lines(&c.Builders, "BUILDER"), "builders")
	bind(cmd, flagvalue.Text(&c.KnownHosts, "LINES", ""), "ssh-known-hosts")
}

// readFlags are those of the commands that read from binary caches.
func (c *accessFlags) readFlags(cmd *cobra.Command) {
	bind(cmd, flagvalue.Lines(&c.Push, "ADDRESS"), "push")
	bind(cmd, flagvalue.Words(&c.Substituters, "ADDRESS"), "substituters")
	bind(cmd, flagvalue.Words(&c.PublicKeys, "KEY"), "trusted-public-keys")
}

// pushFlags are those of the commands that push.
func (c *accessFlags) pushFlags(cmd *cobra.Command) {
	bind(cmd, flagvalue.Time(&c.PushTimeout, "30m"), "push-timeout")
}

// setUpFlag is that of the user's script before everything.
func setUpFlag(cmd *cobra.Command, script *string) {
	bind(cmd, flagvalue.Text(script, "SCRIPT", ""), "setup")
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
	policy storecache.Policy // what is saved
	limit  int64             // bytes of all packs together
	root   string            // of a store that is not this machine's
}

func (p *packing) restoreFlags(a *app, cmd *cobra.Command) {
	p.engine.Strict, p.engine.AsRoot = !a.action.Running(), serveDirect
	bind(cmd, flagvalue.OneOf(&p.engine.Name, reuse.EngineAuto, reuse.EngineNames...), "engine")
}

func (p *packing) policyFlag(cmd *cobra.Command, otherwise storecache.Policy) {
	bind(cmd, flagvalue.OneOf(&p.policy, otherwise, storecache.Built, storecache.All, storecache.Off), "store-cache")
}

func (p *packing) limitFlag(cmd *cobra.Command) {
	bind(cmd, flagvalue.Size(&p.limit, "5GB"), "store-cache-limit")
}

func (p *packing) rootFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.root, "store-root", "", "a store in `ROOT`/nix/store, in place of this machine's")
}

// defaultPolicy returns what is saved of a build: outside of a workflow, a store stays as it is.
func (a *app) defaultPolicy() storecache.Policy {
	if a.action.Running() {
		return storecache.Built
	}
	return storecache.Off
}

// workingFlags are those of the commands that build.
type workingFlags struct {
	timeout, silence time.Duration
	reclaim          string
	post             hooks.PostBuild
	keepGoing        bool
}

func (o *workingFlags) flags(a *app, cmd *cobra.Command) {
	bind(cmd, flagvalue.Time(&o.timeout, a.defaultTimeout()), "timeout")
	bind(cmd, flagvalue.Time(&o.silence, ""), "max-silent-time")
	bind(cmd, flagvalue.Bool(&o.keepGoing, true), "keep-going")
	bind(cmd, flagvalue.Text(&o.post.Script, "SCRIPT", ""), "post-build")
	bind(cmd, flagvalue.Words(&o.post.Needs, "VARIABLE"), "post-build-needs")
	bind(cmd, flagvalue.OneOf(&o.reclaim, "auto", "auto", "true", "false"), "reclaim-disk")
}

// defaultTimeout leaves time to push before GitHub ends a job of its own runners,
// which it does after six hours.
func (a *app) defaultTimeout() string {
	if a.host.Hosted {
		return "5h20m"
	}
	return "0"
}

// options returns how an entry is built.
func (o *workingFlags) options(a *app) build.Options {
	return build.Options{
		Timeout: o.timeout, MaxSilent: o.silence, Retries: fetchRetries, Reclaim: o.reclaim, KeepGoing: o.keepGoing,
		Hosted: a.host.Hosted, Spread: a.inActions(), PostBuild: o.post,
	}
}
