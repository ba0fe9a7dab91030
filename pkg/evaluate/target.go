package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A record is what became of a position.
type record struct {
	at      position
	path    []string // of the attribute, as the user sees it
	target  job.Target
	omitted bool   // in place of a target, because of the system
	passed  string // in place of a target, what is no derivation
	meta    json.RawMessage
}

// collect takes what the evaluators of a source have found, in the order of the
// walk, whoever found it when. An attribute counts once, by its path: what is shown of
// one may be cut.
func (d *evaluation) collect(s source, records []record) {
	slices.SortStableFunc(records, func(a, b record) int { return a.at.compare(b.at) })
	for _, r := range records {
		key := fmt.Sprintf("%q %q", s.name, d.whole(r.path))
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
		}
		d.seen[key] = true
	}
}

// described is what the walker tells about a target.
type described struct {
	DrvPath  string             `json:"drvPath"`
	System   string             `json:"system"`
	Outputs  []string           `json:"outputs"`
	OutPaths map[string]*string `json:"outPaths"`
}

// target makes a target of what was found.
func (d *evaluation) target(s source, path []string, name string, found described) job.Target {
	t := d.classify(path, name)
	t.State = job.StateBuild
	t.System = found.System
	t.DrvPath = found.DrvPath
	t.Outputs = found.Outputs
	t.OutPaths = map[string]string{}
	for name, path := range found.OutPaths {
		if path != nil && !placeholder.MatchString(*path) {
			t.OutPaths[name] = *path
		}
	}
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// placeholder is what stands for the path of an output that is known only after the build.
var placeholder = regexp.MustCompile(`^/[0-9a-df-np-sv-z]{52}$`)

// gate gives a target that can stand in a Plan, as all can that are in a Evaluation: one
// that has something odd has failed.
func gate(t job.Target) job.Target {
	err := t.Check()
	if err == nil {
		return t
	}
	return job.Target{
		Attr: text.Clip(t.Attr, maxShown), Name: text.Clip(t.Name, maxShown), Kind: t.Kind, Host: text.Clip(t.Host, maxShown), State: job.StateFailed, Reproduce: t.Reproduce,
		Error: fmt.Sprintf("it can't be a target: %v. Correct the attribute, or leave it out with --exclude (input exclude)", err),
	}
}

// builtOn is the system whose runners build for a system. What Nix builds itself, such as
// its fetchurl, is built anywhere.
func (d *evaluation) builtOn(system string) string {
	if system != "builtin" || len(d.o.Systems) == 0 {
		return system
	}
	if slices.Contains(d.o.Systems, d.o.System) {
		return d.o.System
	}
	return d.o.Systems[0]
}

// shown is an attribute path as a message has it.
func shown(path []string) string { return text.Clip(JoinAttr(path), maxShown) }

// maxShown is how many bytes of a foreign text a message may have.
const maxShown = 300

// refused makes a target of a package that is not to be built.
func (d *evaluation) refused(s source, path []string, name, system, reason string) job.Target {
	t := d.classify(path, name)
	t.State = job.StateSkip
	t.Refused, t.Reason = true, "because it "+reason
	t.System = system
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// failed makes a target, or one that stands for a set of them, of what can't be
// evaluated.
func (d *evaluation) failed(s source, path []string, name string, err error) job.Target {
	t := d.classify(path, name)
	t.State = job.StateFailed
	message, secret := d.message(err)
	message = strings.ToValidUTF8(fmt.Sprintf("%.15000s", message), "\ufffd") // it may quote what is no text
	t.Error, t.NeedsSecret = message+advice(s.flake, message), secret
	t.Reproduce = d.reproduce(s, path)
	return gate(t)
}

// message returns why an evaluator failed, and the input whose secret is missing where that
// is the reason.
func (d *evaluation) message(err error) (message, secret string) {
	var failed *nix.Error
	switch {
	case errors.Is(err, errTimeout):
		return "evaluation took longer than " + duration(d.o.Timeout), ""
	case !errors.As(err, &failed):
		return err.Error(), ""
	case errors.Is(err, nix.ErrMemory):
		return failed.Message + "; raise eval_memory", ""
	}
	message = strings.TrimSpace(ours.ReplaceAllLiteralString(failed.Message, ""))
	if d.o.Explain != nil {
		if why := d.o.Explain(failed); why.Text != "" {
			return why.Text + "\n" + message, why.NeedsSecret
		}
	}
	return message, ""
}

// ours is a place in evaluate.nix, and an excerpt from it, which is none of the user's
// business.
var ours = regexp.MustCompile(`(?m)^\s*at «string»:\d+:\d+:\n?(?:^ *\d* *\|.*\n?|^\s*$\n?)*`)

// duration gives a time without its zeros: "10m".
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

// What Nixpkgs says of a package that it does not let evaluate, now and before 2026:
// "Refusing to evaluate package 'x' in FILE because it is marked as broken", and
// "Package ‘x’ in FILE is marked as broken, refusing to evaluate." The package may be
// one that the target depends on.
var refusal = regexp.MustCompile(`(?s)[Pp]ackage ['‘](.+?)['’] in (.+?),?(?: because it)? (is marked as broken|has an unfree license(?: \(‘[^’\n]*’\))?|` +
	`has a blocklisted license(?: \(‘[^’\n]*’\))?|contains elements not built from source(?: \(‘[^’\n]*’\))?|` +
	`is not available on the requested hostPlatform|is not supported on [^\n,]*|is marked as insecure)`)

// refusedFor finds in a message why a package is not to be built that is defined at a
// position, or has a name, if its position is not known. Nothing is found if the message
// is about another package, which the user's needs and which may have the same name.
func refusedFor(message, name, position, system string) (reason string, ok bool) {
	m := refusal.FindStringSubmatch(message)
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

// about is what a package says of itself.
type about struct {
	Description []string `json:"description"`
	Features    []string `json:"features"`
	Runner      []string `json:"runner"`
}

func (a *about) describe(t *job.Target) {
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

// reproduce says what to type to build a target elsewhere, nothing where a command line
// can't say it.
func (d *evaluation) reproduce(s source, path []string) string {
	attr, ok := typed(d.whole(path))
	if !ok {
		return ""
	}
	command := d.command(s, attr)
	if len(command) > job.MaxText {
		return ""
	}
	return command
}

func (d *evaluation) command(s source, attr string) string {
	if s.flake != "" {
		return "nix build " + shellQuote(s.flake+"#"+fragment(attr))
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

// arguments makes a Nix set of the arguments for functions.
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
