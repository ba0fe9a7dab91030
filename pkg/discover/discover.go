// Package discover turns installables into evaluated targets.
//
// An evaluator that dies of one attribute (missing argument, infinite
// recursion, out of memory) takes no other with it: its traces say which
// attribute it was at, and the next evaluator goes on after that one. See
// discover.nix for the protocol.
package discover

import (
	"context"
	"crypto/rand"
	_ "embed" // for discover.nix
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

//go:embed discover.nix
var walker string

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
	// Progress is told what is being evaluated.
	Progress func(attr string)
	// Log gets what the evaluator says besides, a line at a time.
	Log func(line string)
}

// A Discovery is what was found.
type Discovery struct {
	Targets []job.Target // in the order of discovery, each derivation path or error once per attribute
	Omitted []string     // attribute paths that were left out because of their system
}

// MissingError says that an attribute that was asked for is not there.
type MissingError struct {
	In   string // flake or file
	Attr string
	Have []string // its siblings' names
}

func (e *MissingError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("%s has no attribute %s", e.In, e.Attr)
	}
	const most = 20
	have := e.Have
	more := ""
	if len(have) > most {
		have, more = have[:most], ", …"
	}
	return fmt.Sprintf("%s has no attribute %s; there are: %s%s", e.In, e.Attr, strings.Join(have, ", "), more)
}

// The outputs of a flake that are looked at when no attribute is named.
var defaultOutputs = []string{"nixosConfigurations", "darwinConfigurations", "homeConfigurations", "packages", "checks"}

// Run evaluates everything that the options name. Targets that can't be
// evaluated are in the Discovery as failed; an error means that there is no
// Discovery.
func Run(ctx context.Context, eval Evaluator, o Options) (*Discovery, error) {
	d := &discovery{eval: eval, o: o, seen: map[string]bool{}}
	sources := d.sources()
	var dead error // of the first output that can't be entered at all
	entered := 0
	for _, s := range sources {
		err := d.walk(ctx, s)
		var output *outputError
		switch {
		case errors.As(err, &output) && len(sources) > 1:
			d.failed(s, s.base, output.err)
			dead = err
		case err != nil:
			return nil, err
		default:
			entered++
		}
	}
	if entered == 0 && dead != nil {
		return nil, dead // it is the flake that does not evaluate
	}
	if len(d.Targets) == 0 {
		return nil, d.nothing()
	}
	return &d.Discovery, nil
}

func (d *discovery) nothing() error {
	what := strings.Join(d.o.Installables, " ")
	if d.o.File != "" {
		what = d.o.File
	}
	if what == "" {
		what = "."
	}
	if len(d.Omitted) > 0 {
		return fmt.Errorf("%s has nothing for %s, only %s: name the wanted systems with --systems (input systems)", what, strings.Join(d.o.Systems, ", "), strings.Join(d.Omitted, ", "))
	}
	return fmt.Errorf("there is nothing to build in %s: it has none of %s. Name an attribute, such as .#hydraJobs", what, strings.Join(defaultOutputs, ", "))
}

type discovery struct {
	Discovery
	eval Evaluator
	o    Options
	seen map[string]bool // attributes, since installables may overlap
}

// A source is what one evaluator can walk through.
type source struct {
	name  string // for messages
	flake string // reference, or empty
	expr  string // else
	base  []string
	roots []root
}

type root struct {
	Path     []string `json:"path"`
	Required bool     `json:"required"`
	Outputs  []string `json:"outputs"` // that are wanted; nil are those that Nix takes by default
}

