package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/nix-matrix/internal/valid"
)

// An Inquiry asks substituters which paths they have, over one connection to Nix. It takes no
// account of the local store, since it has an empty one of its own.
type Inquiry struct {
	daemon       *Daemon
	substituters []string
	empty        string        // directory of the store
	said         limitedBuffer // what Nix has logged
}

// Inquire begins to ask substituters. The caller closes the Inquiry.
func (n *Nix) Inquire(ctx context.Context, substituters ...string) (*Inquiry, error) {
	return n.inquire(ctx, asked, substituters)
}

func (n *Nix) inquire(ctx context.Context, how []Option, substituters []string) (_ *Inquiry, err error) {
	q := &Inquiry{substituters: substituters}
	if q.empty, err = os.MkdirTemp("", "nix-matrix-empty-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			removeAll(q.empty)
		}
	}()
	// Nix refuses a directory behind a symlink, as it is on macOS.
	store, err := filepath.EvalSymlinks(q.empty)
	if err != nil {
		return nil, err
	}
	at := n.WithStore(store)
	cmd := at.query(ctx, "nix-daemon", n.asking(how).settings(Set("substituters", substituters...)).add("--stdio"))
	if q.daemon, err = at.connect(ctx, cmd, q.said.add); err != nil && q.daemon != nil {
		err = q.daemon.explain(err)
	}
	if err != nil {
		return nil, q.failed(err)
	}
	return q, nil
}

// Close ends the connection.
func (q *Inquiry) Close() {
	_ = q.daemon.Close() // it has answered, or the error was returned
	removeAll(q.empty)
}

// Substitutable returns which of the paths, and of the paths that Nix would fetch with them, a
// substituter has. It takes no account of signatures: see TrustedPaths. If substituters don't
// answer, the error is a *NoAnswerError.
func (q *Inquiry) Substitutable(paths []string) (map[string]bool, error) {
	fetched, _, err := q.missing(paths)
	if err != nil {
		return nil, err
	}
	return fetched, q.noAnswer()
}

// missing returns the paths that Nix would fetch for the given ones, and those that no
// substituter has.
func (q *Inquiry) missing(paths []string) (fetched, lacking map[string]bool, err error) {
	if len(paths) == 0 {
		return nil, nil, nil
	}
	var r request
	r.numbers(opQueryMissing, uint64(len(paths)))
	r.checked(valid.StorePath, paths...)
	set := func(all []string) map[string]bool {
		is := make(map[string]bool, len(all))
		for _, path := range all {
			is[path] = true
		}
		return is
	}
	err = q.daemon.ask(&r, func(a *answer) {
		a.list() // derivations to build, of which none was asked for
		fetched, lacking = set(a.list()), set(a.list())
		a.number() // bytes to download
		a.number() // and to unpack
	})
	if err != nil {
		return nil, nil, q.failed(q.daemon.explain(errors.Join(err, q.daemon.Close())))
	}
	return fetched, lacking, nil
}

// failed returns an error without the passwords of the substituters.
func (q *Inquiry) failed(err error) error {
	return fmt.Errorf("cannot query the substituters: %s", redactText(err.Error(), q.substituters...))
}

// noAnswer returns a *NoAnswerError if a substituter did not answer so far, else nil.
func (q *Inquiry) noAnswer() error { return noAnswerError(q.said.String(), q.substituters) }

// A limitedBuffer is the beginning of a log.
type limitedBuffer struct{ text []byte }

func (b *limitedBuffer) add(more string) {
	const limit = 1 << 20
	b.text = append(b.text, more[:min(len(more), limit-len(b.text))]...)
}

func (b *limitedBuffer) String() string { return string(b.text) }
