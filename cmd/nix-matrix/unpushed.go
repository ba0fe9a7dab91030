package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
)

// noSecret returns an error that names the secret without which nothing can be pushed to
// a destination, or nil if none is known to be missing.
func (s *site) noSecret(to *push.Destination) error {
	if lacks := to.Lacks(s.push.Secrets); lacks != "" {
		return fmt.Errorf("%s is not set", lacks)
	}
	return nil
}

// certain reports whether a secret that this job lacks is missing in the build job too,
// where a step may bring credentials of AWS or an ssh agent.
func (s *site) certain(to *push.Destination) bool {
	secrets := s.push.Secrets
	secrets.Bare = false
	return to.Lacks(secrets) != ""
}

// cannotPush returns the error with which discovery ends because a required push can't
// happen. A push that is not required is a warning, and a run without secrets gets a notice.
func (s *site) cannotPush(to *push.Destination, why error) error {
	switch {
	case s.withheld:
		s.notices = append(s.notices, fmt.Sprintf("Nothing is pushed to %s, because GitHub gives no secrets to a pull request from a fork or from Dependabot: %v.", to.Name, why))
		return nil
	case s.required:
		return &usageError{fmt.Errorf("cannot push to %s: %w. Give the secret to discover and build under its right name, or set push_required to false (--push-required=false)", to.Name, why)}
	default:
		s.app.warn("Nothing can be pushed to "+to.Name, why)
		return nil
	}
}

// pushable returns an error if a required push lacks a secret.
func (s *site) pushable() error {
	for i := range s.to {
		to := &s.to[i]
		why := s.noSecret(to)
		if why == nil || !s.withheld && !s.certain(to) {
			continue
		}
		if err := s.cannotPush(to, why); err != nil {
			return err
		}
	}
	return nil
}

// unpushed notes in a Push why it failed, or was not tried, and whether that counts.
func (s *site) unpushed(p *job.Push, err error) {
	p.Error = err.Error()
	var refused *push.RefusedError
	if errors.As(err, &refused) {
		p.Reason, p.Status = job.PushRefused, refused.Status
	}
	p.Withheld = s.withheld && p.Reason != ""
	p.Optional = p.Withheld || !s.required
}

// pushUnseen has the session push what a stopped build of the derivations has built although
// no event said so: Nix's log lags behind Nix, and the rest of it is lost with the process.
func (w *worker) pushUnseen(ctx context.Context, session *push.Session, drvs []string) {
	ctx, cancel := context.WithTimeout(ctx, push.Grace)
	defer cancel()
	built, err := w.builtHere(ctx, drvs)
	if err != nil {
		w.app.show.Warn("cannot ask for all that was built before the stop: %v", err)
	}
	for _, drv := range built {
		session.Built(drv)
	}
}

// builtHere returns the derivations, of those given and all that they need, with outputs
// that the store has built itself.
func (w *worker) builtHere(ctx context.Context, drvs []string) ([]string, error) {
	closure, err := w.site.nix.Requisites(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	closure = slices.DeleteFunc(closure, func(path string) bool { return !strings.HasSuffix(path, ".drv") })
	outputs, err := w.site.store.Outputs(ctx, closure...)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, byName := range outputs {
		paths = slices.AppendSeq(paths, maps.Values(byName))
	}
	valid, err := w.site.store.Valid(ctx, slices.DeleteFunc(paths, func(path string) bool { return path == "" })...)
	if err != nil {
		return nil, err
	}
	infos, err := w.site.store.FullInfo(ctx, slices.Collect(maps.Keys(valid))...)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for i := range infos {
		here[infos[i].Path] = infos[i].Ultimate
	}
	return slices.DeleteFunc(closure, func(drv string) bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(outputs[drv])), func(path string) bool { return here[path] })
	}), nil
}
