// Package evaluate turns installables into evaluated targets.
//
// Evaluators walk through what is asked for and tell by traces how far they are;
// evaluate.nix has the protocol. One evaluator begins. When much is left, others
// take parts of it (crew.go), since what two attributes have in common is only
// evaluated once by an evaluator that does both, but two evaluators use two cores.
// An evaluator that dies of one attribute (missing argument, infinite recursion,
// out of memory) takes no other with it: the next one goes on after that.
package evaluate

import (
	"context"
	_ "embed" // for evaluate.nix and text.nix
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

var (
	//go:embed evaluate.nix
	walker string
	//go:embed text.nix
	textNix string
)

// Evaluator is what a discovery needs of Nix.
type Evaluator interface {
	Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error
	EvaluatesWholeFlakes() bool
}

// Options say what to discover.
type Options struct {
	Installables []string // FLAKE[#ATTR]; none is the flake in the working directory
	File         string   // a Nix file, instead of installables
	Attrs        []string // attribute paths in File; none is all of it
	Systems      []string // wanted; others are left out
	System       string   // of this machine

	Args    []Arg    // for functions in File that take them, as nix-build's --arg
	ArgStrs []Arg    // likewise, whose values are texts: --argstr
	NixPath []string // entries of the search path for File, NAME=PATH

	// HostAttr is the path of a NixOS host's target below its configuration. One
	// name, such as "vm" or "sdImage", is that in config.system.build. Empty is
	// the toplevel.
	HostAttr string

	// Include and Exclude have globs on dotted attribute paths, as targets are named:
	// "*" is anything within a name, "**" any number of names. A glob covers what
	// it matches and all that is below. No Include is everything. What is excluded
	// is not evaluated.
	Include, Exclude []string
	// AllowEmpty says that it is no error when a glob matches nothing, nor when there
	// is nothing to build.
	AllowEmpty bool

	// Meta asks for what packages say of themselves, which costs some time.
	Meta bool

	Workers     int           // evaluators at once; 0 is what DefaultWorkers says for this machine
	Timeout     time.Duration // for the evaluation of an attribute; 0 is none
	MemoryLimit int64         // bytes that an evaluator may use; 0 is no limit

	// Progress is told what is being evaluated. It may be nil.
	Progress func(attr string)
	// Counted is told how many attributes are done, of how many that are known so
	// far. It may be nil. None of these functions is called while one of them runs.
	Counted func(done, total int)
	// Explain may know why an evaluator failed. It may be nil.
	Explain func(*nix.Error) Explanation
	// Log gets what the evaluators say besides, a line at a time. What several say is
	// said once. It may be nil.
	Log func(line string)
}

// An Explanation says why an evaluator failed. It is empty where that is not known.
type Explanation struct {
	Text        string // a line, to stand before the message of a target
	NeedsSecret string // the input whose secret is missing; empty where that is not the reason
}

// An Arg is an argument for functions: an expression, or a text.
type Arg struct{ Name, Value string }

// DefaultWorkers says how many evaluators a machine with so many cores and so
// much memory, in bytes, can take. Memory is 0 where that is not known.
func DefaultWorkers(cores int, memory int64) int {
	const each = 3 << 30 // what the configurations of a few hosts take
	fit := memory / each
	if memory == 0 {
		fit = 2
	}
	return max(1, min(cores, int(fit)))
}

// A Evaluation is what was found.
type Evaluation struct {
	Targets []job.Target // in the order of discovery, each attribute once
	Omitted []string     // attribute paths that were left out because of their system
	Passed  []string     // what lies where derivations are expected and is none: "packages.x86_64-linux.f (a function)"

	// Incomplete says that not all was found out, since evaluators ended in the middle of
	// something that is no target's failure: the next time, there may be more.
	Incomplete bool

	// Meta has for each target what is plain data of its meta, as JSON of at most about
	// 64 KiB: without what throws, is a function, a derivation or too large. It is empty
	// where there is none, where its evaluation aborts, and where nobody asked.
	Meta []json.RawMessage
}

// MissingError says that an attribute that was asked for is not there.
type MissingError struct {
	In   string // flake or file
	Attr string
	Have []string // its siblings' names

	Nearest string // the name that was probably meant, or empty
}

func (e *MissingError) Error() string {
	what := fmt.Sprintf("%s has no attribute %s", e.In, e.Attr)
	if e.Nearest != "" {
		what += " (did you mean " + e.Nearest + "?)"
	}
	if len(e.Have) == 0 {
		return what
	}
	return what + "; there are: " + someOf(e.Have)
}

// eachShown are names of attributes as a message has them.
func eachShown(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = shown([]string{name})
	}
	return all
}

