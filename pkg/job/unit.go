package job

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
)

// A Unit is a set of missing derivations that one job of the run builds and hands over to all others.
type Unit struct {
	ID   string `json:"id"`   // see [NewUnitID]
	Name string `json:"name"` // for people: of its heaviest derivation, "linux-6.12.3 and 4 more"
	// System is that of the targets that need it. A job of another system does not build it, nor
	// does one on another runner than all of For.
	System string `json:"system"`
	// Drvs are the derivations that it builds and no other unit does. Their output paths are known.
	Drvs []string `json:"drvs"`
	// Wanted are the outputs, of some of Drvs, that others need.
	Wanted []Wanted `json:"wanted"`
	// After are the numbers of the units that it needs, all smaller than its own.
	After []int `json:"after,omitempty"`
	// For are the numbers of the entries in the Plan that need it. Direct are those of them that
	// need it for a derivation of no unit: the others need only what is built from it.
	For    []int `json:"for"`
	Direct []int `json:"direct,omitempty"`
	// Seconds is its expected time on one runner, and Tail that of the longest way from its
	// beginning to the end of a target that needs it.
	Seconds float64 `json:"seconds"`
	Tail    float64 `json:"tail"`
}

// Wanted are outputs of a derivation.
type Wanted struct {
	DrvPath string   `json:"drvPath"`
	Outputs []string `json:"outputs"`
}

// NeededBy reports whether the entry with a number in the Plan needs the unit.
func (u *Unit) NeededBy(entry int) bool { return slices.Contains(u.For, entry) }

// Installable returns it as nix-store wants it: DRV!OUT,….
func (w *Wanted) Installable() string { return w.DrvPath + "!" + strings.Join(w.Outputs, ",") }

// DrvPaths returns the derivations of wanted outputs, in their order.
func DrvPaths(wanted []Wanted) []string {
	drvs := make([]string, len(wanted))
	for i := range wanted {
		drvs[i] = wanted[i].DrvPath
	}
	return drvs
}

// Limits of units in a Plan.
const (
	maxUnits    = 4096
	maxUnitDrvs = 100_000
)

// NewUnitID returns the id of a unit that hands over these outputs: that of another Plan has the
// same id if it hands over the same.
func NewUnitID(wanted []Wanted) string {
	all := make([]string, len(wanted))
	for i := range wanted {
		all[i] = wanted[i].Installable()
	}
	slices.Sort(all)
	return hexSum([]byte(strings.Join(all, "\n")), 8)
}

var unitID = lazyregexp.New(`^[0-9a-f]{16}$`)

// checkUnits returns an error unless the units of the Plan are valid and their order has no circle.
func (p *Plan) checkUnits() error {
	if len(p.Units) > maxUnits {
		return fmt.Errorf("there are %d, more than %d", len(p.Units), maxUnits)
	}
	if p.Beat < 0 || len(p.Units) > 0 && p.Beat == 0 {
		return fmt.Errorf("a claim cannot be renewed every %d seconds", p.Beat)
	}
	seen := map[string]bool{}
	for n := range p.Units {
		u := &p.Units[n]
		if err := u.check(n, len(p.Entries)); err != nil {
			return fmt.Errorf("unit %d: %w", n, err)
		}
		for _, drv := range append(u.Drvs, u.ID) {
			if seen[drv] {
				return fmt.Errorf("unit %d: %s is there twice", n, drv)
			}
			seen[drv] = true
		}
	}
	return nil
}

