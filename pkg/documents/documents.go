// Package documents stores the documents of a use of nix-matrix in a cache and in files: sealed if
// there is a key, bounded in size, and checked against the key that names them. A stranger may have written any document that it reads.
package documents

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

// The names that the seal of a document is bound to, so that no document opens as another one.
const (
	planName       = "plan"
	resultName     = "result"
	logName        = "log"
	pathsName      = "paths"
	updateName     = "update"
	reportName     = "report"
	evaluationName = "evaluation"
	recordName     = "record"
	claimName      = "claim"
	doneName       = "unit"
)

// The largest documents that are read into memory, in bytes: a stranger who can write to an artifact
// or a cache chooses their size.
const (
	MaxPlan      = 256 << 20
	maxRecord    = 64 << 20
	maxResult    = 64 << 20
	maxUpdate    = 64 << 20
	maxDone      = 64 << 20
	maxClaim     = 64 << 10
	maxResults   = 512 << 20 // all of a directory together
	maxFileCount = 1024      // in a directory of Results: a matrix has 256 entries at most
)

// ErrMissing says that neither the cache nor a file has a document of an earlier job.
var ErrMissing = errors.New("not found")

// A Store holds the documents of one use of nix-matrix.
type Store struct {
	Cache cache.Cache // nil without a cache
	ID    string
	Seal  *pack.Key // nil leaves documents in clear
	// Run and Attempt are GitHub's numbers, 0 outside of a run.
	Run     int64
	Attempt int
	// Workflow names the workflow whose records these are, as OWNER/REPO/PATH.
	Workflow string
	Trust    *action.Trust // decides whether later runs may reuse the documents of this job
	Log      Log
	// Evicts says that the cache removes what was not used for a week.
	Evicts bool

	refusal sync.Once // is logged
}

// Log is where a person sees that nothing is kept.
type Log interface {
	Printf(format string, args ...any)
}

// Keeps reports whether later runs may reuse the documents and store paths of this job, and logs
// once why not.
func (s *Store) Keeps() bool {
	err := s.Trust.MayKeep()
	if err != nil {
		s.refusal.Do(func() { s.Log.Printf("nothing is kept for later runs: %v", err) })
	}
	return err == nil
}

// SavePlan stores the JSON of a Plan, and returns the key that names it. Without a cache nothing
// is stored; with an error, the key still names the Plan.
func (s *Store) SavePlan(ctx context.Context, data []byte) (key string, err error) {
	keys := job.PlanKey(s.ID, s.Seal.Fingerprint(), data)
	if s.Cache == nil {
		return keys(0), nil
	}
	stored := s.Seal.Seal(planName, data)
	key, err = cache.SaveOnce(ctx, s.Cache, keys, bytes.NewReader(stored), int64(len(stored)), func(blob cache.Blob) bool {
		found, err := cache.ReadAll(ctx, blob, int64(len(stored)))
		if err == nil {
			found, err = s.Seal.Open(planName, found)
		}
		return err == nil && bytes.Equal(found, data)
	})
	if err != nil {
		return keys(0), fmt.Errorf("cannot save the plan: %w", err)
	}
	return key, nil
}

// Plan returns the JSON of the Plan that a key names.
func (s *Store) Plan(ctx context.Context, key string) ([]byte, error) {
	switch {
	case key == "":
		return nil, errors.New("the entry names no plan")
	case s.Cache == nil:
		return nil, errors.New("there is no cache")
	}
	blob, err := s.Cache.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	stored, err := cache.ReadAll(ctx, blob, MaxPlan)
	if err != nil {
		return nil, err
	}
	return s.OpenPlan(stored, key)
}

// OpenPlan returns the JSON of the Plan in a file. Unless key is empty, it must name that Plan.
func (s *Store) OpenPlan(stored []byte, key string) ([]byte, error) {
	data, err := s.Seal.Open(planName, stored)
	if err == nil && key != "" {
		err = job.CheckPlanKey(key, data)
	}
	return data, err
}

