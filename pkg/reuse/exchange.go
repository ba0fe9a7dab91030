package reuse

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/storecache"
)

// Give saves outputs that were built here for the other jobs of the run, with those paths of their
// closures that no substituter and no pack has. The document, for Take, names the packs of this run with
// such paths, also those of other jobs, and the hash of each path. size is that of the new packs, in bytes.
func (e *EntryCache) Give(ctx context.Context, n *nix.Nix, outputs []string) (document []byte, size int64, err error) {
	_ = e.loading.Wait()
	fresh, err := storecache.New(ctx, n, e.known(), storecache.Built, outputs)
	if err != nil {
		return nil, 0, err
	}
	packs, done, err := e.cache.save(ctx, n, fresh, func(p *storecache.Pack) {
		e.given = append(e.given, job.Pack{Key: p.Key, Size: p.Size, Paths: len(p.Index.Records)})
	})
	e.exchanged = append(e.exchanged, packs...)
	if err != nil {
		return nil, done.Size, err
	}
	document, err = storecache.NewIndex(e.exchanged...).Holding(outputs...).Marshal(e.cache.Docs.Seal)
	return document, done.Size, err
}

// known returns the index of all packs, of earlier runs and of this one, except those with these keys.
func (e *EntryCache) known(except ...string) *storecache.Index {
	return storecache.NewIndex(slices.Concat(e.index.Without(except...).Packs, e.exchanged)...)
}

// A Handover is what Take takes: outputs that another job has built, with the document of Give.
type Handover struct {
	Document []byte
	Outputs  []string
	Err      error // why not all outputs are valid now
	Bytes    int64 // about how many were read
}

// Take makes outputs valid that other jobs have built, from the packs of their documents or from a
// substituter. named reports whether a path belongs to the Plan: outputs that need any other path of a pack
// are refused. The error is that of the store.
func (e *EntryCache) Take(ctx context.Context, n *nix.Nix, all []Handover, named func(path string) bool) error {
	_ = e.loading.Wait()
	documents := make([]*storecache.Index, len(all))
	var outputs []string
	var packs []*storecache.Pack
	for i := range all {
		h := &all[i]
		if documents[i], h.Err = e.read(h, named); h.Err == nil {
			outputs, packs = append(outputs, h.Outputs...), append(packs, documents[i].Packs...)
		}
	}
	if len(outputs) == 0 {
		return nil
	}
	if err := e.openEngine(ctx, n); err != nil {
		return err
	}
	index, _ := storecache.NewIndex(slices.Concat(packs, e.index.Packs, e.exchanged)...).Accepting(e.Accept)
	got, restoring := e.cache.restore(ctx, n, *e.opened, index, outputs)
	valid, err := n.Valid(ctx, outputs...)
	lacks := func(path string) bool { return !valid[path] }
	if lacking := slices.DeleteFunc(slices.Clone(outputs), func(path string) bool { return valid[path] }); err == nil && len(lacking) > 0 {
		_ = n.Substitute(ctx, nil, lacking...) // from a binary cache to which the other job has pushed; what it lacks is named below
		valid, err = n.Valid(ctx, outputs...)
	}
	if err != nil {
		return err
	}
	for i := range all {
		h := &all[i]
		if n := slices.IndexFunc(h.Outputs, lacks); h.Err == nil && n >= 0 {
			h.Err = cmp.Or(restoring, fmt.Errorf("neither the packs nor a substituter has %s", h.Outputs[n]))
		}
		if h.Err == nil { // else they may be lost, and what they had is to be saved again
			e.exchanged = append(e.exchanged, documents[i].Packs...)
		}
		h.Bytes = got.Bytes / int64(len(all))
	}
	return nil
}

// openEngine opens the engine that puts paths into the store, once; it ends with the context.
func (e *EntryCache) openEngine(ctx context.Context, n *nix.Nix) error {
	if e.opened != nil {
		return nil
	}
	engine, err := e.choice.Open(ctx, n, e.cache.Log)
	if err == nil {
		e.opened = &engine
	}
	return err
}

// read reads the document of a hand-over. A pack may have paths that its outputs do not need: these are not
// taken.
func (e *EntryCache) read(h *Handover, named func(path string) bool) (*storecache.Index, error) {
	from, err := storecache.ParseIndex(h.Document, e.cache.Docs.Seal)
	if err != nil {
		return nil, err
	}
	packed, _ := from.Closure(h.Outputs...)
	for _, path := range packed {
		if !named(path) {
			return nil, fmt.Errorf("it needs %s, which no derivation of the plan makes", path)
		}
	}
	return from.Holding(h.Outputs...), nil
}
