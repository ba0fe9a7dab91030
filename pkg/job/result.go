package job

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/org/nix-matrix/internal/valid"
)

// Outcome is the outcome of an entry or a target.
type Outcome string

// The outcomes. An entry's is the worst of its targets', in this order.
const (
	OutcomeBuilt     Outcome = "built"     // built here
	OutcomeFetched   Outcome = "fetched"   // from a substituter
	OutcomePresent   Outcome = "present"   // was in the store already
	OutcomeFailed    Outcome = "failed"    // its build, or that of a dependency, failed
	OutcomeCancelled Outcome = "cancelled" // stopped by a signal
)

// OK reports whether the outputs are there.
func (o Outcome) OK() bool { return o == OutcomeBuilt || o == OutcomeFetched || o == OutcomePresent }

// A Result is the outcome of one entry. The worker writes it in any case.
type Result struct {
	Version  int       `json:"version"`
	Plan     string    `json:"plan"`  // cache key of the entry's Plan
	Entry    string    `json:"entry"` // Entry.ID
	Name     string    `json:"name"`  // Entry.Name
	Outcome  Outcome   `json:"outcome"`
	Error    string    `json:"error,omitempty"` // outside of any target
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Emulated bool      `json:"emulated,omitempty"` // one of Builds is
	Runner   string    `json:"runner,omitempty"`   // name of the machine
	Machine  *Machine  `json:"machine,omitempty"`  // nil outside of GitHub Actions
	URL      string    `json:"url,omitempty"`      // of the job's page, or of the run's if that is unknown
	// TimedOut says that the entry's own deadline came: its targets were stopped, not
	// cancelled.
	TimedOut bool `json:"timedOut,omitempty"`

	Targets []TargetResult `json:"targets"`
	// Failures are the derivations whose own build failed, in the order of failure: those of
	// TargetResult.Causes.
	Failures []Failure  `json:"failures,omitempty"`
	Builds   []DrvBuild `json:"builds,omitempty"` // for the targets, in the order of their end
	Pushes   []Push     `json:"pushes,omitempty"`
	// Imported counts the store paths from the drv pack, and Downloaded the bytes that were
	// downloaded for them.
	Imported   int   `json:"imported"`
	Downloaded int64 `json:"downloaded"`
	// Restored is what was taken from the store cache, nil if it was not used; Saved are the
	// packs that were added to it.
	Restored *Restored `json:"restored,omitempty"`
	Saved    []Pack    `json:"saved,omitempty"`
	// Fetched counts the store paths from substituters, and FetchedBytes the bytes of their
	// NARs.
	Fetched      int   `json:"fetched,omitempty"`
	FetchedBytes int64 `json:"fetchedBytes,omitempty"`
	// Units are the units that the job built or took, in this order, and Waited the seconds in
	// which it had nothing to do but to wait for other jobs.
	Units  []UnitResult `json:"units,omitempty"`
	Waited float64      `json:"waited,omitempty"`
}

// Conclude sets the Outcome of the entry: the worst of its targets, or of its own errors.
// stopped says that the worker was told to stop.
func (r *Result) Conclude(stopped bool) {
	rank := []Outcome{OutcomePresent, OutcomeFetched, OutcomeBuilt, OutcomeCancelled, OutcomeFailed}
	worst := OutcomePresent
	for _, t := range r.Targets {
		if slices.Index(rank, t.Outcome) > slices.Index(rank, worst) {
			worst = t.Outcome
		}
	}
	unitFailed := func(u UnitResult) bool { return u.How == UnitFailed }
	failed := r.Error != "" || len(r.Targets) == 0 && slices.ContainsFunc(r.Units, unitFailed) || slices.ContainsFunc(r.Pushes, func(p Push) bool { return p.Error != "" && !p.Optional })
	switch {
	case worst == OutcomeFailed:
	case stopped && (failed || !worst.OK()):
		worst = OutcomeCancelled
	case failed:
		worst = OutcomeFailed
	}
	r.Outcome = worst
}

// Restored counts the store paths from the store cache.
type Restored struct {
	Paths int      `json:"paths"`
	Size  int64    `json:"size"`            // bytes of their NARs
	Read  int64    `json:"read"`            // bytes of packs
	Packs []string `json:"packs,omitempty"` // keys of the packs that were read
	Lost  []string `json:"lost,omitempty"`  // keys of packs that an index names and that are missing or damaged
}

// A Pack is a file of store paths in a cache.
type Pack struct {
	Key   string `json:"key"`
	Size  int64  `json:"size"`  // bytes
	Paths int    `json:"paths"` // number of store paths
}

