package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultID is the id of a use of nix-matrix without an own one.
const DefaultID = "nix-matrix"

// An Entry is a row of the job matrix: one runner job with one or more targets. A helper has none,
// and builds units for the others.
// It holds only the values that a worker and `runs-on:` need, because all outputs of a job
// together may be 1 MB.
type Entry struct {
	Name     string   `json:"name"` // unique; the job's name
	ID       string   `json:"id"`   // short, unique, safe in file and artifact names
	Host     *string  `json:"host"` // null unless it is a host
	Platform string   `json:"platform"`
	System   string   `json:"system"`
	Attr     string   `json:"attr"`    // of the first target; empty in a matrix that would be too large
	DrvPath  string   `json:"drvPath"` // of the first target
	Outputs  []string `json:"outputs"` // of the first target
	Runner   []string `json:"runner"`  // labels for `runs-on:`
	QEMU     bool     `json:"qemu"`    // the runner must emulate System
	Helper   bool     `json:"helper,omitempty"`
	Timeout  int      `json:"timeout,omitempty"` // seconds that its targets may take together; 0 is no limit of their own
	// Plan is the cache key of the Plan. It contains a hash of the Plan's bytes, so that a
	// worker can check that it has the right one. Empty inside a Plan.
	Plan    string `json:"plan,omitempty"`
	Targets []Ref  `json:"targets"` // not null
}

// SameRunner reports whether the jobs of two entries run on the same kind of machine.
func (e *Entry) SameRunner(other *Entry) bool {
	return e.System == other.System && e.QEMU == other.QEMU && slices.Equal(e.Runner, other.Runner)
}

// A Ref names a target by its number in the Plan. Attribute path and derivation are for readers
// of the matrix; rows with many targets leave them out.
type Ref struct {
	N       int    `json:"n"`
	Attr    string `json:"attr,omitempty"`
	DrvPath string `json:"drvPath,omitempty"`
}

// A Matrix is the value of `strategy.matrix`.
type Matrix struct {
	Include []Entry `json:"include"`
}

// MaxMatrix is the most UTF-16 code units of a matrix. GitHub's limit for all outputs of a job
// is 1 MB.
const MaxMatrix = 480_000

// Matrix returns the rows of the Plan that is stored under the cache key plan.
func (p *Plan) Matrix(plan string) Matrix {
	m := Matrix{Include: make([]Entry, len(p.Entries))}
	for i, e := range p.Entries {
		e.Plan = plan
		m.Include[i] = e
	}
	return m
}

// NewEntryID returns the id of the entry with a name.
func NewEntryID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:5])
}

// ParseEntry reads a row of the matrix, as `toJSON(matrix)` writes it.
func ParseEntry(data []byte) (*Entry, error) {
	if strings.TrimSpace(string(data)) == "" {
		return nil, errors.New("the job is empty. Set it to a row of the matrix that discover made, in a workflow ${{ toJSON(matrix) }}")
	}
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("the job is not an entry of the matrix that discover made: %w", err)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("the job is not an entry of the matrix that discover made: %w", err)
	}
	return &e, nil
}

// parse reads a document and refuses unknown versions.
func parse(what string, data []byte, doc any, version *int) error {
	if err := json.Unmarshal(data, doc); err != nil {
		return fmt.Errorf("%s is not valid JSON: %w", what, err)
	}
	if *version != Version {
		return fmt.Errorf("%s has version %d, this nix-matrix reads version %d. Use the same nix-matrix in all jobs", what, *version, Version)
	}
	return nil
}

// CheckID returns an error unless an id is safe in file names, artifact names and cache keys.
func CheckID(id string) error {
	if id == "" {
		return errors.New("the id is empty")
	}
	if len(id) > 64 {
		return fmt.Errorf("the id %.20q… is longer than 64 characters", id)
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("the id %q may only have a-z, 0-9, - and _", id)
		}
	}
	return nil
}
