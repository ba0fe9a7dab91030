package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
)

// A Plan is all that discovery found.
type Plan struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`      // prefixes everything that is stored; see [DefaultID]
	Created time.Time `json:"created"` // UTC
	Nix     string    `json:"nix"`     // version of the Nix that evaluated, "2.34.8"
	System  string    `json:"system"`  // system of the machine that evaluated
	Source  string    `json:"source"`  // the request, as typed: ".", "-f default.nix -A home"
	// Heads are the commits of the git checkouts that were evaluated, an empty text for
	// one whose commit can't be read.
	Heads []string `json:"heads,omitempty"`
	// Run and Attempt are GitHub's numbers of the run that made the Plan, 0 outside of one.
	// They make the Plan, and so its key, unique to the run.
	Run     int64 `json:"run,omitempty"`
	Attempt int   `json:"attempt,omitempty"`
	// Machine is that of the discover job, nil outside of one, and Finished the time at which the Plan
	// was finished there.
	Machine  *Machine  `json:"machine,omitempty"`
	Finished time.Time `json:"finished,omitzero"`
	// Saved is the time of builds that the run does without; nil if nothing is known.
	Saved *Saved `json:"saved,omitempty"`

	Targets []Target `json:"targets"`
	Entries []Entry  `json:"entries"`
	// Substituters and PublicKeys are those that the flakes' accepted nixConfig
	// names, for building too.
	Substituters []string `json:"substituters,omitempty"`
	PublicKeys   []string `json:"publicKeys,omitempty"`
	// Missing is the number of derivations to build; 0 also where it is unknown.
	Missing int `json:"missing,omitempty"`
	// Savers has, for each derivation path that several entries have to build, the ID of the
	// entry that saves the result for later runs. The others do not save it.
	Savers map[string]string `json:"savers,omitempty"`
	// Units are sets of missing derivations that one job builds for all, in an order in which
	// each comes after those that it needs.
	Units []Unit `json:"units,omitempty"`
	// Beat is the time after which a job renews its claim to a unit, in seconds.
	Beat int `json:"beat,omitempty"`
	// Took is the time of entries when the default branch built them the last time, by
	// Entry.ID, as far as known.
	Took map[string]EntryTime `json:"took,omitempty"`
	// Drvs is the pack with the derivations of all entries; nil when no entry
	// needs one.
	Drvs *DrvPack `json:"drvs,omitempty"`
	// Programs are the programs that workers need to push and may not have on PATH, one for
	// each system of a worker's machine.
	Programs []Program `json:"programs,omitempty"`
	// Emulated are the systems that runners emulate because no native runner is named.
	Emulated []string `json:"emulated,omitempty"`
	// Notices are remarks for the user about the plan as a whole, such as which
	// systems were left out.
	Notices []string `json:"notices,omitempty"`
}

// A DrvPack says where the derivations of a Plan are.
type DrvPack struct {
	Key    string `json:"key"`    // cache key
	Size   int64  `json:"size"`   // bytes of the whole pack
	Paths  int    `json:"paths"`  // number of store paths
	SHA256 string `json:"sha256"` // of the pack's index, hex
}

// Kind is the kind of a target.
type Kind string

// The kinds of targets. A host has an entry of its own.
const (
	NixOS   Kind = "nixos"
	Darwin  Kind = "darwin"
	Home    Kind = "home"
	Package Kind = "package"
	Check   Kind = "check"
	Other   Kind = "other"
)

// IsHost reports whether a target of this kind is a whole host.
func (k Kind) IsHost() bool { return k == NixOS || k == Darwin || k == Home }

// State is the Plan's decision about a target.
type State string

// The states of a target in the Plan.
const (
	StateBuild  State = "build"  // an entry builds it
	StateSkip   State = "skip"   // nothing to do, because of Reason
	StateFailed State = "failed" // could not be evaluated, because of Error
)

// A Target is an attribute path with its derivation.
type Target struct {
	Flake     string            `json:"flake,omitempty"` // as typed, if the Plan has targets of several flakes
	Attr      string            `json:"attr"`            // dotted attribute path, as typed after `nix build .#`
	Name      string            `json:"name"`            // Attr without parts that all of a kind share: nixosConfigurations.pi3
	Kind      Kind              `json:"kind"`
	Host      string            `json:"host,omitempty"` // of a Kind that is a host
	Node      string            `json:"node,omitempty"` // Name of the host, if several targets may be for it
	System    string            `json:"system,omitempty"`
	DrvPath   string            `json:"drvPath,omitempty"`  // empty where nothing was instantiated: of StateFailed, and where it is Refused or NeedsSecret
	Outputs   []string          `json:"outputs,omitempty"`  // the outputs wanted
	OutPaths  map[string]string `json:"outPaths,omitempty"` // by output; absent where unknown before the build
	Reproduce string            `json:"reproduce,omitempty"`

	// Texts from the package's meta.
	Description string   `json:"description,omitempty"` // meta.description: one line of at most 200 characters
	Features    []string `json:"features,omitempty"`    // requiredSystemFeatures: what a builder must have
	Runner      []string `json:"runner,omitempty"`      // meta.nixMatrix.runner: labels of the runner that it asks for, which the entry has only if the workflow lists them

	// Further fields of the package's meta.nixMatrix.
	Group    string `json:"group,omitempty"`    // targets with the same one share an entry, as far as they share a system and a runner
	Timeout  int    `json:"timeout,omitempty"`  // seconds that its build may take in an entry; 0 is no limit of its own
	Priority int    `json:"priority,omitempty"` // entries with a higher one come first

	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // of StateSkip
	// Refused says that it is skipped because its own package forbids to build it, for example
	// as broken or by meta.nixMatrix.skip. Such a target has no derivation.
	Refused bool `json:"refused,omitempty"`
	// NeedsSecret is the input whose secret is missing, if a target failed or is skipped
	// because it cannot be evaluated without it. Such a target has no derivation.
	NeedsSecret string `json:"needsSecret,omitempty"`
	// Available says that it is skipped because its outputs need no building, Proved because the
	// default branch has built it.
	Available bool   `json:"available,omitempty"`
	Proved    bool   `json:"proved,omitempty"`
	Error     string `json:"error,omitempty"` // of StateFailed: Nix's message
}