func (u *Unit) check(n, entries int) error {
	if !unitID().MatchString(u.ID) {
		return fmt.Errorf("%s is no id of a unit", valid.Quote(u.ID))
	}
	if len(u.Drvs) > maxUnitDrvs || len(u.Wanted) > len(u.Drvs) {
		return fmt.Errorf("it has %d derivations, of which %d are wanted", len(u.Drvs), len(u.Wanted))
	}
	err := cmp.Or(
		field("name", line(u.Name, MaxName)),
		field("system", valid.System(u.System)),
		field("drvs", some(u.Drvs)),
		field("drvs", valid.All(valid.Derivation, u.Drvs...)),
		field("wanted", some(u.Wanted)),
		field("for", some(u.For)),
		field("seconds", seconds(u.Seconds)),
		field("tail", seconds(u.Tail)),
	)
	for i := range u.Wanted {
		w := &u.Wanted[i]
		err = cmp.Or(err, field("wanted", cmp.Or(valid.Derivation(w.DrvPath), some(w.Outputs), list(valid.Output, w.Outputs))))
		if err == nil && !slices.Contains(u.Drvs, w.DrvPath) {
			err = fmt.Errorf("wanted: it does not build %s", w.DrvPath)
		}
	}
	if err != nil {
		return err
	}
	for _, before := range u.After {
		if before < 0 || before >= n {
			return fmt.Errorf("after: the unit %d is not before it", before)
		}
	}
	for _, entry := range u.For {
		if entry < 0 || entry >= entries {
			return fmt.Errorf("for: there is no entry %d", entry)
		}
	}
	for _, entry := range u.Direct {
		if !slices.Contains(u.For, entry) {
			return fmt.Errorf("direct: it is not for the entry %d", entry)
		}
	}
	return nil
}

// seconds returns an error unless s is a time.
func seconds(s float64) error {
	const most = 1e9
	if !(s >= 0 && s <= most) { // neither is NaN
		return fmt.Errorf("%v is no time in seconds", s)
	}
	return nil
}

// A Done is what became of a unit: the document by which a job hands it over.
type Done struct {
	Version int     `json:"version"`
	Unit    string  `json:"unit"` // Unit.ID
	Attempt int     `json:"attempt"`
	Outcome Outcome `json:"outcome"` // OutcomeBuilt, OutcomeFailed, or OutcomeCancelled: given back unbuilt
	Entry   string  `json:"entry"`   // name of the entry that had it
	URL     string  `json:"url,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Index is the document of the packs with its outputs, as pkg/storecache writes it.
	Index []byte `json:"index,omitempty"`
	// Inline is the key by which Index names the pack that lies behind the document, empty if there is none:
	// small outputs need no entry of the cache of their own.
	Inline string `json:"inline,omitempty"`
	// Failures are the derivations that failed, with the last lines of their logs.
	Failures []Failure `json:"failures,omitempty"`

	// Packed is the pack that is to be stored behind the document, and Place where it was found, which is
	// not read with the document.
	Packed []byte `json:"-"`
	Place  Place  `json:"-"`
}

// A Place is a part of an entry of the cache.
type Place struct {
	Key          string
	Offset, Size int64 // bytes
}

// ParseDone reads a Done and checks it.
func ParseDone(data []byte) (*Done, error) {
	var d Done
	if err := parse("unit", data, &d, &d.Version); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("unit: %w", err)
	}
	return &d, nil
}

func (d *Done) check() error {
	if !unitID().MatchString(d.Unit) {
		return fmt.Errorf("%s is no id of a unit", valid.Quote(d.Unit))
	}
	switch d.Outcome {
	case OutcomeBuilt, OutcomeFailed, OutcomeCancelled:
	case OutcomeFetched, OutcomePresent:
		return fmt.Errorf("a unit cannot be %s", d.Outcome)
	default:
		return d.Outcome.check()
	}
	if d.Outcome == OutcomeFailed && len(d.Failures) == 0 {
		return errors.New("it failed without a failure")
	}
	if len(d.Failures) > maxFailures {
		return fmt.Errorf("it has %d failures, which is too many", len(d.Failures))
	}
	for i := range d.Failures {
		if err := d.Failures[i].check(); err != nil {
			return fmt.Errorf("failure %d: %w", i, err)
		}
	}
	return cmp.Or(field("entry", line(d.Entry, MaxName)), field("url", valid.Line(d.URL, MaxName)), field("seconds", seconds(d.Seconds)),
		field("inline", valid.Line(d.Inline, MaxName)))
}

// Marshal returns the JSON of a Done.
func (d *Done) Marshal() ([]byte, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("cannot write the unit: %w", err)
	}
	return data, nil
}

// A UnitResult is the way of a unit through the job of one entry.
type UnitResult struct {
	ID      string    `json:"id"`
	How     UnitWay   `json:"how"`
	From    string    `json:"from,omitempty"` // name of the entry that had it, if another
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`         // to build and hand over, or to take
	Bytes   int64     `json:"bytes,omitempty"` // sent or read
}

