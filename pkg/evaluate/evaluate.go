// Package evaluate turns installables into evaluated targets.
//
// Evaluators walk through the requested values and report their progress by traces;
// evaluate.nix has the protocol. The walk begins with one evaluator. When much of it is left,
// others take parts (pool.go): one evaluator evaluates the common dependencies of two
// attributes only once, but two evaluators use two cores. An evaluator that dies of an
// attribute (missing argument, infinite recursion, out of memory) harms no other attribute:
// the next evaluator continues after it.
package evaluate

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

//go:embed *.nix
var nixFiles embed.FS

// walker returns the program of an evaluator: the function in evaluate.nix, applied to the values
// of the other files.
func walker() string {
	files, err := nixFiles.ReadDir(".")
	if err != nil {
		panic(err) // they are embedded
	}
	parts := ""
	for _, file := range files {
		if name := strings.TrimSuffix(file.Name(), ".nix"); name != "evaluate" {
			parts += name + " = (" + nixFile(name) + ");\n"
		}
	}
	return "(" + nixFile("evaluate") + ") {\n" + parts + "}"
}

func nixFile(name string) string {
	data, err := nixFiles.ReadFile(name + ".nix")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(data)
}

// Evaluator is what a discovery needs of Nix.
type Evaluator interface {
	Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error
	EvaluatesWholeFlakes() bool
}

// Options select the targets to evaluate, and set limits.
type Options struct {
	Installables []string // FLAKE[#ATTR]; none is the flake in the working directory
	File         string   // a Nix file, instead of installables
	Attrs        []string // attribute paths in File; none is all of it
	Systems      []string // wanted; others are left out
	System       string   // of this machine

	Args    []Arg    // for functions in File, as nix-build's --arg
	ArgStrs []Arg    // likewise with texts as values: --argstr
	NixPath []string // entries of the search path for File, NAME=PATH

	// LockFlags returns the flags with which nix build takes the same inputs of a flake as the
	// evaluators do. It may be nil.
	LockFlags func(flake string) []string

	// HostAttr is the path of a NixOS host's target below its configuration. A single
	// name, such as "vm" or "sdImage", is one in config.system.build. Empty is the toplevel.
	HostAttr string

	// Include and Exclude have globs on dotted attribute paths, as targets are named:
	// "*" is anything within a name, "**" any number of names. A glob covers the attributes
	// that it matches and all below them. No Include is everything. Excluded attributes are
	// not evaluated.
	Include, Exclude []string
	// AllowEmpty says that it is no error if a glob matches nothing, or if there is nothing
	// to build.
	AllowEmpty bool

	// UsesFlakeCaches says that the binary caches in the nixConfig of the flakes are used, although
	// Nix itself ignores them.
	UsesFlakeCaches bool

	// Meta asks for the meta of packages, which costs some time.
	Meta bool

	Workers     int           // evaluators at once; 0 is DefaultWorkers of this machine
	Timeout     time.Duration // for the evaluation of an attribute; 0 is none
	MemoryLimit int64         // bytes that an evaluator may use; 0 is no limit

	// Progress is called with the attribute that is being evaluated. It may be nil.
	Progress func(attr string)
	// Counted is called with the number of attributes that are done, and of those that are
	// known so far. It may be nil. None of these functions is called while one of them runs.
	Counted func(done, total int)
	// Explain returns why an evaluator failed, if it knows. It may be nil.
	Explain func(*nix.Error) Explanation
	// Log is called with each other line that the evaluators print, once for a line that
	// several of them print. It may be nil.
	Log func(line string)
}

// An Explanation says why an evaluator failed. It is empty if the cause is not known.
type Explanation struct {
	Text        string // a line, to put before the message of a target
	NeedsSecret string // the input whose secret is missing; empty for other causes
}

// An Arg is an argument for functions: an expression, or a text.
type Arg struct{ Name, Value string }

