package evaluate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// hostile are values that must not become an argument.
var hostile = []string{
	"--plugin-files", "-x.drv", "a b", "a\nb", "a\x00b", "\x1b[2J\x1b]0;x\x07", "../a", "/etc/passwd", storeX + "/../b.drv", "${x}", "$(id)", `"`, "'", "!", "a^out", "\u202e",
	strings.Repeat("a", 1<<20),
}

// fakeEvaluator prints the events of a walker for each source.
type fakeEvaluator struct {
	events []string      // KIND JSON
	each   time.Duration // before an event
}

var nonceArgument = regexp.MustCompile(`nonce = "([^"]+)"`)

func (f *fakeEvaluator) Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error {
	nonce := nonceArgument.FindStringSubmatch(e.Apply)[1]
	for _, event := range f.events {
		if f.each > 0 {
			select {
			case <-ctx.Done():
				f.events = nil // the next one would begin anew
				return context.Cause(ctx)
			case <-time.After(f.each):
			}
		}
		line("trace: " + nonce + " " + event)
	}
	return nil
}

func (*fakeEvaluator) EvaluatesWholeFlakes() bool { return true }

// attribute returns the events about an attribute of packages.x86_64-linux.
type attribute map[string]any

func (a attribute) events(t *testing.T) (events []string) {
	say := func(kind string, data any) {
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, kind+" "+string(text))
	}
	path := []any{"packages", "x86_64-linux", a["attr"]}
	say("at", map[string]any{"path": path, "wanted": true})
	say("named", map[string]any{"path": path, "name": a["name"], "system": a["system"]})
	say("target", map[string]any{"drvPath": a["drvPath"], "system": a["system"], "outputs": a["outputs"], "outPaths": a["outPaths"]})
	say("about", map[string]any{"description": a["description"], "features": a["features"], "runner": a["runner"]})
	return events
}

func healthy(attr string) attribute {
	return attribute{
		"attr": attr, "name": "x", "system": "x86_64-linux", "drvPath": storeX + ".drv", "outputs": []any{"out"}, "outPaths": map[string]any{"out": storeX},
		"description": []any{"about"}, "features": []any{"kvm"}, "runner": []any{"big"},
	}
}

// found returns the targets of an attribute and its neighbour.
func found(t *testing.T, odd attribute) job.Target {
	t.Helper()
	neighbour := healthy("zz")
	names, err := json.Marshal([]any{odd["attr"], "zz"})
	if err != nil {
		t.Fatal(err)
	}
	events := []string{
		`root {"n":3,"path":["packages"]}`, `found {"path":["packages"],"wanted":true}`,
		`names ["x86_64-linux"]`, `entered {"path":["packages"]}`, "names " + string(names), `entered {"path":["packages","x86_64-linux"]}`,
	}
	events = slices.Concat(events, odd.events(t), neighbour.events(t), []string{"done null"})
	d, err := Run(t.Context(), &fakeEvaluator{events: events}, Options{Systems: []string{"x86_64-linux"}, System: "x86_64-linux"})
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, d)
	zz := slices.IndexFunc(d.Targets, func(t job.Target) bool { return t.Name == "packages.x86_64-linux.zz" })
	if len(d.Targets) != 2 || zz < 0 || d.Targets[zz].State != job.StateBuild {
		t.Fatalf("the neighbour does not live: %.1000s", fmt.Sprint(d.Targets))
	}
	return d.Targets[1-zz]
}

func TestGate(t *testing.T) {
	for field, test := range map[string]struct {
		lives  bool // since it is made into what is allowed, if it is not too long
		change func(a attribute, s string)
	}{
		"drvPath":     {false, func(a attribute, s string) { a["drvPath"] = s }},
		"system":      {false, func(a attribute, s string) { a["system"] = s }},
		"output":      {false, func(a attribute, s string) { a["outputs"] = []any{"out", s} }},
		"out path":    {false, func(a attribute, s string) { a["outPaths"] = map[string]any{"out": s} }},
		"path of":     {false, func(a attribute, s string) { a["outPaths"] = map[string]any{s: storeX} }},
		"no output":   {false, func(a attribute, _ string) { a["outputs"] = []any{} }},
		"attr":        {true, func(a attribute, s string) { a["attr"] = s }},
		"name":        {true, func(a attribute, s string) { a["name"] = s }},
		"description": {true, func(a attribute, s string) { a["description"] = []any{s} }},
		"feature":     {true, func(a attribute, s string) { a["features"] = []any{s} }},
		"runner":      {true, func(a attribute, s string) { a["runner"] = []any{s} }},
		"features":    {false, func(a attribute, s string) { a["features"] = slices.Repeat([]any{s[:1] + "x"}, 1000) }},
	} {
		t.Run(field, func(t *testing.T) {
			for _, s := range hostile {
				odd := healthy("a")
				test.change(odd, s)
				target := found(t, odd)
				switch {
				case !test.lives && target.State != job.StateFailed, test.lives && target.State == job.StateFailed && len(s) < 1000 && s != "\u202e":
					t.Errorf("with %.50q it is %.1000s", s, fmt.Sprintf("%+v", target))
				case len(target.Error) > 2000 || valid.Line(target.Error, 2000) != nil:
					t.Errorf("with %.50q its error has %d bytes: %.300q", s, len(target.Error), target.Error)
				case len(target.Name) > 1000 || !strings.HasPrefix(target.Name, "packages.x86_64-linux."):
					t.Errorf("with %.50q its name is %.300q", s, target.Name)
				}
			}
		})
	}
}

