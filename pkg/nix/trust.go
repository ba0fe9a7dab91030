package nix

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Trust is whether a store trusts this user: takes any path, and all settings.
type Trust int

// A store before protocol version 1.35, which CppNix has from 2.15 on, does not say.
const (
	TrustUnknown Trust = iota
	Trusted
	NotTrusted
)

// Trust returns what the store has said of this user.
func (d *Daemon) Trust() Trust { return d.trust }

func (d *Daemon) readTrust() error {
	said, err := wire.ReadUint64(d.r)
	if err != nil {
		return err
	}
	if said > uint64(NotTrusted) {
		return fmt.Errorf("it says %d of whether it trusts us", said)
	}
	d.trust = Trust(said)
	return nil
}

// refuses returns why the store won't take a path, as far as that is known before.
func (d *Daemon) refuses(info *PathInfo) error {
	if d.trust == NotTrusted && d.signatures && !info.Proven() {
		return fmt.Errorf("%w: cannot add %s, which has neither a signature nor a content address", errUntrusted, info.Path)
	}
	return nil
}

// Proven reports whether a path may be taken also from a user who is not trusted: it has
// a content address or a signature, though perhaps not by a trusted key.
func (i *PathInfo) Proven() bool { return i.CA != "" || len(i.Signatures) > 0 }

// errUntrusted is ErrUntrusted with what to do about it.
var errUntrusted = fmt.Errorf("%w: name this user in the setting trusted-users of nix.conf and restart the Nix daemon", ErrUntrusted)

// Distrust returns an error that wraps [ErrUntrusted] if the store says that it does not
// trust this user, so that it ignores some settings.
func (n *Nix) Distrust(ctx context.Context) error {
	d, err := n.Connect(ctx)
	if err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return d.explain(err)
	}
	if d.trust == NotTrusted {
		return errUntrusted
	}
	return nil
}

// RefusesUnproven is [Nix.Distrust] for a store that takes only proven paths then.
func (n *Nix) RefusesUnproven(ctx context.Context) error {
	if !n.requiresSignatures() {
		return nil
	}
	return n.Distrust(ctx)
}

// requiresSignatures reports whether the settings are so. Those of the daemon are in the
// same file.
func (n *Nix) requiresSignatures() bool {
	required := true
	_ = json.Unmarshal(n.config["require-sigs"].Value, &required) // a version that hasn't it requires them
	return required
}
