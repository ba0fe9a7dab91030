package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/valid"
)

const opAddSignatures = 37

// Local returns the same Nix that opens the store itself instead of asking a daemon, and
// the directory with the files of its paths. It does not check whether this user may do so.
func (n *Nix) Local() (local *Nix, dir string, err error) {
	switch {
	case n.remote != "":
		return nil, "", errors.New("the store is on another machine")
	case n.root != "":
		return n, n.realDir(), n.err
	}
	address, query, _ := strings.Cut(n.Text("store"), "?")
	switch {
	case address == "local" || strings.HasPrefix(address, "local://") || strings.HasPrefix(address, "/"):
		return n, n.realDir(), nil
	case address == "" || address == "auto" || address == "daemon" || strings.HasPrefix(address, "unix://"):
		// A local store does not know the parameters of a connection to a daemon.
		settings, _ := url.ParseQuery(query)
		settings = url.Values{"root": settings["root"], "real": settings["real"], "state": settings["state"]}
		with := "local"
		if query := settings.Encode(); query != "" {
			with += "?" + query
		}
		return n.WithOptions(Set("store", with)), n.realDir(), nil
	}
	return nil, "", fmt.Errorf("the store %s is not on this machine", Redact(address))
}

// LoadDB registers paths as valid, all or none. Their files are in the directory of a local
// store, with the modes and times that Nix sets. The references of a path come before it, or
// are valid. Signatures and content addresses are not set, and are lost where a path was valid
// before. Nix checks nothing, so the caller must have checked the paths; the hashes are base16.
func (n *Nix) LoadDB(ctx context.Context, infos []PathInfo) error {
	var in bytes.Buffer
	for _, info := range infos {
		if err := info.check(); err != nil { // each field becomes a line
			return fmt.Errorf("cannot register store paths: %w", err)
		}
		fmt.Fprintf(&in, "%s\n%s\n%d\n%s\n%d\n", info.Path, info.NarHash, info.NarSize, info.Deriver, len(info.References))
		for _, reference := range info.References {
			fmt.Fprintln(&in, reference)
		}
	}
	cmd := n.command(ctx, "nix-store", args("--load-db"))
	cmd.Stdin = &in
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("cannot register store paths: %w", err)
	}
	return nil
}

// AddSignatures adds the signatures of infos to their paths, which must be valid. After an
// error the connection is closed.
func (d *Daemon) AddSignatures(infos []PathInfo) error {
	infos = slices.DeleteFunc(slices.Clone(infos), func(i PathInfo) bool { return len(i.Signatures) == 0 })
	err := d.askAll(len(infos), func(i int, q *request) {
		q.numbers(opAddSignatures)
		q.checked(valid.StorePath, infos[i].Path)
		q.numbers(uint64(len(infos[i].Signatures)))
		q.checked(valid.Key, infos[i].Signatures...) // a signature has the form of a key
	})
	if err != nil {
		return fmt.Errorf("cannot add signatures: %w", d.explain(errors.Join(err, d.Close())))
	}
	return nil
}

// askAll sends requests whose answer is a number without meaning, without waiting for an answer
// before the next request. After an error the connection is out of step.
func (d *Daemon) askAll(count int, fill func(i int, q *request)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all request
	for i := range count {
		fill(i, &all)
	}
	if all.err != nil {
		return all.err
	}
	var g errgroup.Group
	g.Go(func() error {
		for range count {
			err := d.messages()
			if err == nil {
				a := answer{r: d.r}
				a.number()
				err = a.err
			}
			if err != nil {
				_ = d.in.Close() // so that the writer does not wait for a reader that has ended
				return err
			}
		}
		return nil
	})
	_, written := all.WriteTo(d.w)
	if written == nil {
		written = d.w.Flush()
	}
	if written != nil {
		_ = d.in.Close() // so that the reader does not wait for answers
	}
	answered := g.Wait()
	var refusal *serverError
	if errors.As(answered, &refusal) {
		return refusal
	}
	return errors.Join(written, answered)
}