// A TargetResult is the outcome of one target.
type TargetResult struct {
	N       int      `json:"n"` // number in the Plan
	Attr    string   `json:"attr"`
	DrvPath string   `json:"drvPath"`
	Outcome Outcome  `json:"outcome"`
	Outputs []Output `json:"outputs,omitempty"`
	Error   string   `json:"error,omitempty"`
	Cause   string   `json:"cause,omitempty"` // the derivation that failed first
	// Causes are all derivations whose own failure kept this one from being built, Cause
	// first. Error, Log, File and Line are about Cause.
	Causes    []string `json:"causes,omitempty"`
	Log       []string `json:"log,omitempty"`       // its last lines
	Seconds   float64  `json:"seconds"`             // in which a dependency was built or fetched
	Emulated  bool     `json:"emulated,omitempty"`  // one of the Builds for it is
	Reproduce string   `json:"reproduce,omitempty"` // the command that reproduces it locally
	// File and Line are the position of the error in Log: File relative to the repository,
	// without "." or ".." in it; empty if Log has none. Line counts from 1; 0 is unknown.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// PostBuild is the outcome of the step after the build; nil if there is none.
	PostBuild *Step `json:"postBuild,omitempty"`
}

// A Failure is a derivation whose build failed, or that Nix refused to build.
type Failure struct {
	DrvPath string   `json:"drvPath"`
	Error   string   `json:"error"`
	Log     []string `json:"log,omitempty"`    // its last lines
	Silent  bool     `json:"silent,omitempty"` // its builder printed nothing
	File    string   `json:"file,omitempty"`   // as in a TargetResult
	Line    int      `json:"line,omitempty"`
	// LogFile is the file with the whole log: a path on the machine that built, or a file of
	// the run's artifact LogArtifact; empty if none was kept.
	LogFile     string `json:"logFile,omitempty"`
	LogArtifact string `json:"logArtifact,omitempty"`
	// NixLog says that nix log shows the log on the machine that built.
	NixLog bool `json:"nixLog,omitempty"`
	// Entry is the name of the entry whose job built it, and URL the page of that job, if that
	// was not this one: then its Result has the log.
	Entry string `json:"entry,omitempty"`
	URL   string `json:"url,omitempty"`
}

// A Step is the outcome of a command that was run for a target.
type Step struct {
	Outcome string   `json:"outcome"` // StepDone, StepFailed or StepSkipped
	Seconds float64  `json:"seconds"`
	Error   string   `json:"error,omitempty"` // why it failed or was skipped
	Log     []string `json:"log,omitempty"`   // its last lines
}

// The outcomes of a Step.
const (
	StepDone    = "done"
	StepFailed  = "failed"
	StepSkipped = "skipped"
)

// An Output is a realised output of a target.
type Output struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Size    int64  `json:"size"`    // bytes of the NAR
	Closure int64  `json:"closure"` // bytes of the NARs of the runtime closure
	// Parts are the sizes of packages in the closure, by [PackageName], from MinPart bytes on.
	Parts map[string]int64 `json:"parts,omitempty"`
}

// MinPart is the least size of a package in Parts, in bytes.
const MinPart = 256 << 10

// maxParts is more than a machine has packages that large.
const maxParts = 50_000

// maxFailures is more than a person would read.
const maxFailures = 10_000

// A DrvBuild is a build of one derivation.
type DrvBuild struct {
	DrvPath string    `json:"drvPath"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Failed  bool      `json:"failed,omitempty"`
	// Emulated says that the machine ran its builder in an emulator, such as qemu.
	Emulated bool `json:"emulated,omitempty"`
}

// A Push is the outcome of a push to one binary cache.
type Push struct {
	Destination string `json:"destination"` // without credentials
	Paths       int    `json:"paths"`       // in the closures that it has now
	// Sent counts the store paths that the binary cache lacked, and Bytes the bytes of their
	// NARs; 0 also if unknown, as with Cachix.
	Sent    int     `json:"sent,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
	// Reason is the kind of Error, and Status the destination's HTTP status with PushRefused.
	Reason PushReason `json:"reason,omitempty"`
	Status int        `json:"status,omitempty"`
	// Optional says that an Error is not the entry's failure.
	Optional bool `json:"optional,omitempty"`
	// Withheld says that the push is optional because GitHub gives the run no secrets, as with
	// a pull request from a fork or from Dependabot.
	Withheld bool `json:"withheld,omitempty"`
}

// PushReason says why nothing can be pushed, where a retry does not help.
type PushReason string

