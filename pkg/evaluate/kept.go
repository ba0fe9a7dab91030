package evaluate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// keptVersion is the version of the format of [Kept], and of what this package makes
// of the same source.
const keptVersion = 3

// Kept is an evaluation as it is kept for a run that would make the same one.
type Kept struct {
	// Plan has the targets as they were found, before anything was chosen or skipped,
	// the binary caches that the flakes name, and the pack of derivations. It has no
	// entries.
	Plan *job.Plan
	// Meta is that of the Evaluation.
	Meta []json.RawMessage
	// Omitted and Passed are those of the Evaluation.
	Omitted, Passed []string
	// Packed are the derivations that the pack was made for.
	Packed []string
}

type keptJSON struct {
	Version int               `json:"version"`
	Plan    json.RawMessage   `json:"plan"`
	Meta    []json.RawMessage `json:"meta,omitempty"`
	Omitted []string          `json:"omitted,omitempty"`
	Passed  []string          `json:"passed,omitempty"`
	Packed  []string          `json:"packed,omitempty"`
}

// Marshal gives the JSON.
func (k *Kept) Marshal() ([]byte, error) {
	plan, err := json.Marshal(k.Plan)
	if err != nil {
		return nil, fmt.Errorf("write evaluation: %w", err)
	}
	return json.Marshal(keptJSON{keptVersion, plan, k.Meta, k.Omitted, k.Passed, k.Packed})
}

// ParseKept reads the JSON and checks it.
func ParseKept(data []byte) (*Kept, error) {
	var raw keptJSON
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("read evaluation: %w", err)
	}
	if raw.Version != keptVersion {
		return nil, fmt.Errorf("read evaluation: it is of version %d, not %d", raw.Version, keptVersion)
	}
	plan, err := job.ParsePlan(raw.Plan)
	if err != nil {
		return nil, fmt.Errorf("read evaluation: %w", err)
	}
	for i := range plan.Targets {
		// What there is to do is not for the cache to say.
		if t := &plan.Targets[i]; t.State == job.StateFailed || t.Available || t.State == job.StateSkip && !t.Refused {
			return nil, fmt.Errorf("read evaluation: %q is decided already", t.Attr)
		}
	}
	if len(raw.Meta) > 0 && len(raw.Meta) != len(plan.Targets) {
		return nil, fmt.Errorf("read evaluation: it has meta of %d targets, but there are %d", len(raw.Meta), len(plan.Targets))
	}
	for _, drv := range raw.Packed {
		if err := job.CheckDrvPath(drv); err != nil {
			return nil, fmt.Errorf("read evaluation: packed: %w", err)
		}
	}
	for _, attr := range slices.Concat(raw.Omitted, raw.Passed) {
		if err := job.CheckName(attr); err != nil {
			return nil, fmt.Errorf("read evaluation: %w", err)
		}
	}
	return &Kept{plan, raw.Meta, raw.Omitted, raw.Passed, raw.Packed}, nil
}

// Flakes are the references of the flakes that are evaluated, each once; none where
// it is a file.
func (o *Options) Flakes() []string {
	if o.File != "" {
		return nil
	}
	var refs []string
	for _, installable := range o.Installables {
		ref, _, _ := strings.Cut(installable, "#")
		if ref == "" {
			ref = "."
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return []string{"."}
	}
	return refs
}

// Fingerprint names what a discovery is made from, in hex: with the same options,
// the same evaluator and flakes of the same identities (see package nix) nothing
// else can be found. That is so only where evaluation is pure, so a file has none,
// and only as long as nothing fails, which may be for want of memory or a server.
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
	}{keptVersion, walker + textNix, evaluator, identities, o.Installables, o.Systems, o.System, o.HostAttr, o.Include, o.Exclude, o.AllowEmpty, o.Meta})
	if err != nil {
		panic(err) // texts only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
