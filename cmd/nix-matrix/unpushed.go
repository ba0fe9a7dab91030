package main

import (
	"errors"
	"fmt"

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
