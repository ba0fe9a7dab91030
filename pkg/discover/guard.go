package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/push"
)

var errPublic = errors.New("anybody can read the Actions cache and the artifacts of a public repository")

// guard keeps private sources from places that anybody can read: with a private credential, nothing is
// cached or uploaded in clear in a public repository. A push to a public binary cache is the user's own
// decision, and gets a warning.
func (d *Discovery) guard(ctx context.Context) error {
	if !d.host.Running && !slices.ContainsFunc(d.Env.Destinations, func(to push.Destination) bool { return to.Public }) {
		return nil
	}
	decrypted, err := d.decrypted(ctx)
	if err != nil {
		return err
	}
	private := d.Env.Private(ctx, decrypted)
	if len(private) == 0 {
		return nil
	}
	means := strings.Join(private, ", ")
	for i := range d.Env.Destinations {
		if to := &d.Env.Destinations[i]; to.Public {
			d.log.Warn("Private sources may get into a public binary cache", fmt.Errorf("anybody can read %s, and there is %s. Make sure that no output contains private sources", to.Name, means))
		}
	}
	if d.Local || d.docs.Seal != nil || !d.Public(ctx) {
		return nil
	}
	return usage.Errorf("%w, and there is %s, which may give access to private sources. Set the secret encryption_key for all of discover, build and report, which seals everything (make one with openssl rand -base64 32)", errPublic, means)
}

// decrypted returns a file of each checkout that git-crypt has decrypted.
func (d *Discovery) decrypted(ctx context.Context) ([]string, error) {
	checkouts, err := d.checkouts(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot look for files that git-crypt has decrypted: %w", err)
	}
	var files []string
	for _, c := range checkouts {
		if len(c.Open) > 0 {
			files = append(files, c.Open[0])
		}
	}
	return files, nil
}
