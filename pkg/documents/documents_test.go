package documents

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

const entry = "0000000001"

// log keeps the lines of a log.
type log []string

func (l *log) Printf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Keys are made once, since that takes its time.
var (
	ours   = sync.OnceValues(func() (*pack.Key, error) { return pack.NewKey("a secret for the tests") })
	theirs = sync.OnceValues(func() (*pack.Key, error) { return pack.NewKey("another secret for the tests") })
)

func ourKey(t *testing.T) *pack.Key   { t.Helper(); return must(t, ours) }
func otherKey(t *testing.T) *pack.Key { t.Helper(); return must(t, theirs) }

func must(t *testing.T, newKey func() (*pack.Key, error)) *pack.Key {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCache(t *testing.T) cache.Cache {
	t.Helper()
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newStore(c cache.Cache, seal *pack.Key) *Store {
	return &Store{Cache: c, ID: job.DefaultID, Seal: seal, Run: 7, Attempt: 1, Workflow: "org/repo/ci.yml", Trust: &action.Trust{}, Log: &log{}}
}

// eachSeal runs a test in clear and sealed.
func eachSeal(t *testing.T, test func(t *testing.T, seal *pack.Key)) {
	t.Helper()
	for name, seal := range map[string]*pack.Key{"in clear": nil, "sealed": ourKey(t)} {
		t.Run(name, func(t *testing.T) { test(t, seal) })
	}
}

func store(t *testing.T, c cache.Cache, key string, data []byte) {
	t.Helper()
	if err := c.Save(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, c cache.Cache, key string) []byte {
	t.Helper()
	blob, err := c.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cache.ReadAll(t.Context(), blob, MaxPlan)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newResult(entry string) *job.Result {
	return &job.Result{Version: job.Version, Entry: entry, Name: entry, Outcome: job.OutcomeBuilt, Targets: []job.TargetResult{}}
}

// A Plan is read only under the key that is made from its bytes.
func TestPlan(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		c := newCache(t)
		s := newStore(c, seal)
		plan, other := []byte(`{"a":1}`), []byte(`{"b":2}`)
		key, err := s.SavePlan(t.Context(), plan)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Plan(t.Context(), key); err != nil || !bytes.Equal(got, plan) {
			t.Errorf("got %q, %v", got, err)
		}
		if in := bytes.Contains(stored(t, c, key), plan); in != (seal == nil) {
			t.Errorf("the cache has it in clear: %t", in)
		}
		wrong := job.PlanKey(s.ID, seal.Fingerprint(), other)(0)
		store(t, c, wrong, stored(t, c, key))
		if got, err := s.Plan(t.Context(), wrong); err == nil {
			t.Errorf("under the key of another plan, it is %q", got)
		}
		file := seal.Seal(planName, plan)
		if got, err := s.OpenPlan(file, wrong); err == nil {
			t.Errorf("in a file with the key of another plan, it is %q", got)
		}
		if got, err := s.OpenPlan(file, ""); err != nil || !bytes.Equal(got, plan) {
			t.Errorf("in a file, it is %q, %v", got, err)
		}
		if got, err := s.Plan(t.Context(), ""); err == nil {
			t.Errorf("without a key, it is %q", got)
		}
		if got, err := newStore(nil, seal).Plan(t.Context(), key); err == nil {
			t.Errorf("without a cache, it is %q", got)
		}
		if got, err := newStore(nil, seal).SavePlan(t.Context(), plan); err != nil || got != key {
			t.Errorf("without a cache, its key is %q, %v", got, err)
		}
	})
}

// A key that is taken is used if it has the same Plan, and else the next one.
func TestTakenPlanKeys(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		plan := []byte(`{"a":1}`)
		keys := job.PlanKey(job.DefaultID, seal.Fingerprint(), plan)
		for name, test := range map[string]struct {
			taken []byte
			want  string
		}{
			"by the plan":         {seal.Seal(planName, plan), keys(0)},
			"by another plan":     {seal.Seal(planName, []byte(`{"b":2}`)), keys(1)},
			"by another document": {otherKey(t).Seal(planName, plan), keys(1)},
		} {
			t.Run(name, func(t *testing.T) {
				s := newStore(newCache(t), seal)
				store(t, s.Cache, keys(0), test.taken)
				key, err := s.SavePlan(t.Context(), plan)
				if err != nil || key != test.want {
					t.Fatalf("the key is %q, %v; want %q", key, err, test.want)
				}
				if got, err := s.Plan(t.Context(), key); err != nil || !bytes.Equal(got, plan) {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
	})
}

// Nothing opens a document but the key that sealed it, as the document that it is.
func TestSeal(t *testing.T) {
	key := ourKey(t)
	plan := []byte(`{"a":1}`)
	for name, test := range map[string]struct {
		seal   *pack.Key
		stored []byte
	}{
		"in clear, where there is a key":    {key, plan},
		"sealed, where there is none":       {nil, key.Seal(planName, plan)},
		"sealed with another key":           {key, otherKey(t).Seal(planName, plan)},
		"sealed as another document":        {key, key.Seal(resultName, plan)},
		"sealed, with a byte that is wrong": {key, flip(key.Seal(planName, plan))},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := newStore(nil, test.seal).OpenPlan(test.stored, ""); err == nil {
				t.Errorf("it is opened: %q", got)
			}
		})
	}
}

func flip(data []byte) []byte {
	data[len(data)-1] ^= 1
	return data
}

// The report reads the latest Result of an entry, and none that is about another one.
func TestResult(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		s := newStore(newCache(t), seal)
		if r, err := s.Result(t.Context(), entry); r != nil || err != nil {
			t.Errorf("without one, it is %v, %v", r, err)
		}
		result := newResult(entry)
		for _, outcome := range []job.Outcome{job.OutcomeFailed, job.OutcomeBuilt} { // the second finds the key taken
			result.Outcome = outcome
			if err := s.SaveResult(t.Context(), result); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := s.Result(t.Context(), entry); err != nil || r.Outcome != job.OutcomeBuilt {
			t.Errorf("got %v, %v", r, err)
		}
		const other = "0000000002"
		store(t, s.Cache, job.ResultKey(s.ID, s.Run, other, s.Attempt)(0), stored(t, s.Cache, job.ResultKey(s.ID, s.Run, entry, s.Attempt)(0)))
		if r, err := s.Result(t.Context(), other); err == nil || !strings.Contains(err.Error(), entry) {
			t.Errorf("that of another entry is %v, %v", r, err)
		}
	})
}

// A document of more bytes than its limit is not read into memory.
func TestTooLarge(t *testing.T) {
	plan := job.PlanKey(job.DefaultID, "", nil)(0)
	for name, test := range map[string]struct {
		size int64
		read func(*Store) error
	}{
		"a plan":        {MaxPlan, func(s *Store) error { _, err := s.Plan(t.Context(), plan); return err }},
		"a result":      {maxResult, func(s *Store) error { _, err := s.Result(t.Context(), entry); return err }},
		"a record":      {maxRecord, func(s *Store) error { _, err := s.Record(t.Context()); return err }},
		"an evaluation": {MaxPlan, func(s *Store) error { _, err := s.Evaluation(t.Context(), "f"); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int64{test.size, test.size + 1} {
				blob := &sized{size: size}
				err := test.read(newStore(blob, nil))
				if read := errors.Is(err, errRead); read != (size == test.size) {
					t.Errorf("one of %d bytes is read: %t (%v)", size, read, err)
				}
			}
		})
	}
}

// sized is a cache with one blob under every key, which cannot be read.
type sized struct {
	cache.Cache
	size int64
}

var errRead = errors.New("it was read")

func (s *sized) Open(context.Context, string, ...string) (cache.Blob, error) { return s, nil }
func (s *sized) Key() string                                                 { return "blob" }
func (s *sized) Size() int64                                                 { return s.size }
func (s *sized) Range(context.Context, int64, int64) (io.ReadCloser, error)  { return nil, errRead }

// A record is that of its own workflow. One that is there already stays.
func TestRecord(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		s := newStore(newCache(t), seal)
		if r, err := s.Record(t.Context()); r != nil || err != nil {
			t.Errorf("without one, it is %v, %v", r, err)
		}
		for _, branch := range []string{"main", "other"} {
			if err := s.SaveRecord(t.Context(), &job.Record{Version: job.Version, ID: s.ID, Branch: branch, Run: s.Run}); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := s.Record(t.Context()); err != nil || r == nil || r.Branch != "main" {
			t.Errorf("got %v, %v", r, err)
		}
		data := stored(t, s.Cache, job.RecordKey(s.ID, seal.Fingerprint(), s.Workflow, s.Run, s.Attempt))
		s.Workflow = "org/repo/other.yml"
		if r, err := s.Record(t.Context()); r != nil || err != nil {
			t.Errorf("another workflow has %v, %v", r, err)
		}
		store(t, s.Cache, job.RecordKey(s.ID, seal.Fingerprint(), s.Workflow, s.Run, s.Attempt), data)
		if r, err := s.Record(t.Context()); seal != nil && err == nil {
			t.Errorf("under a key of another workflow, it opens: %v", r)
		}
		if r, err := newStore(nil, seal).Record(t.Context()); r != nil || err != nil {
			t.Errorf("without a cache, it is %v, %v", r, err)
		}
	})
}