// The reasons.
const (
	PushNoSecret PushReason = "no-secret" // it was not tried, because a secret for it is not set
	PushRefused  PushReason = "refused"   // the destination answers 401, 403 or 404
)

func (p *Push) check() error {
	switch p.Reason {
	case "", PushNoSecret, PushRefused:
	default:
		return fmt.Errorf("unknown reason %q of a push that failed", p.Reason)
	}
	if p.Error == "" && p.Reason != "" || p.Reason == "" && p.Withheld || p.Withheld && !p.Optional {
		return fmt.Errorf("the push to %q contradicts itself", p.Destination)
	}
	return nil
}

// ParseResult reads a Result and checks it.
func ParseResult(data []byte) (*Result, error) {
	var r Result
	if err := parse("result", data, &r, &r.Version); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return &r, nil
}

func (r *Result) check() error {
	if err := CheckID(r.Entry); err != nil {
		return err
	}
	if err := r.Outcome.check(); err != nil {
		return err
	}
	for i := range r.Targets {
		if err := r.Targets[i].check(); err != nil {
			return fmt.Errorf("target %q: %w", r.Targets[i].Attr, err)
		}
	}
	for i := range r.Pushes {
		if err := r.Pushes[i].check(); err != nil {
			return err
		}
	}
	if len(r.Failures) > maxFailures {
		return fmt.Errorf("it has %d failures, which is too many", len(r.Failures))
	}
	for i := range r.Failures {
		if err := r.Failures[i].check(); err != nil {
			return fmt.Errorf("failure %d: %w", i, err)
		}
	}
	if len(r.Units) > maxUnits {
		return fmt.Errorf("it has %d units, which is too many", len(r.Units))
	}
	for i := range r.Units {
		if err := r.Units[i].check(); err != nil {
			return err
		}
	}
	if err := r.Machine.check(); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	if err := seconds(r.Waited); err != nil {
		return fmt.Errorf("waited: %w", err)
	}
	for _, b := range r.Builds {
		if err := valid.Derivation(b.DrvPath); err != nil {
			return err
		}
	}
	return nil
}

func (t *TargetResult) check() error {
	if t.N < 0 {
		return fmt.Errorf("there is no target number %d", t.N)
	}
	if err := t.Outcome.check(); err != nil {
		return err
	}
	if err := valid.Derivation(t.DrvPath); err != nil {
		return err
	}
	causes := t.Causes
	if len(causes) > maxFailures {
		return fmt.Errorf("it has %d causes, which is too many", len(causes))
	}
	if t.Cause != "" {
		causes = append([]string{t.Cause}, causes...)
	}
	for _, drv := range causes {
		if err := valid.Derivation(drv); err != nil {
			return err
		}
	}
	for _, o := range t.Outputs {
		if err := cmp.Or(valid.Output(o.Name), valid.StorePath(o.Path)); err != nil {
			return err
		}
		if len(o.Parts) > maxParts {
			return fmt.Errorf("%s has %d parts, which is too many", o.Path, len(o.Parts))
		}
	}
	if err := checkPosition(t.File, t.Line); err != nil {
		return err
	}
	if t.PostBuild != nil {
		return t.PostBuild.check()
	}
	return nil
}

func (f *Failure) check() error {
	if err := valid.Derivation(f.DrvPath); err != nil {
		return err
	}
	for _, name := range []string{f.LogFile, f.LogArtifact, f.Entry, f.URL} {
		if err := valid.Line(name, MaxText); err != nil {
			return fmt.Errorf("the log: %w", err)
		}
	}
	return checkPosition(f.File, f.Line)
}

func checkPosition(file string, line int) error {
	if line < 0 {
		return fmt.Errorf("there is no line %d", line)
	}
	return checkFile(file)
}

// checkFile returns an error unless file is empty or leads to a file of the repository.
func checkFile(file string) error {
	const longest = 4096
	if file == "" {
		return nil
	}
	if file == "." || !fs.ValidPath(file) || valid.Line(file, longest) != nil {
		return fmt.Errorf("not a file of a repository: %.200q", file)
	}
	return nil
}

func (s *Step) check() error {
	switch s.Outcome {
	case StepDone, StepFailed, StepSkipped:
		return nil
	default:
		return fmt.Errorf("unknown outcome %q of the step after the build", s.Outcome)
	}
}

func (o Outcome) check() error {
	if !o.OK() && o != OutcomeFailed && o != OutcomeCancelled {
		return fmt.Errorf("unknown outcome %q", o)
	}
	return nil
}

// Marshal returns the Result's JSON.
func (r *Result) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the result: %w", err)
	}
	return data, nil
}
