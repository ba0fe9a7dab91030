package discover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
	"github.com/org/nix-matrix/pkg/text"
)

// An evaluation is what there is, from evaluators or from the cache.
type evaluation struct {
	evaluate.Cached
	source   *source
	recalled bool // from the cache
	// packed says that the derivations are not in the store, but their pack is in
	// the file for it.
	packed     bool
	inPack     map[string]nix.Derivation // by path, once they were read
	incomplete bool                      // not all could be found out
	unread     string                    // for want of which secret nothing could be evaluated
	places     []*available.Place        // that were asked what they have
}

// A source is what is evaluated.
type source struct {
	d *Discovery
	// fingerprint names what is evaluated, with which settings. It is empty if nobody can tell that
	// another source is the same.
	fingerprint string
	inputs      []nix.Input // of its flakes
}

// source finds out what is to be evaluated.
func (d *Discovery) source(ctx context.Context) *source {
	s := &source{d: d}
	refs := d.Evaluate.Flakes()
	if len(refs) == 0 || d.docs.Cache == nil {
		return s
	}
	known := true
	var identities []string
	for _, ref := range refs {
		flake, err := d.env.Flake(ctx, ref)
		if err != nil {
			return s // which is no error, or the evaluator has it too
		}
		identities = append(identities, flake.Identity)
		known = known && flake.Identity != ""
		s.inputs = append(s.inputs, flake.Inputs...)
	}
	if d.Reuse && known && d.docs.Trust.ReusesEvaluation() {
		s.fingerprint = d.Evaluate.Fingerprint(d.Version+" "+d.env.Evaluator()+" "+d.docs.Seal.Fingerprint(), identities)
	}
	return s
}

// recall returns the newest evaluation of the source that the cache has, or nil.
func (s *source) recall(ctx context.Context) *evaluation {
	if s.fingerprint == "" {
		return nil
	}
	data, err := s.d.docs.Evaluation(ctx, s.fingerprint)
	if errors.Is(err, cache.ErrMiss) {
		return nil
	}
	var kept *evaluate.Cached
	if err == nil {
		kept, err = evaluate.ParseCached(data)
	}
	if err != nil {
		s.d.log.Warn("All is evaluated, since what was evaluated before can't be had", err)
		return nil
	}
	return &evaluation{Cached: *kept, source: s, recalled: true}
}