// An evaluation is that of its own fingerprint.
func TestEvaluation(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		s := newStore(newCache(t), seal)
		data := []byte(`{"a":1}`)
		if got, err := s.Evaluation(t.Context(), "one"); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("without one, it is %q, %v", got, err)
		}
		for range 2 {
			if err := s.SaveEvaluation(t.Context(), "one", data); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Evaluation(t.Context(), "one"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("got %q, %v", got, err)
		}
		store(t, s.Cache, job.EvaluationKey(s.ID, "two", data), stored(t, s.Cache, job.EvaluationKey(s.ID, "one", data)))
		if got, err := s.Evaluation(t.Context(), "two"); seal != nil && err == nil {
			t.Errorf("under another fingerprint, it opens: %q", got)
		}
	})
}

// A job that may keep nothing says so once.
func TestKeeps(t *testing.T) {
	s := newStore(nil, nil)
	if !s.Keeps() {
		t.Error("a job on a user's own machine keeps nothing")
	}
	lines := &log{}
	s.Log, s.Trust = lines, &action.Trust{Running: true, Event: "pull_request_target", Ref: "refs/heads/main", DefaultBranch: "main"}
	for range 2 {
		if s.Keeps() {
			t.Error("a job of an event that anybody can cause keeps documents")
		}
	}
	if len(*lines) != 1 {
		t.Errorf("the log is %q", *lines)
	}
}