// An output path that is known only after the build is left out, any other value that is no
// path is an error.
func TestPlaceholders(t *testing.T) {
	for path, want := range map[any]string{
		nil:                           "build []",
		"/" + strings.Repeat("1", 52): "build []",
		"/" + strings.Repeat("1", 51): "failed []",
		"":                            "failed []",
		storeX:                        "build [" + storeX + "]",
		storeX + "/bin":               "failed []",
	} {
		odd := healthy("a")
		odd["outPaths"] = map[string]any{"out": path}
		target := found(t, odd)
		if got := fmt.Sprint(target.State, " ", slices.Collect(maps.Values(target.OutPaths))); got != want {
			t.Errorf("%v gives %s, want %s", path, got, want)
		}
	}
}

// Two names that are shown alike are two targets, and an attribute that was found in two ways
// is one.
func TestNamesThatLookAlike(t *testing.T) {
	long := strings.Repeat("x", job.MaxName) // of which the beginning is shown
	for _, names := range [][2]string{
		{`a"."b`, `a.b`}, {`a`, `"a"`}, {"a\nb", `a\nb`}, {"a b", `"a b"`}, {long + "1", long + "2"},
	} {
		d := &evaluation{o: Options{Systems: []string{"x86_64-linux"}}, seen: map[string]bool{}}
		var records []record
		for i, name := range slices.Concat(names[:], names[:]) {
			path := []string{"packages", "x86_64-linux", name}
			records = append(records, record{at: position{root: i}, path: path, target: d.target(source{flake: "."}, path, "x", targetEvent{
				DrvPath: storeX + ".drv", System: "x86_64-linux", Outputs: []string{"out"},
			})})
		}
		d.collect(source{flake: "."}, records)
		if len(d.Targets) != 2 || len(names[0]) < 100 && d.Targets[0].Attr == d.Targets[1].Attr {
			t.Errorf("%.50q gives %.1000s", names, fmt.Sprintf("%+v", d.Targets))
		}
		checkPlan(t, &d.Evaluation)
	}
}

func FuzzJoinAttr(f *testing.F) {
	for _, s := range hostile {
		f.Add(s[:min(len(s), 100)], "a")
	}
	f.Add("", `\`)
	f.Add("\xff", "ä.b c")
	f.Fuzz(func(t *testing.T, a, b string) {
		path := []string{a, b}
		joined := JoinAttr(path)
		if err := valid.Line(joined, len(joined)); err != nil {
			t.Error(err)
		}
		if got := SplitAttr(joined); !slices.Equal(got, path) {
			t.Errorf("%q becomes %s and then %q", path, joined, got)
		}
		globs, err := readGlobs([]string{joined}, nil)
		if err == nil && !strings.Contains(a+b, "*") && fmt.Sprintf("%q", globs[0].Rest) != fmt.Sprintf("[[%q] [%q]]", a, b) {
			t.Errorf("%s is the glob %q", joined, globs[0].Rest)
		}
		quotedWord := shellQuote(joined)
		if strings.ContainsAny(quotedWord, "\n\x00") {
			t.Errorf("%q becomes %q for a shell", joined, quotedWord)
		}
	})
}

// A message of an evaluator may be of any size and quote anything.
func TestLongMessages(t *testing.T) {
	for _, message := range append(slices.Clone(hostile), "\xff", strings.Repeat("ä\xff", 1<<20)) {
		d := &evaluation{Evaluation: Evaluation{}}
		d.Targets = []job.Target{d.failed(source{flake: "."}, []string{"packages", "a", "b"}, "", &nix.Error{Message: message, Err: context.Canceled})}
		checkPlan(t, &d.Evaluation)
		if d.Targets[0].Attr != "packages.a.b" || strings.Contains(d.Targets[0].Error, "invalid target") {
			t.Errorf("%.50q gives %.1000s", message, fmt.Sprintf("%+v", d.Targets[0]))
		}
	}
}

// A flake cannot pretend that a secret is missing.
func TestThrowsLikeAMissingSecret(t *testing.T) {
	d := &evaluation{}
	failed := &nix.Error{Message: "needs a secret: ssh_key", Err: context.Canceled}
	if got := d.failed(source{flake: "."}, []string{"packages", "a", "b"}, "", failed); got.NeedsSecret != "" || !strings.Contains(got.Error, "ssh_key") {
		t.Errorf("%+v", got)
	}
	d.o.Explain = func(*nix.Error) Explanation { return Explanation{"needs a secret: ssh_key", "ssh_key"} }
	if got := d.failed(source{flake: "."}, []string{"packages", "a", "b"}, "", failed); got.NeedsSecret != "ssh_key" || !strings.HasPrefix(got.Error, "needs a secret: ssh_key\n") {
		t.Errorf("%+v", got)
	}
}
