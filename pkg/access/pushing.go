package access

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/org/nix-matrix/internal/glob"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/text"
)

// NoSecret returns an error that names the secret or permission that a push to a destination lacks, or nil if
// none is known to be missing.
func (n *Nix) NoSecret(to *push.Destination) error {
	if lacks := to.Lacks(n.Push.Secrets); lacks != nil {
		return lacks
	}
	return nil
}

// certain reports whether the build job lacks a secret too, where a step may bring AWS credentials or an
// ssh agent.
func (n *Nix) certain(to *push.Destination) bool {
	secrets := n.Push.Secrets
	secrets.Bare = false
	return to.Lacks(secrets) != nil
}

// cannotPush returns the error that ends discovery because a required push cannot happen. A push that is
// not required is a warning, and a run without secrets gets a notice.
func (n *Nix) cannotPush(to *push.Destination, why error) error {
	switch {
	case n.host.Withheld:
		n.Notices = append(n.Notices, fmt.Sprintf("Nothing is pushed to %s, because GitHub gives no secrets to a pull request from a fork or from Dependabot: %v.", to.Name, why))
		return nil
	case n.required:
		next := ". Give the secret to discover and build under its right name"
		if lacks := (*push.LackError)(nil); errors.As(why, &lacks) && lacks.Next != "" {
			next = "" // it says so itself
		}
		return usage.Errorf("cannot push to %s: %w%s, or set push_required to false (--push-required=false)", to.Name, why, next)
	default:
		n.host.Log.Warn("Nothing can be pushed to "+to.Name, why)
		return nil
	}
}

// pushable returns an error if a required push lacks a secret.
func (n *Nix) pushable() error {
	for i := range n.Destinations {
		to := &n.Destinations[i]
		why := n.NoSecret(to)
		if why == nil || !n.host.Withheld && !n.certain(to) {
			continue
		}
		if err := n.cannotPush(to, why); err != nil {
			return err
		}
	}
	return nil
}

// hold makes the destinations ones that are only read from, if this is not a run that pushes.
func (n *Nix) hold() {
	ref := n.host.ChangeRef
	if len(n.config.PushWhen) == 0 || len(n.Destinations) == 0 || ref != "" && pushesOn(n.config.PushWhen, ref) {
		return
	}
	n.sources, n.Destinations = append(n.sources, n.Destinations...), nil
	if ref == "" {
		ref = "a run whose change has no ref of its own"
	}
	n.host.Log.Printf("nothing is pushed: --push-when (input push_when) does not select %s", ref)
}

// pushesOn reports whether globs select a ref. Those that begin with refs/ are compared with all of it, the
// others with the name of a branch or a tag.
func pushesOn(globs []glob.Glob, ref string) bool {
	name, named := strings.CutPrefix(ref, "refs/heads/")
	if !named {
		name, named = strings.CutPrefix(ref, "refs/tags/")
	}
	return glob.Selects(globs, func(g *glob.Glob) bool {
		if g.Prefixed("refs/") {
			return g.Match(ref)
		}
		return named && g.Match(name)
	})
}

// tellFilter logs which paths were held back, and the globs that matched nothing.
func (n *Nix) tellFilter() {
	filter := n.Push.Filter
	if kept := filter.Kept(); len(kept) > 0 {
		n.host.Log.Printf("--push-filter (input push_filter) has held back %s: %s", text.Plural(len(kept), "path"), text.Some(kept, 20))
	}
	if unused := filter.Unused(); len(unused) > 0 {
		n.host.Log.Printf("--push-filter (input push_filter): nothing that could be pushed matches %s", text.Some(unused, 20))
	}
}

// Unpushed records in a Push why it failed or was not tried, and whether that turns the target red.
func (n *Nix) Unpushed(p *job.Push, err error) {
	p.Error = err.Error()
	var refused *push.RefusedError
	if errors.As(err, &refused) {
		p.Reason, p.Status = job.PushRefused, refused.Status
	}
	p.Withheld = n.host.Withheld && p.Reason != ""
	p.Optional = p.Withheld || !n.required
}

// Provide adds the programs for this machine's system to Nix.
func (n *Nix) Provide(programs []job.Program) {
	var known []nix.Program
	for _, p := range programs {
		if p.System == n.System {
			known = append(known, nix.Program{Name: p.Name, DrvPath: p.DrvPath, Output: p.Output, OutPath: p.OutPath})
		}
	}
	n.use(n.WithPrograms(known...))
}

// ProgramDrvs returns the derivations, in the drv pack, of programs that this machine needs to
// push and does not have on PATH.
func (n *Nix) ProgramDrvs(p *job.Plan) []string {
	var drvs []string
	for i := range n.Destinations {
		name := n.Destinations[i].Program()
		if name == "" || n.Destinations[i].Lacks(n.Push.Secrets) != nil {
			continue
		}
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if program, ok := p.Program(name, n.System); ok && program.DrvPath != "" {
			drvs = append(drvs, program.DrvPath)
		}
	}
	return drvs
}