// UnitWay says how a job got the outputs of a unit.
type UnitWay string

// The ways.
const (
	UnitBuilt   UnitWay = "built"   // here, and handed over
	UnitTaken   UnitWay = "taken"   // from another job
	UnitAlone   UnitWay = "alone"   // built here without a claim, since that could not be had
	UnitFailed  UnitWay = "failed"  // here
	UnitBlocked UnitWay = "blocked" // it failed in another job
)

func (u *UnitResult) check() error {
	switch u.How {
	case UnitBuilt, UnitTaken, UnitAlone, UnitFailed, UnitBlocked:
	default:
		return fmt.Errorf("unknown way %q of a unit", u.How)
	}
	if !unitID().MatchString(u.ID) {
		return fmt.Errorf("%s is no id of a unit", valid.Quote(u.ID))
	}
	return cmp.Or(field("from", valid.Line(u.From, MaxName)), field("seconds", seconds(u.Seconds)))
}

// A ClaimKey has the parts of the key of a claim.
type ClaimKey struct {
	ID      string
	Run     int64
	Attempt int
	Unit    string
	// Try counts the holders, from 0 on: each follows one that died. Beat counts the renewals of
	// one holder; 0 is the claim itself.
	Try, Beat int
}

// Prefix begins the keys of all claims of a unit in the attempt.
func (k ClaimKey) Prefix() string {
	return fmt.Sprintf("%s-claim-%d-%d-%s-", k.ID, k.Run, k.Attempt, k.Unit)
}

// String returns the key.
func (k ClaimKey) String() string { return fmt.Sprintf("%s%d-%05d", k.Prefix(), k.Try, k.Beat) }

// Parse returns the parts of a key that String returned for a unit. ok is false for others.
func (k ClaimKey) Parse(key string) (parsed ClaimKey, ok bool) {
	rest, ok := strings.CutPrefix(key, k.Prefix())
	try, beat, dash := strings.Cut(rest, "-")
	parsed = k
	var terr, berr error
	parsed.Try, terr = strconv.Atoi(try)
	parsed.Beat, berr = strconv.Atoi(beat)
	return parsed, ok && dash && terr == nil && berr == nil && parsed.String() == key
}

// DonePrefix begins the keys of what became of a unit in a run.
func DonePrefix(id string, run int64, unit string) string {
	return fmt.Sprintf("%s-done-%d-%s-", id, run, unit)
}

// DoneKey returns the key of what became of a unit in the hands of a holder.
func DoneKey(k ClaimKey) string {
	return fmt.Sprintf("%s%d-%d", DonePrefix(k.ID, k.Run, k.Unit), k.Attempt, k.Try)
}

// ParseDoneKey returns the attempt and the try in a key that DoneKey returned for a unit whose keys
// begin with prefix. ok is false for others.
func ParseDoneKey(prefix, key string) (attempt, try int, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	first, second, dash := strings.Cut(rest, "-")
	attempt, aerr := strconv.Atoi(first)
	try, terr := strconv.Atoi(second)
	return attempt, try, ok && dash && aerr == nil && terr == nil && key == fmt.Sprintf("%s%d-%d", prefix, attempt, try)
}

// A Claim says which job holds a unit.
type Claim struct {
	Holder string `json:"holder"` // random, of the worker: entries of several jobs may share a name
	Entry  string `json:"entry"`  // name of its entry
	URL    string `json:"url,omitempty"`
}

// ParseClaim reads a Claim and checks it.
func ParseClaim(data []byte) (*Claim, error) {
	var c Claim
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("claim is not valid JSON: %w", err)
	}
	err := cmp.Or(field("holder", line(c.Holder, MaxName)), field("entry", line(c.Entry, MaxName)), field("url", valid.Line(c.URL, MaxName)))
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return &c, nil
}
