package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/text"
)

// An evaluation is what there is, from evaluators or from the cache.
type evaluation struct {
	evaluate.Kept
	source   *source
	recalled bool // from the cache
	// packed says that the derivations are not in the store, but their pack is in
	// the file for it.
	packed     bool
	inPack     map[string]nix.Derivation // by path, once they were read
	incomplete bool                      // not all could be found out
	unread     string                    // for want of which secret nothing could be evaluated
	places     []*place                  // that were asked what they have
}

// A source is what is evaluated.
type source struct {
	app   *app
	cache cache.Cache
	// key begins the keys of its evaluations in the cache. It is empty when nobody can
	// tell that another source is the same.
	key    string
	inputs []nix.Input // of its flakes
}

// source finds out what is to be evaluated.
func (d *discovery) source(ctx context.Context, at *site, c cache.Cache, o *evaluate.Options) *source {
	s := &source{app: at.app, cache: c}
	refs := o.Flakes()
	if len(refs) == 0 || c == nil {
		return s
	}
	known := true
	var identities []string
	for _, ref := range refs {
		flake, err := at.nix.Flake(ctx, ref)
		if err != nil {
			return s // which is no error, or the evaluator has it too
		}
		identities = append(identities, flake.Identity)
		known = known && flake.Identity != ""
		s.inputs = append(s.inputs, flake.Inputs...)
	}
	if d.reuse && known && at.app.trust().ReusesEvaluation() {
		s.key = at.app.id + "-evaluation-" + o.Fingerprint(version+" "+at.nix.Evaluator()+" "+at.app.seal.Fingerprint(), identities) + "-"
	}
	return s
}

// recall gives the newest evaluation of the source that the cache has, or nil.
func (s *source) recall(ctx context.Context) *evaluation {
	if s.key == "" {
		return nil
	}
	data, err := s.app.newest(ctx, s.cache, evaluationDocument, s.key, maxPlan)
	if errors.Is(err, cache.ErrMiss) {
		return nil
	}
	var kept *evaluate.Kept
	if err == nil {
		kept, err = evaluate.ParseKept(data)
	}
	if err != nil {
		s.app.warn("All is evaluated, since what was evaluated before can't be had", err)
		return nil
	}
	return &evaluation{Kept: *kept, source: s, recalled: true}
}

// keep puts the evaluation into the cache, with the pack that its derivations are
// in, if there is one.
func (e *evaluation) keep(ctx context.Context, p *job.Plan) {
	s := e.source
	failed := slices.ContainsFunc(e.Plan.Targets, func(t job.Target) bool { return t.State == job.StateFailed })
	known := e.recalled && (p.Drvs == nil || e.Plan.Drvs != nil)
	if s.key == "" || failed || known || e.incomplete || e.unread != "" || !s.app.keeps() {
		return
	}
	e.Plan.Drvs, e.Packed, e.Plan.Programs = nil, nil, p.Programs
	if p.Drvs != nil && p.Drvs.Key != "" {
		e.Plan.Drvs, e.Packed = p.Drvs, toBuild(p)
	}
	data, err := e.Marshal()
	if err == nil {
		_, err = evaluate.ParseKept(data)
	}
	if err == nil {
		sum := sha256.Sum256(data)
		err = s.app.keep(ctx, s.cache, evaluationDocument, s.key, hex.EncodeToString(sum[:8]), data)
	}
	if err != nil && ctx.Err() == nil {
		s.app.warn("The next run will evaluate again, since this evaluation can't be kept", err)
	}
}

// toBuild are the derivations that are to be built, those of programs included.
func toBuild(p *job.Plan) []string {
	var drvs []string
	for _, t := range p.Targets {
		if t.State == job.StateBuild {
			drvs = append(drvs, t.DrvPath)
		}
	}
	for _, program := range p.Programs {
		if program.DrvPath != "" {
			drvs = append(drvs, program.DrvPath)
		}
	}
	return drvs
}

// evaluate starts evaluators. What they would download of the flakes' inputs comes
// from the cache as far as it is there.
func (d *discovery) evaluate(ctx context.Context, at *site, s *source, o *evaluate.Options) (*evaluation, error) {
	a, n := at.app, at.nix
	there := s.fetchInputs(ctx, n)
	a.show.Doing("evaluating %s", d.asked())
	found, err := evaluate.Run(ctx, n, *o)
	unread := d.unread(err, o.Explain)
	if d.onMissing == "skip" && unread.NeedsSecret != "" {
		found, err = &evaluate.Evaluation{}, nil
	}
	if err != nil {
		if unread.Text != "" {
			err = fmt.Errorf("%s: %w", unread.Text, err)
		}
		return nil, asUsage(err)
	}
	s.keepInputs(ctx, n, there)
	e := &evaluation{source: s, unread: unread.Text, incomplete: found.Incomplete, Kept: evaluate.Kept{
		Omitted: found.Omitted,
		Passed:  found.Passed,
		Plan: &job.Plan{
			Version: job.Version,
			ID:      a.id,
			Created: time.Now().UTC().Truncate(time.Second),
			Nix:     n.String(),
			System:  n.System,
			Source:  d.asked(),
			Targets: found.Targets,
		},
	}}
	if o.Meta {
		e.Meta = found.Meta
	}
	if unread.Text != "" {
		return e, nil // its flakes can't be read either
	}
	for _, flake := range o.Flakes() {
		substituters, keys, err := n.FlakeConfig(ctx, flake)
		if err != nil {
			a.warn("The flake's nixConfig could not be read", err)
			e.incomplete = true
		}
		e.Plan.Substituters, e.Plan.PublicKeys = append(e.Plan.Substituters, substituters...), append(e.Plan.PublicKeys, keys...)
	}
	return e, nil
}

