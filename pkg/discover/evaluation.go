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

// An evaluation has the targets of a source, from evaluators or from the cache.
type evaluation struct {
	evaluate.Cached
	source   *source
	recalled bool // from the cache
	// packed says that the derivations are in the pack file, and not in the store.
	packed     bool
	inPack     map[string]nix.Derivation // by path, after the first reading
	incomplete bool                      // some targets are not known
	unread     string                    // why nothing could be evaluated without a secret
	places     []*available.Place        // that were asked for outputs
}

// A source is a set of installables with the flakes that they are in.
type source struct {
	d *Discovery
	// fingerprint names the flakes and the settings of their evaluation. It is empty if the same source
	// cannot be recognised again.
	fingerprint string
	inputs      []nix.Input // of its flakes
}

// source returns the source of this discovery.
func (d *Discovery) source(ctx context.Context) *source {
	s := &source{d: d}
	refs := d.Evaluate.Flakes()
	if len(refs) == 0 || d.docs.Cache == nil {
		return s
	}
	known := true
	var identities []string
	for _, ref := range refs {
		flake, err := d.Env.Flake(ctx, ref)
		if err != nil {
			return s // the evaluator returns the error
		}
		identities = append(identities, flake.Identity)
		known = known && flake.Identity != ""
		s.inputs = append(s.inputs, flake.Inputs...)
	}
	if d.Reuse && known && d.docs.Trust.ReusesEvaluation() {
		settings := fmt.Sprintf("%s %s %s flakeConfig=%t", d.Version, d.Env.Evaluator(), d.docs.Seal.Fingerprint(), d.flakeConfig)
		s.fingerprint = d.Evaluate.Fingerprint(settings, identities)
	}
	return s
}

// recall returns the newest evaluation of the source in the cache, or nil.
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
		s.d.log.Warn("Cannot read the evaluation of an earlier run, so everything is evaluated", err)
		return nil
	}
	return &evaluation{Cached: *kept, source: s, recalled: true}
}

// Keep saves the evaluation of the Plan in the cache, with the key of the pack of its derivations, if
// there is one.
func (d *Discovery) Keep(ctx context.Context, p *job.Plan) {
	e := d.evaluation
	failed := slices.ContainsFunc(e.Plan.Targets, func(t job.Target) bool { return t.State == job.StateFailed })
	known := e.recalled && (p.Drvs == nil || e.Plan.Drvs != nil)
	if e.source.fingerprint == "" || failed || known || e.incomplete || e.unread != "" || !d.docs.Keeps() || e.source.moved(ctx) {
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
		d.log.Warn("Cannot keep the evaluation, so the next run evaluates again", err)
	}
}

// toBuild returns the derivations that are to be built, with those of programs.
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

// evaluate starts evaluators. Flake inputs in the cache are not downloaded.
func (d *Discovery) evaluate(ctx context.Context, s *source) (*evaluation, error) {
	n, o := d.Env.Nix, &d.Evaluate
	there := s.fetchInputs(ctx, n)
	config, configErr := d.readFlakeConfig(ctx)
	d.log.Doing("evaluating %s", d.asked())
	n = d.Env.Nix // which reads these binary caches
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
	if len(found.Odd) > 0 {
		e.Plan.Notices = []string{fmt.Sprintf("Ignored, because of their values: %s. Correct them where the targets are defined.", text.Some(found.Odd, 10))}
	}
	if o.Meta {
		e.Meta = found.Meta
	}
	if unread.Text != "" {
		return e, nil // its flakes need the secret too
	}
	if configErr != nil {
		d.log.Warn("Cannot read the flake's nixConfig", configErr)
		e.incomplete = true
	}
	e.Plan.Substituters, e.Plan.PublicKeys = config.substituters, config.keys
	return e, nil
}

// inputPaths returns the store paths of the inputs.
func (s *source) inputPaths() []string {
	paths := make([]string, len(s.inputs))
	for i, input := range s.inputs {
		paths[i] = input.Path
	}
	return paths
}

// fetchInputs restores inputs from the cache, and returns those that are valid after it.
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
		s.d.log.Warn("Cannot restore the flake's inputs from the cache, so they are downloaded", err)
	}
	return there
}

// keepInputs saves the inputs in the cache if some had to be downloaded.
func (s *source) keepInputs(ctx context.Context, n *nix.Nix, there map[string]bool) {
	paths := s.inputPaths()
	if len(paths) == 0 || s.d.DryRun || !s.d.docs.Keeps() {
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
		s.d.log.Warn("Cannot keep the flake's inputs, so the next run downloads them again", err)
	case left != nil && len(now) == 0:
		s.d.log.Printf("no flake input is kept in the cache: %v", left)
	}
}

// has reports whether the derivations that a Plan of an earlier evaluation has to build are in the store,
// or, if they are handed over, in their pack in the cache.
func (d *Discovery) has(ctx context.Context, e *evaluation, p *job.Plan) bool {
	drvs := toBuild(p)
	valid, err := d.Env.Valid(ctx, drvs...)
	if err == nil && !slices.ContainsFunc(drvs, func(drv string) bool { return !valid[drv] }) {
		return true
	}
	if d.PackFile == "" || e.Plan.Drvs == nil || slices.ContainsFunc(drvs, func(drv string) bool { return !slices.Contains(e.Packed, drv) }) {
		return false
	}
	d.log.Doing("fetching the pack of derivations")
	if err := d.fetchPack(ctx, e.Plan.Drvs); err != nil {
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			d.log.Warn("Cannot read the pack of derivations, so everything is evaluated again", err)
		}
		return false
	}
	e.packed = true
	return true
}

// fetchPack writes a pack from the cache to a file, and checks all of its contents, because the jobs that
// build have no other source.
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

// derivations returns derivations from the store, or from the pack. One that cannot be read is empty, and
// in the error.
func (e *evaluation) derivations(ctx context.Context, d *Discovery, drvs []string) ([]nix.Derivation, error) {
	if !e.packed {
		return d.Env.Derivations(ctx, drvs)
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

// asUsage wraps an error of an evaluation as wrong usage if it is a mistake of the caller.
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
