package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A Record is what a run of the default branch leaves for later runs: its targets, the proved
// derivations, and durations.
type Record struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"` // UTC
	Commit  string    `json:"commit,omitempty"`
	Branch  string    `json:"branch,omitempty"`
	Run     int64     `json:"run,omitempty"` // greater for later runs, 0 if unknown
	URL     string    `json:"url,omitempty"` // of the run

	Targets []RecordTarget `json:"targets"`
	// Proved are the derivations of targets that were built, or were in a binary cache, by the
	// hash in their paths, with the last day of that, counted from 1970.
	Proved map[string]int `json:"proved"`
	// Seconds are the durations of the last builds of derivations, by [TimeKey].
	Seconds map[string]float64 `json:"seconds,omitempty"`
	// Entries are the times of entries when they were built the last time, by [EntryKey].
	Entries map[string]EntryTime `json:"entries,omitempty"`
}

// An EntryTime is the cost of an entry.
type EntryTime struct {
	Seconds float64 `json:"seconds"`
	Fetched int64   `json:"fetched,omitempty"` // bytes of NARs from substituters
	Day     int     `json:"day,omitempty"`     // see [Day]
}

func (t EntryTime) check() error {
	if t.Fetched < 0 {
		return fmt.Errorf("%d bytes were fetched", t.Fetched)
	}
	return seconds(t.Seconds)
}

// A RecordTarget is a target of the run.
type RecordTarget struct {
	Flake   string `json:"flake,omitempty"`
	Attr    string `json:"attr"`
	Name    string `json:"name"`
	Kind    Kind   `json:"kind"`
	System  string `json:"system,omitempty"`
	DrvPath string `json:"drvPath,omitempty"` // empty where it could not be evaluated
	// Closure is the size of its outputs' closures in bytes, Parts the sizes of packages in
	// them; 0 and none if not measured.
	Closure int64            `json:"closure,omitempty"`
	Parts   map[string]int64 `json:"parts,omitempty"`
}

// Key returns the same text as that of the Target that it is of.
func (t *RecordTarget) Key() string { return t.Flake + "#" + t.Attr }

// Limits of a Record, which comes from a cache.
const (
	maxProved  = 100_000
	maxSeconds = 100_000
	maxEntries = 100_000
)

// ParseRecord reads a Record and checks it.
func ParseRecord(data []byte) (*Record, error) {
	var r Record
	if err := parse("record", data, &r, &r.Version); err != nil {
		return nil, err
	}
	if err := CheckID(r.ID); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if len(r.Proved) > maxProved || len(r.Seconds) > maxSeconds || len(r.Entries) > maxEntries {
		return nil, fmt.Errorf("record: it has %d derivations, %d times and %d entries, which are too many", len(r.Proved), len(r.Seconds), len(r.Entries))
	}
	for key, took := range r.Seconds {
		if err := seconds(took); err != nil {
			return nil, fmt.Errorf("record: seconds of %s: %w", valid.Quote(key), err)
		}
	}
	for key, took := range r.Entries {
		if err := took.check(); err != nil {
			return nil, fmt.Errorf("record: entry %s: %w", valid.Quote(key), err)
		}
	}
	for i := range r.Targets {
		t := &r.Targets[i]
		if err := cmp.Or(valid.Line(t.Flake, MaxName), valid.Line(t.Attr, MaxName), valid.Line(t.Name, MaxName), optional(valid.Derivation, t.DrvPath)); err != nil {
			return nil, fmt.Errorf("record: target %d: %w", i, err)
		}
	}
	return &r, nil
}

// Marshal returns the Record's JSON.
func (r *Record) Marshal() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot write the record: %w", err)
	}
	return data, nil
}

// DrvHash returns the hash in a derivation's path, "" if the path is invalid.
func DrvHash(drvPath string) string {
	if !storepath.Valid(drvPath) {
		return ""
	}
	hash, _, _ := strings.Cut(strings.TrimPrefix(drvPath, "/nix/store/"), "-")
	return hash
}

// Day returns the day of a time, for a [Record].
func Day(t time.Time) int { return int(t.Unix() / (24 * 60 * 60)) }

// versionPattern matches the version in a name, as Nix's parseDrvName does.
var versionPattern = lazyregexp.New(`-[^a-zA-Z].*$`)

// PackageName returns the name of a store path or derivation without its version.
func PackageName(storePath string) string {
	return versionPattern().ReplaceAllString(DrvName(storePath), "")
}

// TimeKey returns the key of a derivation's duration, in a Record. All versions of a package
// have the same key.
func TimeKey(drvPath, system string, emulated bool) string {
	return EntryKey(PackageName(drvPath), system, emulated)
}

// EntryKey returns the key of an EntryTime, in a Record.
func EntryKey(name, system string, emulated bool) string {
	key := name + " " + system
	if emulated {
		key += " emulated"
	}
	return key
}
