package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A record is the result of a position.
type record struct {
	at      position
	path    []string // of the attribute, as shown to the user
	target  job.Target
	omitted bool   // in place of a target, because of the system
	passed  string // in place of a target, a value that is no derivation
	meta    json.RawMessage
	odd     []string // values in meta.nixMatrix that are ignored
}

// collect adds the records of a source to the evaluation, in the order of the walk. An
// attribute counts once, by its full path, because the text that is shown may be cut.
func (d *evaluation) collect(s source, records []record) {
	slices.SortStableFunc(records, func(a, b record) int { return a.at.compare(b.at) })
	for _, r := range records {
		key := fmt.Sprintf("%q %q", s.name, d.fullPath(r.path))
		switch {
		case r.passed != "":
			key = r.passed
		case r.omitted:
			key = fmt.Sprintf("%q", r.path)
		}
		switch {
		case d.seen[key]:
			continue
		case r.passed != "":
			d.Passed = append(d.Passed, r.passed)
		case r.omitted || r.target.System != "" && !slices.Contains(d.o.Systems, r.target.System):
			d.Omitted = append(d.Omitted, shown(r.path))
		default:
			d.Targets = append(d.Targets, r.target)
			d.Meta = append(d.Meta, r.meta)
			d.Odd = append(d.Odd, r.odd...)
		}
		d.seen[key] = true
	}
}

// targetEvent describes a target.
type targetEvent struct {
	DrvPath  string             `json:"drvPath"`
	System   string             `json:"system"`
	Outputs  []string           `json:"outputs"`
	OutPaths map[string]*string `json:"outPaths"`
}

