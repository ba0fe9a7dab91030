package collect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// Outcome says what became of the entries, or of a dry run, what would.
type Outcome struct {
	Entries []Entry
	DryRun  bool
	Failed  bool // some could not be removed
}

// An Entry is what became of an entry of the cache.
type Entry struct {
	gc.Decision
	Removed bool
	Err     error // why it could not be removed
}

// A tally is a number of entries and their bytes.
type tally struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

func (t *tally) add(size int64) {
	t.Count++
	t.Bytes += size
}

// gone reports whether an entry was removed, or would be without a dry run.
func (o *Outcome) gone(e *Entry) bool { return e.Removed || o.DryRun && e.Why != "" }

// count counts the entries of the given kinds that are gone, and those that stay.
func (o *Outcome) count(kinds ...job.KeyKind) (gone, kept tally) {
	for i := range o.Entries {
		e := &o.Entries[i]
		switch {
		case !slices.Contains(kinds, e.Kind):
		case o.gone(e):
			gone.add(e.Size)
		default:
			kept.add(e.Size)
		}
	}
	return gone, kept
}

// Text returns a line for each entry that is gone, and a table of the kinds.
func (o *Outcome) Text() string {
	verb := "removed"
	if o.DryRun {
		verb = "would remove"
	}
	var all strings.Builder
	for i := range o.Entries {
		e := &o.Entries[i]
		if !o.gone(e) {
			continue
		}
		line := fmt.Sprintf("%s %s", verb, e.Key)
		if e.Ref != "" {
			line += " of " + e.Ref
		}
		fmt.Fprintf(&all, "%s (%s): %s\n", line, text.Size(e.Size), e.Why)
	}
	table := tabwriter.NewWriter(&all, 0, 0, 2, ' ', 0)
	row := func(name string, kinds ...job.KeyKind) {
		gone, kept := o.count(kinds...)
		if gone.Count+kept.Count > 0 || name == "all" {
			fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%s\n", name, gone.Count, text.Size(gone.Bytes), kept.Count, text.Size(kept.Bytes))
		}
	}
	fmt.Fprintf(table, "KIND\t%s\tSIZE\tKEPT\tSIZE\n", strings.ToUpper(verb))
	for _, kind := range job.KeyKinds {
		row(string(kind), kind)
	}
	row("all", job.KeyKinds...)
	_ = table.Flush() // a strings.Builder returns no error
	return all.String()
}

// MarshalJSON returns what became of each entry, and the sums.
func (o *Outcome) MarshalJSON() ([]byte, error) {
	type entry struct {
		Key     string      `json:"key"`
		Kind    job.KeyKind `json:"kind"`
		Ref     string      `json:"ref,omitempty"`
		Size    int64       `json:"size"`
		Created time.Time   `json:"created"`
		Used    time.Time   `json:"used"`
		Removed bool        `json:"removed"` // or would be
		Why     string      `json:"why,omitempty"`
		Error   string      `json:"error,omitempty"`
	}
	entries := make([]entry, len(o.Entries))
	for i := range o.Entries {
		e := &o.Entries[i]
		entries[i] = entry{
			Key: e.Key, Kind: e.Kind, Ref: e.Ref, Size: e.Size, Created: e.Created.UTC(), Used: e.Used.UTC(), Removed: o.gone(e), Why: e.Why,
		}
		if e.Err != nil {
			entries[i].Error = e.Err.Error()
		}
	}
	gone, kept := o.count(job.KeyKinds...)
	return json.Marshal(struct {
		DryRun  bool    `json:"dryRun"`
		Entries []entry `json:"entries"`
		Removed tally   `json:"removed"`
		Kept    tally   `json:"kept"`
	}{o.DryRun, entries, gone, kept})
}