// someOf returns the first of many names, and the number of the others.
func someOf(names []string) string { return text.Some(names, 20) }

// ArgumentsError says that what was asked for is a function that can't be called.
type ArgumentsError struct {
	In    string // file, or an attribute in it
	Needs []string
}

func (e *ArgumentsError) Error() string {
	return fmt.Sprintf("%s is a function that needs the argument %s: give it with --arg %s EXPR or --argstr %s TEXT",
		e.In, strings.Join(e.Needs, ", "), e.Needs[0], e.Needs[0])
}

// The outputs of a flake that are looked at when no attribute is named.
var defaultOutputs = []string{"nixosConfigurations", "darwinConfigurations", "homeConfigurations", "packages", "checks", "devShells", "formatter"}

// Run evaluates everything that the options name. Targets that can't be
// evaluated are in the Evaluation as failed, those whose packages are not to be
// built as skipped; an error means that there is no Evaluation.
func Run(ctx context.Context, eval Evaluator, o Options) (*Evaluation, error) {
	globs, err := readGlobs(o.Include, o.Exclude)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	memory := machineMemory()
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers(runtime.GOMAXPROCS(0), memory)
	}
	share := memory / int64(o.Workers)
	if o.Log != nil {
		o.Log(chosen(o.Workers, o.MemoryLimit, memory))
	}
	d := &evaluation{
		eval: eval, o: o, heap: initialHeap(share, o.MemoryLimit), memoryShare: share, host: hostPath(o.HostAttr), globs: globs,
		hits: map[int]bool{}, perhaps: map[int]bool{}, seen: map[string]bool{}, said: map[string]int{},
	}
	sources := d.sources()
	var dead error // of the first output that can't be entered at all
	entered := 0
	for _, s := range sources {
		if d.leftOut(s.base) {
			continue
		}
		c := newCrew(d, s)
		err := c.run(ctx)
		var output *outputError
		switch {
		case errors.As(err, &output) && len(sources) > 1:
			c.records = []record{{path: s.base, target: d.failed(s, s.base, "", output.err)}}
			for _, g := range d.globs { // which may have meant something in it
				if len(s.base) == 0 || g.mayBeIn(s.base[0]) {
					d.hits[g.N] = true
				}
			}
			dead = err
		case err != nil:
			return nil, err
		default:
			entered++
		}
		d.collect(s, c.records)
	}
	switch {
	case entered == 0 && dead != nil:
		return nil, dead // it is the flake that does not evaluate
	case o.AllowEmpty:
		return &d.Evaluation, nil
	}
	if err := d.unmatched(); err != nil {
		return nil, err
	}
	if len(d.Targets) == 0 {
		return nil, d.nothing()
	}
	return &d.Evaluation, nil
}

// what is what was asked for.
func (d *evaluation) what() string {
	switch {
	case d.o.File != "":
		return d.o.File
	case len(d.o.Installables) > 0:
		return strings.Join(d.o.Installables, " ")
	}
	return "."
}

type evaluation struct {
	Evaluation
	eval        Evaluator
	o           Options
	heap        int64
	memoryShare int64    // of the machine's memory for an evaluator, in bytes; 0 if that is not known
	host        []string // path of a NixOS host's target
	globs       []glob
	hits        map[int]bool // globs that have matched something
	// perhaps are globs that may match something of a system that is not wanted.
	perhaps map[int]bool
	closed  []closedEvent
	known   []string        // names that globs might have meant
	seen    map[string]bool // attributes, since installables may overlap
	said    map[string]int  // how often a line was logged

	before   int // attributes in the sources before
	walkedTo int // attributes
	logged   int // lines that evaluators say on their own
}