// Keep puts the evaluation of the Plan into the cache, with the name of the pack that its
// derivations are in, if there is one.
func (d *Discovery) Keep(ctx context.Context, p *job.Plan) {
	e := d.evaluation
	failed := slices.ContainsFunc(e.Plan.Targets, func(t job.Target) bool { return t.State == job.StateFailed })
	known := e.recalled && (p.Drvs == nil || e.Plan.Drvs != nil)
	if e.source.fingerprint == "" || failed || known || e.incomplete || e.unread != "" || !d.docs.Keeps() {
		return
	}
	e.Plan.Drvs, e.Packed, e.Plan.Programs = nil, nil, p.Programs
	if p.Drvs != nil && p.Drvs.Key != "" {
		e.Plan.Drvs, e.Packed = p.Drvs, toBuild(p)
	}
	data, err := e.Marshal()
	if err == nil {
		_, err = evaluate.ParseCached(data)
	}
	if err == nil {
		err = d.docs.SaveEvaluation(ctx, e.source.fingerprint, data)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("The next run will evaluate again, since this evaluation can't be kept", err)
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
func (d *Discovery) evaluate(ctx context.Context, s *source) (*evaluation, error) {
	n, o := d.env.Nix, &d.Evaluate
	there := s.fetchInputs(ctx, n)
	d.log.Doing("evaluating %s", d.asked())
	found, err := evaluate.Run(ctx, n, *o)
	unread := d.unread(err)
	if d.SkipUnread && unread.NeedsSecret != "" {
		found, err = &evaluate.Evaluation{}, nil
	}
	if err != nil {
		if unread.Text != "" {
			err = fmt.Errorf("%s: %w", unread.Text, err)
		}
		return nil, asUsage(err)
	}
	s.keepInputs(ctx, n, there)
	e := &evaluation{source: s, unread: unread.Text, incomplete: found.Incomplete, Cached: evaluate.Cached{
		Omitted: found.Omitted,
		Passed:  found.Passed,
		Plan: &job.Plan{
			Version: job.Version,
			ID:      d.docs.ID,
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
			d.log.Warn("The flake's nixConfig could not be read", err)
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
func (s *source) fetchInputs(ctx context.Context, n *nix.Nix) map[string]bool {
	paths := s.inputPaths()
	if len(paths) == 0 {
		return nil
	}
	there, err := n.Valid(ctx, paths...)
	if err == nil && len(there) < len(paths) {
		s.d.log.Doing("fetching the flake's inputs from the cache")
		var got storecache.Restored
		if got, err = storecache.RestoreInputs(ctx, n, engine.Protocol(n), s.d.docs.Cache, s.d.docs.ID, paths, s.d.docs.Seal); got.Paths > 0 {
			s.d.log.Printf("%s from the cache, %s read", text.Plural(got.Paths, "flake input"), text.Size(got.Bytes))
		}
		if err == nil && got.Paths > 0 {
			there, err = n.Valid(ctx, paths...)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.d.log.Warn("The flake's inputs are downloaded, not taken from the cache", err)
	}
	return there
}

// keepInputs puts the inputs into the cache if some had to be downloaded.
func (s *source) keepInputs(ctx context.Context, n *nix.Nix, there map[string]bool) {
	paths := s.inputPaths()
	if len(paths) == 0 || !s.d.docs.Keeps() {
		return
	}
	s.d.log.Doing("keeping the flake's inputs in the cache")
	absent := slices.DeleteFunc(slices.Clone(s.inputs), func(i nix.Input) bool { return there[i.Path] })
	left := n.InputsToStore(ctx, absent)
	now, err := n.Valid(ctx, paths...)
	if err == nil && len(now) > len(there) {
		err = storecache.SaveInputs(ctx, n, s.d.docs.Cache, s.d.docs.ID, paths, slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !now[path] }), s.d.docs.Seal)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.d.log.Warn("The next run will download the flake's inputs again", err)
	case left != nil && len(now) == 0:
		s.d.log.Printf("no flake input is kept in the cache: %v", left)
	}
}

// has says whether the derivations that a Plan of an earlier evaluation has to build
// can be had: from the store, or, to be handed on, from their pack in the cache.
func (d *Discovery) has(ctx context.Context, e *evaluation, p *job.Plan) bool {
	drvs := toBuild(p)
	valid, err := d.env.Valid(ctx, drvs...)
	if err == nil && !slices.ContainsFunc(drvs, func(drv string) bool { return !valid[drv] }) {
		return true
	}
	if d.PackFile == "" || e.Plan.Drvs == nil || slices.ContainsFunc(drvs, func(drv string) bool { return !slices.Contains(e.Packed, drv) }) {
		return false
	}
	d.log.Doing("fetching the pack of derivations")
	if err := d.fetchPack(ctx, e.Plan.Drvs); err != nil {
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			d.log.Warn("All is evaluated again, since the pack of derivations can't be had", err)
		}
		return false
	}
	e.packed = true
	return true
}

// fetchPack writes a pack from the cache to a file, and checks all that is in it:
// what is handed on has no other source.
func (d *Discovery) fetchPack(ctx context.Context, drvs *job.DrvPack) (err error) {
	file := d.PackFile
	blob, err := d.docs.Cache.Open(ctx, drvs.Key)
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
	fetched, err := storecache.File(file)
	if err != nil {
		return err
	}
	defer fetched.Close()
	return pack.Verify(ctx, fetched, drvs.SHA256, d.docs.Seal)
}

// derivations reads derivations, from the pack where they are not in the store. What
// can't be read is empty, and in the error.
func (e *evaluation) derivations(ctx context.Context, d *Discovery, drvs []string) ([]nix.Derivation, error) {
	if !e.packed {
		return d.env.Derivations(ctx, drvs)
	}
	var err error
	if e.inPack == nil {
		e.inPack, err = readPack(ctx, d.PackFile, e.Plan.Drvs.SHA256, d.docs.Seal)
	}
	all := make([]nix.Derivation, len(drvs))
	for i, drv := range drvs {
		all[i] = e.inPack[drv]
	}
	return all, err
}

func readPack(ctx context.Context, file, sum string, seal *pack.Key) (map[string]nix.Derivation, error) {
	src, err := storecache.File(file)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	return storecache.ReadDrvs(ctx, src, sum, seal)
}

// asUsage finds the errors of an evaluation that the caller made.
func asUsage(err error) error {
	var missing *evaluate.MissingError
	var glob *evaluate.GlobError
	var arguments *evaluate.ArgumentsError
	var request *evaluate.RequestError
	if errors.As(err, &missing) || errors.As(err, &glob) || errors.As(err, &arguments) || errors.As(err, &request) {
		return usage.Wrap(err)
	}
	return err
}