// DefaultWorkers returns the number of evaluators for a machine with so many cores and so
// much memory, in bytes. Memory is 0 where it is not known.
func DefaultWorkers(cores int, memory int64) int {
	const each = 3 << 30 // enough for the configurations of a few hosts
	fit := memory / each
	if memory == 0 {
		fit = 2
	}
	return max(1, min(cores, int(fit)))
}

// An Evaluation is the result of Run.
type Evaluation struct {
	Targets []job.Target // in the order of discovery, each attribute once
	Omitted []string     // attribute paths that were left out because of their system
	Passed  []string     // other values where derivations are expected: "packages.x86_64-linux.f (a function)"

	// Incomplete says that evaluators ended in the middle of something that is no target's
	// failure, so that another run may find more.
	Incomplete bool

	// Meta has the plain data in the meta of each target, as JSON of at most about 64 KiB:
	// without values that throw, functions, derivations and large values. It is empty where
	// there is no meta, where its evaluation aborts, and without Options.Meta.
	Meta []json.RawMessage

	// Odd are values in meta.nixMatrix that are ignored, because they are none that the field
	// may have: "meta.nixMatrix.timeout of packages.x86_64-linux.a (a list, not a time …)".
	Odd []string
}

// MissingError says that a requested attribute does not exist.
type MissingError struct {
	In   string // flake or file
	Attr string
	Have []string // its siblings' names

	Nearest string // the likeliest name, or empty
}

func (e *MissingError) Error() string {
	message := fmt.Sprintf("%s has no attribute %s", e.In, e.Attr)
	if e.Nearest != "" {
		message += " (did you mean " + e.Nearest + "?)"
	}
	if len(e.Have) == 0 {
		return message
	}
	return message + "; there are: " + someOf(e.Have)
}

// shownNames returns names of attributes for a message.
func shownNames(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = shown([]string{name})
	}
	return all
}

// someOf returns the first of many names, and the number of the others.
func someOf(names []string) string { return text.Some(names, 20) }

// ArgumentsError says that a requested value is a function that lacks arguments.
type ArgumentsError struct {
	In    string // file, or an attribute in it
	Needs []string
}

func (e *ArgumentsError) Error() string {
	return fmt.Sprintf("%s is a function that needs the argument %s. Set it with --arg %s EXPR or --argstr %s TEXT",
		e.In, strings.Join(e.Needs, ", "), e.Needs[0], e.Needs[0])
}

// defaultOutputs are the outputs of a flake that are evaluated if no attribute is named.
var defaultOutputs = []string{"nixosConfigurations", "darwinConfigurations", "homeConfigurations", "packages", "checks", "devShells", "formatter"}