// inputPaths are the store paths of the inputs.
func (s *source) inputPaths() []string {
	paths := make([]string, len(s.inputs))
	for i, input := range s.inputs {
		paths[i] = input.Path
	}
	return paths
}

// fetchInputs restores inputs from the cache, and gives those that are there then.
func (s *source) fetchInputs(ctx context.Context, n store.Nix) map[string]bool {
	paths := s.inputPaths()
	if len(paths) == 0 {
		return nil
	}
	there, err := n.Valid(ctx, paths...)
	if err == nil && len(there) < len(paths) {
		s.app.show.Doing("fetching the flake's inputs from the cache")
		var got store.Restored
		if got, err = store.RestoreInputs(ctx, n, s.cache, s.app.id, paths, s.app.seal); got.Paths > 0 {
			s.app.show.Printf("%s from the cache, %s read", text.Plural(got.Paths, "flake input"), text.Size(got.Bytes))
		}
		if err == nil && got.Paths > 0 {
			there, err = n.Valid(ctx, paths...)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.app.warn("The flake's inputs are downloaded, not taken from the cache", err)
	}
	return there
}

// keepInputs puts the inputs into the cache if some had to be downloaded.
func (s *source) keepInputs(ctx context.Context, n *nix.Nix, there map[string]bool) {
	paths := s.inputPaths()
	if len(paths) == 0 || !s.app.keeps() {
		return
	}
	s.app.show.Doing("keeping the flake's inputs in the cache")
	absent := slices.DeleteFunc(slices.Clone(s.inputs), func(i nix.Input) bool { return there[i.Path] })
	left := n.InputsToStore(ctx, absent)
	now, err := n.Valid(ctx, paths...)
	if err == nil && len(now) > len(there) {
		err = store.SaveInputs(ctx, n, s.cache, s.app.id, paths, slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !now[path] }), s.app.seal)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.app.warn("The next run will download the flake's inputs again", err)
	case left != nil && len(now) == 0:
		s.app.show.Printf("no flake input is kept in the cache: %v", left)
	}
}

// has says whether the derivations that a Plan of an earlier evaluation has to build
// can be had: from the store, or, to be handed on, from their pack in the cache.
func (d *discovery) has(ctx context.Context, at *site, e *evaluation, p *job.Plan) bool {
	drvs := toBuild(p)
	valid, err := at.nix.Valid(ctx, drvs...)
	if err == nil && !slices.ContainsFunc(drvs, func(drv string) bool { return !valid[drv] }) {
		return true
	}
	if d.packFile == "" || e.Plan.Drvs == nil || slices.ContainsFunc(drvs, func(drv string) bool { return !slices.Contains(e.Packed, drv) }) {
		return false
	}
	at.app.show.Doing("fetching the pack of derivations")
	if err := fetchPack(ctx, e.source.cache, e.Plan.Drvs, d.packFile, at.app.seal); err != nil {
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			at.app.warn("All is evaluated again, since the pack of derivations can't be had", err)
		}
		return false
	}
	e.packed = true
	return true
}

// fetchPack writes a pack from the cache to a file, and checks all that is in it:
// what is handed on has no other source.
func fetchPack(ctx context.Context, c cache.Cache, drvs *job.DrvPack, file string, seal *pack.Key) (err error) {
	blob, err := c.Open(ctx, drvs.Key)
	if err != nil {
		return err
	}
	body, err := blob.Range(ctx, 0, blob.Size())
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(file)
		}
	}()
	if _, err := io.Copy(f, body); err != nil {
		return err
	}
	fetched, err := store.File(file)
	if err != nil {
		return err
	}
	defer fetched.Close()
	return pack.Verify(ctx, fetched, drvs.SHA256, seal)
}

// derivations reads derivations, from the pack where they are not in the store. What
// can't be read is empty, and in the error.
func (e *evaluation) derivations(ctx context.Context, at *site, packFile string, drvs []string) ([]nix.Derivation, error) {
	if !e.packed {
		return at.nix.Derivations(ctx, drvs)
	}
	var err error
	if e.inPack == nil {
		e.inPack, err = readPack(ctx, packFile, e.Plan.Drvs.SHA256, at.app.seal)
	}
	all := make([]nix.Derivation, len(drvs))
	for i, drv := range drvs {
		all[i] = e.inPack[drv]
	}
	return all, err
}

func readPack(ctx context.Context, file, sum string, seal *pack.Key) (map[string]nix.Derivation, error) {
	src, err := store.File(file)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return store.ReadDrvs(ctx, src, sum, seal)
}