// sources groups what is asked for, so that what is in one flake is evaluated
// by one evaluator.
func (d *discovery) sources() []source {
	if d.o.File != "" {
		s := source{name: d.o.File, expr: fileExpr(d.o.File)}
		for _, attr := range d.o.Attrs {
			s.roots = append(s.roots, newRoot(attr))
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
func (d *discovery) flakeRoots(attr string) []root {
	r := newRoot(attr)
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

// newRoot reads an attribute path, with the outputs that may be chosen: ATTR^OUT,….
func newRoot(attr string) root {
	r := root{Required: true}
	if m := chosenOutputs.FindStringSubmatchIndex(attr); m != nil {
		r.Outputs = strings.Split(attr[m[2]:m[3]], ",")
		attr = attr[:m[0]]
	}
	r.Path = SplitAttr(attr)
	return r
}

func fileExpr(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return "import (/. + " + quote(file) + ")"
}

// walk runs evaluators over a source until one comes to its end.
func (d *discovery) walk(ctx context.Context, s source) error {
	var resume *position
	for {
		w := &walk{discovery: d, source: s, nonce: "nix-matrix-" + strings.ToLower(rand.Text())}
		err := d.eval.Eval(ctx, nix.Evaluation{
			Flake: s.flake,
			Attr:  strings.Join(s.base, "."),
			Expr:  s.expr,
			Apply: "(" + walker + ") " + w.arguments(resume),
		}, w.line)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.err != nil:
			return w.err
		case err == nil:
			return nil
		case !w.inside:
			if s.absent(err) {
				return nil
			}
			return &outputError{s.name, err}
		}
		if !w.at.after(resume) {
			return fmt.Errorf("evaluate %s: the evaluator died twice at %s: %w", s.name, JoinAttr(w.path), err)
		}
		resume = &w.at
		d.failed(s, w.path, err)
	}
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

// A position is how far a walk has come.
type position struct {
	Root int      `json:"root"`
	Path []string `json:"path"` // from the root
}

// after says whether p is behind what q resumes after.
func (p position) after(q *position) bool {
	if q == nil || p.Root != q.Root {
		return q == nil || p.Root > q.Root
	}
	return slices.Compare(p.Path, q.Path) > 0
}

// walk follows one evaluator by its traces.
type walk struct {
	*discovery
	source source
	nonce  string

	at     position
	depth  int      // length of the path of the root
	path   []string // of what is being evaluated, from the outputs
	inside bool     // path is announced and not yet described
	dying  bool
	err    error
}

func (w *walk) arguments(resume *position) string {
	resumeJSON := "null"
	if resume != nil {
		resumeJSON = fromJSON(resume)
	}
	return fmt.Sprintf("{ nonce = %s; systems = %s; currentSystem = %s; resume = %s; base = %s; roots = %s; flake = %t; }",
		quote(w.nonce), fromJSON(w.o.Systems), quote(w.o.System), resumeJSON,
		fromJSON(append([]string{}, w.source.base...)), fromJSON(w.source.roots), w.source.flake != "")
}

// described is what the walker tells about a target.
type described struct {
	Path     []string           `json:"path"`
	DrvPath  string             `json:"drvPath"`
	System   string             `json:"system"`
	Name     string             `json:"name"`
	Outputs  []string           `json:"outputs"`
	OutPaths map[string]*string `json:"outPaths"`
}

// line takes a line of the evaluator's stderr.
func (w *walk) line(line string) bool {
	_, told, ours := strings.Cut(line, w.nonce+" ")
	if !ours {
		// From an error on, what it says ends up in the target or the error.
		w.dying = w.dying || strings.HasPrefix(nix.Plain(line), "error:")
		if !w.dying {
			w.o.Log(nix.Plain(line))
		}
		return false
	}
	event, data, _ := strings.Cut(told, " ")
	if err := w.event(event, []byte(data)); err != nil && w.err == nil {
		w.err = err
	}
	return true
}

func (w *walk) event(event string, data []byte) error {
	switch event {
	case "root":
		var r struct {
			N    int
			Path []string
		}
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		w.at = position{Root: r.N, Path: []string{}}
		w.path, w.inside = r.Path, true
	case "found", "at":
		var path []string
		if err := json.Unmarshal(data, &path); err != nil {
			return err
		}
		w.path, w.inside = path, true
		if event == "found" {
			w.depth = len(path)
		}
		w.at.Path = path[w.depth:]
		w.o.Progress(JoinAttr(path))
	case "target":
		var t described
		if err := json.Unmarshal(data, &t); err != nil {
			return err
		}
		w.inside = false
		w.add(w.source, t)
	case "omit":
		var path []string
		if err := json.Unmarshal(data, &path); err != nil {
			return err
		}
		w.Omitted = append(w.Omitted, JoinAttr(path))
	case "missing":
		var m struct{ Path, Have []string }
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		return &MissingError{In: w.source.name, Attr: JoinAttr(m.Path), Have: m.Have}
	default:
		return fmt.Errorf("the walker said %q", event)
	}
	return nil
}

// add records a target.
func (d *discovery) add(s source, found described) {
	t := classify(found.Path, found.Name)
	if d.seen[s.name+"#"+t.Attr] {
		return
	}
	d.seen[s.name+"#"+t.Attr] = true
	if !slices.Contains(d.o.Systems, found.System) {
		d.Omitted = append(d.Omitted, t.Attr)
		return
	}
	t.State = job.Build
	t.System = found.System
	t.DrvPath = found.DrvPath
	t.Outputs = found.Outputs
	t.OutPaths = map[string]string{}
	for name, path := range found.OutPaths {
		// What is not known before the build is a placeholder.
		if path != nil && strings.HasPrefix(*path, "/nix/store/") {
			t.OutPaths[name] = *path
		}
	}
	t.Reproduce = d.reproduce(s, t.Attr)
	d.Targets = append(d.Targets, t)
}

// failed records a target, or a set of them, that can't be evaluated.
func (d *discovery) failed(s source, path []string, err error) {
	t := classify(path, "")
	if d.seen[s.name+"#"+t.Attr] {
		return
	}
	d.seen[s.name+"#"+t.Attr] = true
	t.State = job.Failed
	t.Error = err.Error()
	var failed *nix.Error
	if errors.As(err, &failed) {
		t.Error = failed.Message
	}
	t.Reproduce = d.reproduce(s, t.Attr)
	d.Targets = append(d.Targets, t)
}

// reproduce says what to type to build a target at home.
func (d *discovery) reproduce(s source, attr string) string {
	if s.flake == "" {
		if attr == "" {
			return "nix-build " + shellQuote(d.o.File)
		}
		return "nix-build " + shellQuote(d.o.File) + " -A " + shellQuote(attr)
	}
	return "nix build " + shellQuote(s.flake+"#"+attr)
}