// Run evaluates everything that the options select. Targets that cannot be evaluated are in
// the Evaluation as failed, those whose packages forbid to build them as skipped; an error
// means that there is no Evaluation.
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
		o.Log(describeEvaluators(o.Workers, o.MemoryLimit, memory))
	}
	d := &evaluation{
		eval: eval, o: o, severalFlakes: len(o.Flakes()) > 1, initialHeap: initialHeap(share, o.MemoryLimit), memoryShare: share, host: hostPath(o.HostAttr), globs: globs,
		hits: map[int]bool{}, maybe: map[int]bool{}, seen: map[string]bool{}, lineCounts: map[string]int{},
	}
	defer d.logNoise()
	sources := d.sources()
	var dead error // of the last output that cannot be entered at all
	entered := 0
	for _, s := range sources {
		if d.excluded(s.base) {
			continue
		}
		p := newPool(d, s)
		err := p.run(ctx)
		var output *outputError
		switch {
		case errors.As(err, &output) && len(sources) > 1:
			p.records = []record{{path: s.base, target: d.failed(s, s.base, "", output.err)}}
			for _, g := range d.globs { // they may match something in it
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
		p.nameExactly()
		d.collect(s, p.records)
	}
	switch {
	case entered == 0 && dead != nil:
		return nil, dead // the flake does not evaluate
	case o.AllowEmpty:
		return &d.Evaluation, nil
	}
	if err := d.unmatched(); err != nil {
		return nil, err
	}
	if len(d.Targets) == 0 {
		return nil, d.nothingFound()
	}
	return &d.Evaluation, nil
}

// request returns the request, for a message.
func (d *evaluation) request() string {
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
	initialHeap int64
	memoryShare int64 // of the machine's memory for an evaluator, in bytes; 0 if not known
	// severalFlakes says that targets say which flake they are of.
	severalFlakes bool
	host          []string // path of a NixOS host's target
	globs         []glob
	hits          map[int]bool // globs that have matched something
	maybe         map[int]bool // globs that may match something of an omitted system
	closed        []closedEvent
	known         []string        // names, to suggest for a glob that matches nothing
	seen          map[string]bool // attributes, since installables may overlap
	lineCounts    map[string]int  // how often a line was logged

	before     int      // attributes in the sources before this one
	attributes int      // that were announced
	logged     int      // lines that evaluators printed of their own
	fetched    int      // paths that came from substituters
	ignored    []string // settings in nixConfig
}

// A source is a value that one evaluator can walk through.
type source struct {
	name  string // for messages
	flake string // reference, or empty
	expr  string // else
	base  []string
	roots []root
}

// attr returns the attribute path of the value in its flake.
func (s *source) attr() string {
	attr, _ := commandAttr(s.base) // empty if Nix has no syntax for it: Nix then reports it missing
	return fragment(attr)
}

type root struct {
	Path     []string `json:"path"`
	Required bool     `json:"required"`
	Outputs  []string `json:"outputs"` // that are wanted; nil: those that Nix takes by default
}

// sources groups the request by flake, so that one evaluator can evaluate all of a flake.
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

// flakeRoots returns the roots that an installable's attribute path asks for.
func (d *evaluation) flakeRoots(attr string) []root {
	r := newRoot(attr, true)
	if len(r.Path) == 0 {
		var roots []root
		outputs := slices.Clone(defaultOutputs)
		for i := range d.globs {
			if output, ok := d.globs[i].output(); ok && !slices.Contains(outputs, output) {
				outputs = append(outputs, output)
			}
		}
		for _, output := range outputs {
			roots = append(roots, root{Path: []string{output}, Outputs: r.Outputs})
		}
		return roots
	}
	return []root{r}
}

// chosenOutputs matches the end of an installable that names outputs, in Nix's syntax.
var chosenOutputs = lazyregexp.New(`\^(\*|[A-Za-z0-9_-]+(?:,[A-Za-z0-9_-]+)*)$`)

// newRoot parses an attribute path, with or without outputs: ATTR^OUT,…. It is escaped in a
// flake reference, which is a URL.
func newRoot(attr string, escaped bool) root {
	r := root{Required: true}
	if m := chosenOutputs().FindStringSubmatchIndex(attr); m != nil {
		r.Outputs = strings.Split(attr[m[2]:m[3]], ",")
		attr = attr[:m[0]]
	}
	if text, err := url.PathUnescape(attr); err == nil && escaped {
		attr = text
	}
	r.Path = SplitAttr(attr)
	return r
}

// outputError says that the value of a source cannot be evaluated. With an older Nix, that
// may be just one output of a flake.
type outputError struct {
	name string
	err  error
}

func (e *outputError) Error() string { return fmt.Sprintf("cannot evaluate %s: %v", e.name, e.err) }
func (e *outputError) Unwrap() error { return e.err }

// absent reports whether an evaluation failed only because an optional value does not exist.
// Only older versions of Nix fail like that.
func (s *source) absent(err error) bool {
	var failed *nix.Error
	return len(s.base) > 0 && !s.roots[0].Required && errors.As(err, &failed) &&
		strings.Contains(failed.Message, "does not provide attribute")
}