var commitPattern = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// ParsePlan reads a Plan and checks it.
func ParsePlan(data []byte) (*Plan, error) {
	var p Plan
	if err := parse("plan", data, &p, &p.Version); err != nil {
		return nil, err
	}
	if err := CheckID(p.ID); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	for _, head := range p.Heads {
		if head != "" && !commitPattern().MatchString(head) {
			return nil, fmt.Errorf("plan: heads: %.100q is not a commit", head)
		}
	}
	seen := map[string]bool{}
	for i := range p.Entries {
		e := &p.Entries[i]
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("plan: entry %d: %w", i, err)
		}
		if seen[e.ID] || seen["name "+e.Name] {
			return nil, fmt.Errorf("plan: entry %d: %q (%s) is there twice", i, e.Name, e.ID)
		}
		seen[e.ID], seen["name "+e.Name] = true, true
		for _, t := range e.Targets {
			if t.N < 0 || t.N >= len(p.Targets) {
				return nil, fmt.Errorf("plan: entry %q: there is no target number %d", e.Name, t.N)
			}
		}
	}
	if err := p.checkUnits(); err != nil {
		return nil, fmt.Errorf("plan: units: %w", err)
	}
	for drv, id := range p.Savers {
		if err := cmp.Or(valid.Derivation(drv), CheckID(id)); err != nil {
			return nil, fmt.Errorf("plan: savers: %w", err)
		}
	}
	for id, took := range p.Took {
		if err := cmp.Or(CheckID(id), took.check()); err != nil {
			return nil, fmt.Errorf("plan: took: %w", err)
		}
	}
	if err := valid.All(valid.System, p.Emulated...); err != nil {
		return nil, fmt.Errorf("plan: emulated: %w", err)
	}
	if err := CheckSources(p.Substituters, p.PublicKeys); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	for i := range p.Targets {
		if err := p.Targets[i].Check(); err != nil {
			return nil, fmt.Errorf("plan: target %d (%s): %w", i, valid.Quote(p.Targets[i].Attr), err)
		}
	}
	if err := cmp.Or(checkPrograms(p.Programs), field("machine", p.Machine.check()), field("saved", p.Saved.check())); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return &p, nil
}

// Marshal returns the Plan's JSON.
func (p *Plan) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the plan: %w", err)
	}
	return data, nil
}

// EntryByID returns an entry. ok is false if there is none with that id.
func (p *Plan) EntryByID(id string) (e *Entry, ok bool) {
	for i := range p.Entries {
		if p.Entries[i].ID == id {
			return &p.Entries[i], true
		}
	}
	return nil, false
}

// Key returns a text that no other target of the Plan has, and that the target has in other Plans, too.
func (t *Target) Key() string { return t.Flake + "#" + t.Attr }

// entryName returns the name of the entry that a host has of its own.
func (t *Target) entryName() string { return strings.Join(strings.Fields(cmp.Or(t.Node, t.Name)), " ") }

// HasPaths reports whether an output of the target is wanted, and the paths of all wanted
// outputs are known.
func (t *Target) HasPaths() bool {
	return len(t.Outputs) > 0 && !slices.ContainsFunc(t.Outputs, func(output string) bool { return t.OutPaths[output] == "" })
}