// target returns a target to build.
func (d *evaluation) target(s source, path []string, name string, found targetEvent) job.Target {
	t := d.classify(s, path, name)
	t.State = job.StateBuild
	t.System = found.System
	t.DrvPath = found.DrvPath
	t.Outputs = found.Outputs
	t.OutPaths = map[string]string{}
	for name, path := range found.OutPaths {
		if path != nil && !placeholder().MatchString(*path) {
			t.OutPaths[name] = *path
		}
	}
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// placeholder matches Nix's placeholder for an output path that is known only after the build.
var placeholder = lazyregexp.New(`^/[0-9a-df-np-sv-z]{52}$`)

// gate returns a target that passes the checks of a Plan, as all targets of an Evaluation do:
// an invalid one becomes a failed one.
func gate(t job.Target) job.Target {
	err := t.Check()
	if err == nil {
		return t
	}
	return job.Target{
		Flake: t.Flake, Attr: text.Clip(t.Attr, maxShown), Name: text.Clip(t.Name, maxShown), Kind: t.Kind, Host: text.Clip(t.Host, maxShown), State: job.StateFailed, Reproduce: t.Reproduce,
		Error: fmt.Sprintf("invalid target: %v. Correct the attribute, or leave it out with --exclude (input exclude)", err),
	}
}

// runnerSystem returns the system of the runners that build for a system. Derivations with a
// builder of Nix's own, such as its fetchurl, can be built on any.
func (d *evaluation) runnerSystem(system string) string {
	if system != "builtin" || len(d.o.Systems) == 0 {
		return system
	}
	if slices.Contains(d.o.Systems, d.o.System) {
		return d.o.System
	}
	return d.o.Systems[0]
}

// shown returns an attribute path for a message.
func shown(path []string) string { return text.Clip(JoinAttr(path), maxShown) }

// maxShown is the most bytes of a foreign text in a message.
const maxShown = 300

// refused returns a skipped target for a package that forbids to build it, or does not want it.
func (d *evaluation) refused(s source, path []string, name, system, reason string) job.Target {
	t := d.classify(s, path, name)
	t.State = job.StateSkip
	t.Refused, t.Reason = true, reason
	t.System = system
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// failed returns a failed target for an attribute, or a set of them, that cannot be evaluated.
func (d *evaluation) failed(s source, path []string, name string, err error) job.Target {
	t := d.classify(s, path, name)
	t.State = job.StateFailed
	message, secret := d.message(err)
	message = strings.ToValidUTF8(fmt.Sprintf("%.15000s", message), "\ufffd") // it may quote binary data
	t.Error, t.NeedsSecret = message+advice(s.flake, message), secret
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// message returns why an evaluator failed, and the input whose secret is missing if that is
// the cause.
func (d *evaluation) message(err error) (message, secret string) {
	var failed *nix.Error
	switch {
	case errors.Is(err, errTimeout):
		return "evaluation took longer than " + duration(d.o.Timeout), ""
	case !errors.As(err, &failed):
		return err.Error(), ""
	case errors.Is(err, nix.ErrMemory):
		return failed.Message + ". Raise eval_memory", ""
	}
	message = strings.TrimSpace(walkerFrames().ReplaceAllLiteralString(failed.Message, ""))
	if d.o.Explain != nil {
		if why := d.o.Explain(failed); why.Text != "" {
			return why.Text + "\n" + message, why.NeedsSecret
		}
	}
	return message, ""
}

// walkerFrames matches positions in evaluate.nix with excerpts from it, which are of no use to
// the user.
var walkerFrames = lazyregexp.New(`(?m)^\s*at «string»:\d+:\d+:\n?(?:^ *\d* *\|.*\n?|^\s*$\n?)*`)

// duration returns a time without its zeros: "10m".
func duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// refusal matches Nixpkgs' message about a package that it refuses to evaluate, now and before 2026:
// "Refusing to evaluate package 'x' in FILE because it is marked as broken", and
// "Package ‘x’ in FILE is marked as broken, refusing to evaluate." The package may be
// one that the target depends on.
var refusal = lazyregexp.New(`(?s)[Pp]ackage ['‘](.+?)['’] in (.+?),?(?: because it)? (is marked as broken|has an unfree license(?: \(‘[^’\n]*’\))?|` +
	`has a blocklisted license(?: \(‘[^’\n]*’\))?|contains elements not built from source(?: \(‘[^’\n]*’\))?|` +
	`is not available on the requested hostPlatform|is not supported on [^\n,]*|is marked as insecure)`)

// refusedFor returns why a message refuses the package at a position, or with a name if its
// position is not known. ok is false if the message is about another package, which the target
// needs and which may have the same name.
func refusedFor(message, name, position, system string) (reason string, ok bool) {
	m := refusal().FindStringSubmatch(message)
	if m == nil || !strings.Contains(message, "efus") {
		return "", false
	}
	if own := position != "" && m[2] == position || position == "" && m[1] == name; !own {
		return "", false
	}
	if strings.HasPrefix(m[3], "is not available") {
		return "is not available on " + system, true
	}
	return m[3], true
}

// aboutEvent is a package's own description.
type aboutEvent struct {
	Description []string `json:"description"`
	Features    []string `json:"features"`
	Runner      []string `json:"runner"`
	// Asked has the fields of meta.nixMatrix.
	Asked map[string]askedField `json:"asked"`
}

func (a *aboutEvent) describe(t *job.Target) {
	t.Description = text.Words(strings.Join(a.Description, " "))
	if runes := []rune(t.Description); len(runes) > job.MaxDescription {
		t.Description = strings.TrimSpace(string(runes[:job.MaxDescription-1])) + "…"
	}
	t.Features = strings.Fields(text.Words(strings.Join(a.Features, " ")))
	for _, label := range a.Runner {
		if label = text.Words(label); label != "" {
			t.Runner = append(t.Runner, label)
		}
	}
}

// reproduce returns the command that builds a target locally, "" where there is none.
func (d *evaluation) reproduce(s source, path []string) string {
	attr, ok := commandAttr(d.fullPath(path))
	if !ok {
		return ""
	}
	command := d.command(s, attr)
	if len(command) > job.MaxText {
		return ""
	}
	return command
}

// nameExactly adds a dot before attribute paths in the commands that reproduce targets, where Nix
// would find another one: it looks for a path among the packages of this system first.
func (p *pool) nameExactly() {
	if p.source.flake == "" || !p.eval.EvaluatesWholeFlakes() { // older versions know no such dot
		return
	}
	packages := map[string]bool{}
	for _, at := range p.items {
		path := slices.Concat(p.source.base, p.source.roots[at.root].Path, at.path)
		if len(path) > 2 && (path[0] == "packages" || path[0] == "legacyPackages") && path[1] == p.o.System {
			packages[path[2]] = true
		}
	}
	for i := range p.records {
		r := &p.records[i]
		if len(r.path) > 0 && (packages[r.path[0]] || p.shadowed[r.at.root]) && len(r.target.Reproduce) < job.MaxText {
			r.target.Reproduce = strings.Replace(r.target.Reproduce, "#", "#.", 1)
		}
	}
}

func (d *evaluation) command(s source, attr string) string {
	if s.flake != "" {
		command := "nix build " + shellQuote(s.flake+"#"+fragment(attr))
		if d.o.LockFlags != nil {
			for _, word := range d.o.LockFlags(s.flake) {
				command += " " + shellQuote(word)
			}
		}
		return command
	}
	command := "nix-build " + shellQuote(d.o.File)
	if attr != "" {
		command += " -A " + shellQuote(attr)
	}
	for _, arg := range d.o.Args {
		command += " --arg " + shellQuote(arg.Name) + " " + shellQuote(arg.Value)
	}
	for _, arg := range d.o.ArgStrs {
		command += " --argstr " + shellQuote(arg.Name) + " " + shellQuote(arg.Value)
	}
	for _, entry := range d.o.NixPath {
		command += " -I " + shellQuote(entry)
	}
	return command
}

// arguments returns a Nix set of the arguments for functions.
func (d *evaluation) arguments() string {
	var set strings.Builder
	set.WriteString("{ ")
	for _, arg := range d.o.Args {
		fmt.Fprintf(&set, "%s = (%s\n); ", quote(arg.Name), arg.Value)
	}
	for _, arg := range d.o.ArgStrs {
		fmt.Fprintf(&set, "%s = %s; ", quote(arg.Name), quote(arg.Value))
	}
	set.WriteString("}")
	return set.String()
}

// A hostName is how the names of derivations of whole hosts begin, under any attribute.
type hostName struct {
	prefix string
	kind   job.Kind
}

var hostNames = []hostName{
	{"nixos-system-", job.NixOS},
	{"darwin-system-", job.Darwin},
	{"home-manager-generation", job.Home},
}

// hostPath returns the path of a host's target below its configuration.
func hostPath(attr string) []string {
	path := SplitAttr(attr)
	switch len(path) {
	case 0:
		path = []string{"toplevel"}
		fallthrough
	case 1:
		return append([]string{"config", "system", "build"}, path...)
	}
	return path
}

// fullPath returns the attribute path of a target. An evaluator that ended early knows only the
// beginning of it for a host.
func (d *evaluation) fullPath(path []string) []string {
	if len(path) == 2 {
		if out, ok := hostOutputs[path[0]]; ok && out.within == "" {
			return slices.Concat(path, d.hostSuffix(path[0]))
		}
	}
	return path
}

// hostSuffix returns the part of a target's path after the host's name.
func (d *evaluation) hostSuffix(output string) []string {
	if suffix := hostOutputs[output].suffix; suffix != nil {
		return suffix
	}
	return d.host
}

// hostIn returns the set of hosts that an attribute path leads through and the length of the
// host's own path, if the path is that of a host's target.
func (d *evaluation) hostIn(path []string) (set string, length int) {
	for i, name := range path {
		out, ok := hostOutputs[name]
		if !ok {
			continue
		}
		rest := path[i+1:]
		if out.within != "" && (len(rest) == 0 || rest[0] != out.within) {
			continue
		} else if out.within != "" {
			rest = rest[1:]
		}
		suffix := d.hostSuffix(name)
		if len(rest) == 1+len(suffix) && slices.EqualFunc(rest[1:], suffix, func(name, want string) bool { return want == anyName || name == want }) {
			return name, len(path) - len(suffix)
		}
	}
	return "", 0
}

// classify returns a target of a source with names and kind by its attribute path and the derivation's name.
func (d *evaluation) classify(s source, path []string, drvName string) job.Target {
	path = d.fullPath(path)
	t := job.Target{Attr: JoinAttr(path), Kind: job.Other}
	if d.severalFlakes {
		t.Flake = text.Line(nix.Redact(s.flake))
	}
	if len(path) == 0 { // a file that is a derivation
		path = []string{drvName}
	}
	t.Name = JoinAttr(path)
	host := func(kind job.Kind, name []string) {
		t.Kind = kind
		t.Name = JoinAttr(name)
		if t.Host = name[len(name)-1]; !printable(t.Host) {
			t.Host = strconv.Quote(t.Host)
		}
	}
	drvName = strings.TrimPrefix(drvName, "activatable-") // of deploy-rs
	named := slices.IndexFunc(hostNames, func(h hostName) bool { return strings.HasPrefix(drvName, h.prefix) })
	set, length := d.hostIn(path)
	top, known := hostOutputs[path[0]]
	kind := hostOutputs[set].kind
	switch {
	case set == "deploy":
		if named >= 0 {
			kind = hostNames[named].kind
		}
		host(kind, path[:length])
		t.Node = t.Name
		if name := path[length+1]; name != mainProfile {
			t.Name = JoinAttr(path[:len(path)-1])
		}
	case set != "":
		host(kind, path[:length])
	case path[0] == "packages", path[0] == "legacyPackages":
		t.Kind = job.Package
	case path[0] == "checks":
		t.Kind = job.Check
	case named >= 0 && (!known || top.within != ""):
		host(hostNames[named].kind, machine(path))
	}
	return t
}

// hostSuffixes are the paths from a machine's or a home's configuration to its derivation, in
// any set.
var hostSuffixes = [][]string{
	{"config", "system", "build", "toplevel"},
	{"config", "home", "activationPackage"},
	{"activationPackage"},
}

// machine returns the path of the configuration that a host's derivation belongs to.
func machine(path []string) []string {
	for _, suffix := range hostSuffixes {
		if at := len(path) - len(suffix); at > 0 && slices.Equal(path[at:], suffix) {
			return path[:at]
		}
	}
	return path
}

// anyName stands for one name in a suffix.
const anyName = "*"

// profile is the path from a node of deploy-rs to a profile, which is one of several: what is
// activated on the node, and mainProfile is its system.
var profile = []string{"profiles", anyName, "path"}

const mainProfile = "system"

// hostOutputs are the sets that hold hosts, in the outputs of a flake and below them, or in the
// set within one, and what follows the host's name in the attribute path of its target.
var hostOutputs = map[string]struct {
	kind   job.Kind
	within string
	suffix []string // nil: from the options
}{
	"nixosConfigurations":  {job.NixOS, "", nil},
	"darwinConfigurations": {job.Darwin, "", []string{"system"}},
	"homeConfigurations":   {job.Home, "", []string{"activationPackage"}},
	"deploy":               {job.NixOS, "nodes", profile},
	"colmenaHive":          {job.NixOS, "nodes", nil},
}
