package build

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache/memory"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
)

// An exchange passes the outputs of units from one entry to the others.
type exchange interface {
	Give(ctx context.Context, n *nix.Nix, outputs []string, done *job.Done) (size int64, err error)
	Take(ctx context.Context, n *nix.Nix, all []reuse.Handover, named func(path string) bool, result *job.Result) error
}

// oneStore is the exchange of entries that one process builds in one store. The claims to units are in
// its memory, and the outputs in the store already.
type oneStore struct {
	docs     *documents.Store
	waiting  atomic.Int32 // entries that have not begun
	failFast bool         // a failure ends all entries
}

func newOneStore(entries int, failFast bool) *oneStore {
	s := &oneStore{
		docs:     &documents.Store{Cache: memory.New(), ID: job.DefaultID, Run: 1, Attempt: 1, Trust: &action.Trust{}},
		failFast: failFast,
	}
	s.waiting.Store(int32(entries)) //nolint:gosec // a matrix has few
	return s
}

// begin notes that an entry begins. s may be nil.
func (s *oneStore) begin() {
	if s != nil {
		s.waiting.Add(-1)
	}
}

// helps reports whether an entry whose targets are done goes on for others: not while an entry waits for
// its slot, and not if its own failure ends all of them. s may be nil.
func (s *oneStore) helps(result *job.Result) bool {
	return s == nil || s.waiting.Load() == 0 && (!s.failFast || allOK(result))
}

// Give is of [exchange].
func (s *oneStore) Give(context.Context, *nix.Nix, []string, *job.Done) (size int64, err error) {
	return 0, nil
}

// Take is of [exchange].
func (s *oneStore) Take(ctx context.Context, n *nix.Nix, all []reuse.Handover, _ func(path string) bool, _ *job.Result) error {
	var outputs []string
	for _, h := range all {
		outputs = append(outputs, h.Outputs...)
	}
	valid, err := n.Valid(ctx, outputs...)
	if err != nil {
		return err
	}
	for i, h := range all {
		if gone := slices.IndexFunc(h.Outputs, func(path string) bool { return !valid[path] }); gone >= 0 {
			all[i].Err = fmt.Errorf("the store does not have %s any more", h.Outputs[gone])
		}
	}
	return nil
}
