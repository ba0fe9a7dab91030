package evaluate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// cachedVersion is the version of the format of [Cached], and of this package's results for
// the same source.
const cachedVersion = 3

// Cached is an evaluation as it is stored for later runs that would repeat it.
type Cached struct {
	// Plan has the targets as they were found, before any was selected or skipped,
	// the binary caches that the flakes name, and the pack of derivations. It has no
	// entries.
	Plan *job.Plan
	// Meta is that of the Evaluation.
	Meta []json.RawMessage
	// Omitted and Passed are those of the Evaluation.
	Omitted, Passed []string
	// Packed are the derivations in the pack, without their closures.
	Packed []string
}

type cachedJSON struct {
	Version int               `json:"version"`
	Plan    json.RawMessage   `json:"plan"`
	Meta    []json.RawMessage `json:"meta,omitempty"`
	Omitted []string          `json:"omitted,omitempty"`
	Passed  []string          `json:"passed,omitempty"`
	Packed  []string          `json:"packed,omitempty"`
}

// Marshal returns the JSON.
func (c *Cached) Marshal() ([]byte, error) {
	plan, err := json.Marshal(c.Plan)
	if err != nil {
		return nil, fmt.Errorf("cannot write the evaluation: %w", err)
	}
	return json.Marshal(cachedJSON{cachedVersion, plan, c.Meta, c.Omitted, c.Passed, c.Packed})
}

// ParseCached reads the JSON and checks it.
func ParseCached(data []byte) (*Cached, error) {
	var raw cachedJSON
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("cannot read the evaluation: %w", err)
	}
	if raw.Version != cachedVersion {
		return nil, fmt.Errorf("cannot read the evaluation: its version is %d, not %d", raw.Version, cachedVersion)
	}
	plan, err := job.ParsePlan(raw.Plan)
	if err != nil {
		return nil, fmt.Errorf("cannot read the evaluation: %w", err)
	}
	for i := range plan.Targets {
		// The cache must not decide which targets are built.
		if t := &plan.Targets[i]; t.State == job.StateFailed || t.Available || t.State == job.StateSkip && !t.Refused {
			return nil, fmt.Errorf("cannot read the evaluation: %q is already decided", t.Attr)
		}
	}
	if len(raw.Meta) > 0 && len(raw.Meta) != len(plan.Targets) {
		return nil, fmt.Errorf("cannot read the evaluation: it has meta of %d targets, but there are %d", len(raw.Meta), len(plan.Targets))
	}
	for _, drv := range raw.Packed {
		if err := job.CheckDrvPath(drv); err != nil {
			return nil, fmt.Errorf("cannot read the evaluation: packed: %w", err)
		}
	}
	for _, attr := range slices.Concat(raw.Omitted, raw.Passed) {
		if err := job.CheckName(attr); err != nil {
			return nil, fmt.Errorf("cannot read the evaluation: %w", err)
		}
	}
	return &Cached{plan, raw.Meta, raw.Omitted, raw.Passed, raw.Packed}, nil
}

// Fingerprint returns a hash of all that decides the result of an evaluation, in hex: with the
// same options, the same evaluator and flakes of the same identities (see package nix) the
// result is the same. That holds only where evaluation is pure, so not for a file, and only
// if nothing fails, because a failure may be due to memory or a server.
func (o *Options) Fingerprint(evaluator string, identities []string) string {
	data, err := json.Marshal(struct {
		Version           int
		Walker, Evaluator string
		Flakes            []string
		Installables      []string
		Systems           []string
		System, HostAttr  string
		Include, Exclude  []string
		AllowEmpty, Meta  bool
	}{cachedVersion, walker(), evaluator, identities, o.Installables, o.Systems, o.System, o.HostAttr, o.Include, o.Exclude, o.AllowEmpty, o.Meta})
	if err != nil {
		panic(err) // texts only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