// SaveResult stores a Result for the report.
func (s *Store) SaveResult(ctx context.Context, result *job.Result) error {
	data, err := result.Marshal()
	if err != nil {
		return err
	}
	data = s.Seal.Seal(resultName, data)
	_, err = cache.SaveOnce(ctx, s.Cache, job.ResultKey(s.ID, s.Run, result.Entry, s.Attempt), bytes.NewReader(data), int64(len(data)),
		func(cache.Blob) bool { return false })
	return err
}

// Result returns the Result that the latest attempt of an entry in this run has saved, nil if there
// is none.
func (s *Store) Result(ctx context.Context, entry string) (*job.Result, error) {
	prefix := job.ResultPrefix(s.ID, s.Run, entry)
	blob, err := s.Cache.Open(ctx, prefix, prefix)
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	if err != nil {
		return nil, err
	}
	data, err := cache.ReadAll(ctx, blob, maxResult)
	var result *job.Result
	if err == nil {
		result, err = s.parseResult(data)
	}
	if err == nil && result.Entry != entry {
		err = fmt.Errorf("it is the result of the entry %s", result.Entry)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", blob.Key(), err)
	}
	return result, nil
}

func (s *Store) parseResult(stored []byte) (*job.Result, error) {
	data, err := s.Seal.Open(resultName, stored)
	if err != nil {
		return nil, err
	}
	return job.ParseResult(data)
}

// Record returns the record of the default branch's last run, nil if there is none.
func (s *Store) Record(ctx context.Context) (*job.Record, error) {
	if s.Cache == nil {
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	data, err := s.newest(ctx, recordName, job.RecordPrefix(s.ID, s.Seal.Fingerprint(), s.Workflow), maxRecord)
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil //nolint:nilnil // likewise
	}
	if err != nil {
		return nil, err
	}
	return job.ParseRecord(data)
}

// SaveRecord stores a record for later runs.
func (s *Store) SaveRecord(ctx context.Context, r *job.Record) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	prefix := job.RecordPrefix(s.ID, s.Seal.Fingerprint(), s.Workflow)
	return s.save(ctx, recordName, prefix, job.RecordKey(s.ID, s.Seal.Fingerprint(), s.Workflow, s.Run, s.Attempt), data)
}

// Evaluation returns the JSON of the newest evaluation of the source with a fingerprint. Without one,
// the error wraps [cache.ErrMiss].
func (s *Store) Evaluation(ctx context.Context, fingerprint string) ([]byte, error) {
	return s.newest(ctx, evaluationName, job.EvaluationPrefix(s.ID, fingerprint), MaxPlan)
}

// SaveEvaluation stores the JSON of an evaluation for later runs.
func (s *Store) SaveEvaluation(ctx context.Context, fingerprint string, data []byte) error {
	return s.save(ctx, evaluationName, job.EvaluationPrefix(s.ID, fingerprint), job.EvaluationKey(s.ID, fingerprint, data), data)
}

// newest returns the newest document whose key begins with prefix.
func (s *Store) newest(ctx context.Context, document, prefix string, limit int64) ([]byte, error) {
	blob, err := s.Cache.Open(ctx, prefix, prefix)
	if err != nil {
		return nil, err
	}
	data, err := cache.ReadAll(ctx, blob, limit)
	if err != nil {
		return nil, err
	}
	return s.Seal.Open(document+" "+prefix, data)
}

// save stores a document that opens only under keys with this prefix. A key that is taken is no
// error.
func (s *Store) save(ctx context.Context, document, prefix, key string, data []byte) error {
	data = s.Seal.Seal(document+" "+prefix, data)
	err := s.Cache.Save(ctx, key, bytes.NewReader(data), int64(len(data)))
	if errors.Is(err, cache.ErrExists) {
		return nil
	}
	return err
}