// A source is what one evaluator can walk through.
type source struct {
	name  string // for messages
	flake string // reference, or empty
	expr  string // else
	base  []string
	roots []root
}

// attr names the value in its flake.
func (s *source) attr() string {
	attr, _ := typed(s.base) // there is none for what can't be named, which Nix then misses
	return fragment(attr)
}

type root struct {
	Path     []string `json:"path"`
	Required bool     `json:"required"`
	Outputs  []string `json:"outputs"` // that are wanted; nil are those that Nix takes by default
}

// sources groups what is asked for, so that what is in one flake is evaluated
// by one evaluator.
func (d *evaluation) sources() []source {
	if d.o.File != "" {
		s := source{name: d.o.File, expr: fileExpr(d.o.File)}
		for _, attr := range d.o.Attrs {
			s.roots = append(s.roots, newRoot(attr, false))
		}
		if len(s.roots) == 0 {
			s.roots = []root{{Path: []string{}, Required: true}}
		}
		return []source{s}
	}
	installables := d.o.Installables
	if len(installables) == 0 {
		installables = []string{"."}
	}
	var sources []source
	for _, installable := range installables {
		ref, attr, _ := strings.Cut(installable, "#")
		if ref == "" {
			ref = "."
		}
		at := slices.IndexFunc(sources, func(s source) bool { return s.flake == ref })
		if at < 0 {
			at = len(sources)
			sources = append(sources, source{name: ref, flake: ref})
		}
		sources[at].roots = append(sources[at].roots, d.flakeRoots(attr)...)
	}
	if d.eval.EvaluatesWholeFlakes() {
		return sources
	}
	// One evaluator for each root, whose first name goes into the installable.
	var single []source
	for _, s := range sources {
		for _, r := range s.roots {
			single = append(single, source{
				name: s.name, flake: s.flake, base: r.Path[:1],
				roots: []root{{Path: r.Path[1:], Required: r.Required, Outputs: r.Outputs}},
			})
		}
	}
	return single
}

// flakeRoots says what an installable's attribute path asks for.
func (d *evaluation) flakeRoots(attr string) []root {
	r := newRoot(attr, true)
	if len(r.Path) == 0 {
		var roots []root
		for _, output := range defaultOutputs {
			roots = append(roots, root{Path: []string{output}, Outputs: r.Outputs})
		}
		return roots
	}
	return []root{r}
}

// chosenOutputs is how an installable ends that names outputs, as Nix has it.
var chosenOutputs = regexp.MustCompile(`\^(\*|[A-Za-z0-9_-]+(?:,[A-Za-z0-9_-]+)*)$`)

// newRoot reads an attribute path, with the outputs that may be chosen: ATTR^OUT,…. That
// of a flake is part of a URL.
func newRoot(attr string, escaped bool) root {
	r := root{Required: true}
	if m := chosenOutputs.FindStringSubmatchIndex(attr); m != nil {
		r.Outputs = strings.Split(attr[m[2]:m[3]], ",")
		attr = attr[:m[0]]
	}
	if text, err := url.PathUnescape(attr); err == nil && escaped {
		attr = text
	}
	r.Path = SplitAttr(attr)
	return r
}

// outputError says that the value of a source can't be evaluated. With an older
// Nix, that may be just one output of a flake.
type outputError struct {
	name string
	err  error
}

func (e *outputError) Error() string { return fmt.Sprintf("evaluate %s: %v", e.name, e.err) }
func (e *outputError) Unwrap() error { return e.err }

// absent says whether evaluation failed only since the value isn't there, when
// it needs not be. Only older versions of Nix must be asked like that.
func (s *source) absent(err error) bool {
	var failed *nix.Error
	return len(s.base) > 0 && !s.roots[0].Required && errors.As(err, &failed) &&
		strings.Contains(failed.Message, "does not provide attribute")
}
