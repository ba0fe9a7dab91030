package nix

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Trust is the trust of a store in this user: a trusted user may add any path and set all settings.
type Trust int

// The values of Trust, with the numbers of the protocol.
const (
	TrustUnknown Trust = iota // also before protocol version 1.35, which came with CppNix 2.15
	Trusted
	NotTrusted
)

// Trust returns whether the store trusts this user.
func (d *Daemon) Trust() Trust { return d.trust }

func (d *Daemon) readTrust() error {
	level, err := wire.ReadUint64(d.r)
	if err != nil {
		return err
	}
	if level > uint64(NotTrusted) {
		return fmt.Errorf("unknown level of trust %d", level)
	}
	d.trust = Trust(level)
	return nil
}

// refuses returns an error if it is known beforehand that the store will refuse a path.
func (d *Daemon) refuses(info *PathInfo) error {
	if d.trust == NotTrusted && d.signatures && !info.Proven() {
		return fmt.Errorf("%w: cannot add %s, which has neither a signature nor a content address", errUntrusted, info.Path)
	}
	return nil
}

// Proven reports whether a store may accept a path from an untrusted user: it has a content
// address or a signature, though perhaps not by a trusted key.
func (i *PathInfo) Proven() bool { return i.CA != "" || len(i.Signatures) > 0 }

// errUntrusted is ErrUntrusted with the remedy.
var errUntrusted = fmt.Errorf("%w: name this user in the setting trusted-users of nix.conf and restart the Nix daemon", ErrUntrusted)

// Distrust returns an error that wraps [ErrUntrusted] if the store does not trust this user and
// so ignores some settings.
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

// RefusesUnproven is [Nix.Distrust], but returns nil if the store requires no signatures.
func (n *Nix) RefusesUnproven(ctx context.Context) error {
	if !n.requiresSignatures() {
		return nil
	}
	return n.Distrust(ctx)
}

// requiresSignatures reports whether the settings require signatures. The daemon reads the same
// file.
func (n *Nix) requiresSignatures() bool {
	required := true
	_ = json.Unmarshal(n.config["require-sigs"].Value, &required) // without the setting, they are required
	return required
}
