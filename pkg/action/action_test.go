package action_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/action"
)

// env is an environment; with running, one of GitHub Actions.
func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

var running = []string{"GITHUB_ACTIONS", "true"}

func TestInput(t *testing.T) {
	a := action.New(env("INPUT_CACHE", " dir:/x \n", "INPUT_MISSING_OK", "true", "INPUT_EMPTY", " "), nil)
	for name, want := range map[string]string{"cache": "dir:/x", "missing-ok": "true", "missing_ok": "true", "empty": "", "none": ""} {
		if got := a.Input(name); got != want {
			t.Errorf("Input(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                       nil,
		"# a comment\n\n":                        nil,
		".#nixosConfigurations":                  {".#nixosConfigurations"},
		"  .#a \r\n# not this\n\t.#b # c\n .#d ": {".#a", ".#b # c", ".#d"},
	} {
		a := action.New(env("INPUT_INSTALLABLES", text), nil)
		if diff := cmp.Diff(want, a.Lines("installables")); diff != "" {
			t.Errorf("Lines of %q:\n%s", text, diff)
		}
	}
}

// outputs reads a file of outputs as the runner does.
func outputs(t *testing.T, file string) (values map[string]string, delimiters []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]string{}
	for rest := string(data); rest != ""; {
		header, after, _ := strings.Cut(rest, "\n")
		name, delimiter, ok := strings.Cut(header, "<<")
		if !ok {
			t.Fatalf("%q starts no output", header)
		}
		var value string
		if value, rest, ok = strings.Cut("\n"+after, "\n"+delimiter+"\n"); !ok {
			t.Fatalf("the output %s does not end", name)
		}
		values[name] = strings.TrimPrefix(value, "\n")
		delimiters = append(delimiters, delimiter)
	}
	return values, delimiters
}

func TestSetOutput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "output")
	a := action.New(env("GITHUB_OUTPUT", file), nil)
	set := func(name, value string) {
		t.Helper()
		if err := a.SetOutput(name, value); err != nil {
			t.Fatal(err)
		}
	}
	set("first", "1")
	_, delimiters := outputs(t, file)
	want := map[string]string{
		"first":     "1",
		"empty":     "",
		"lines":     "a\n\nb\n",
		"carriage":  "a\r\nb\r",
		"heredoc":   "x<<EOF\ny\nEOF\nz=1",
		"injection": "x\n" + delimiters[0] + "\nsuccess=true\nsuccess<<" + delimiters[0] + "\ntrue",
		"unicode":   "🚀\u2028\x00",
	}
	for name, value := range want {
		if name != "first" {
			set(name, value)
		}
	}
	got, delimiters := outputs(t, file)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	seen := map[string]bool{}
	for _, d := range delimiters {
		if seen[d] {
			t.Errorf("the delimiter %q is used twice", d)
		}
		seen[d] = true
	}
}

func TestAddSummary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary")
	a := action.New(env("GITHUB_STEP_SUMMARY", file), nil)
	for _, text := range []string{"# One", "two <b> & %"} {
		if err := a.AddSummary(text); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data); got != "# One\ntwo <b> & %\n" {
		t.Errorf("got %q", got)
	}
}

func TestFilesThatCantBeWritten(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "file")
	a := action.New(env("GITHUB_OUTPUT", missing, "GITHUB_STEP_SUMMARY", missing), nil)
	if a.SetOutput("a", "b") == nil || a.AddSummary("a") == nil {
		t.Error("no error")
	}
}

func TestOutsideOfActions(t *testing.T) {
	var log bytes.Buffer
	a := action.New(env(), &log)
	if err := a.SetOutput("a", "b"); err != nil {
		t.Error(err)
	}
	if err := a.AddSummary("a"); err != nil {
		t.Error(err)
	}
	a.Annotate(action.LevelError, "title", "message")
	if a.Running() || a.RunURL() != "" || log.Len() > 0 {
		t.Errorf("running: %t, at %q, said %q", a.Running(), a.RunURL(), &log)
	}
}

func TestAnnotate(t *testing.T) {
	for _, test := range []struct {
		level          action.Level
		title, message string
		want           string
	}{
		{action.LevelError, "", "boom", "::error::boom\n"},
		{action.LevelWarning, "pi3", "slow", "::warning title=pi3::slow\n"},
		{action.LevelNotice, "a", "100% %0A", "::notice title=a::100%25 %250A\n"},
		{action.LevelError, "a: b, c::d\n::error::e", "f", "::error title=a%3A b%2C c%3A%3Ad%0A%3A%3Aerror%3A%3Ae::f\n"},
		{action.LevelError, "a", "b\r\n::add-mask::c\r::d\n##[error]e", "::error title=a::b%0A::add-mask::c::d%0A##[error]e\n"},
		{action.LevelError, "\x1b[31ma", "b\x07\u009b\tc", "::error title=a::b\tc\n"},
	} {
		var log bytes.Buffer
		action.New(env(running...), &log).Annotate(test.level, test.title, test.message)
		if got := log.String(); got != test.want {
			t.Errorf("%q, %q: got %q, want %q", test.title, test.message, got, test.want)
		}
	}
}

func TestAnnotateAt(t *testing.T) {
	for _, test := range []struct {
		title, file string
		line        int
		want        string
	}{
		{"a", "src/a.c", 12, "::error file=src/a.c,line=12,title=a::b\n"},
		{"", "src/a.c", 0, "::error file=src/a.c::b\n"},
		{"", "", 12, "::error::b\n"},
		{"a", "", 0, "::error title=a::b\n"},
		{"", "a,line=1::x\n%", 2, "::error file=a%2Cline=1%3A%3Ax%0A%25,line=2::b\n"},
	} {
		var log bytes.Buffer
		action.New(env(running...), &log).AnnotateAt(action.LevelError, test.title, "b", test.file, test.line)
		if got := log.String(); got != test.want {
			t.Errorf("%q, %d: got %q, want %q", test.file, test.line, got, test.want)
		}
	}
	var log bytes.Buffer
	if action.New(env(), &log).AnnotateAt(action.LevelError, "a", "b", "c", 1); log.Len() > 0 {
		t.Errorf("outside of actions: %q", &log)
	}
}

// Nobody can have made it before.
func TestTempDir(t *testing.T) {
	base := filepath.Join(t.TempDir(), "runner")
	a := action.New(env("RUNNER_TEMP", base), nil)
	made := map[string]bool{}
	for range 2 {
		dir, err := a.TempDir("id")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if made[dir] || filepath.Dir(dir) != base || info.Mode().Perm() != 0o700 {
			t.Errorf("got %s with %v, after %v", dir, info.Mode(), made)
		}
		made[dir] = true
	}
}

// A directory that another user could have made, or put files into, is refused.
func TestStateDir(t *testing.T) {
	for name, test := range map[string]struct {
		make func(t *testing.T, base string)
		ok   bool
	}{
		"new":  {func(*testing.T, string) {}, true},
		"made": {func(t *testing.T, base string) { mkdir(t, base+"/nix-matrix/id", 0o755) }, true},
		"link": {func(t *testing.T, base string) {
			mkdir(t, base+"/other/id", 0o700)
			if err := os.Symlink("other", base+"/nix-matrix"); err != nil {
				t.Fatal(err)
			}
		}, false},
		"inner link": {func(t *testing.T, base string) {
			mkdir(t, base+"/nix-matrix", 0o700)
			if err := os.Symlink(base, base+"/nix-matrix/id"); err != nil {
				t.Fatal(err)
			}
		}, false},
		"writable": {func(t *testing.T, base string) { mkdir(t, base+"/nix-matrix/id", 0o777) }, false},
		"file": {func(t *testing.T, base string) {
			if err := os.WriteFile(base+"/nix-matrix", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"other user's": {func(t *testing.T, base string) {
			mkdir(t, base+"/nix-matrix/id", 0o700)
			if err := os.Chown(base+"/nix-matrix/id", 1001, 1001); err != nil {
				testbench.NeedsRoot(t, err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			test.make(t, base)
			a := action.New(env("RUNNER_TEMP", base), nil)
			dir, err := a.StateDir("id")
			if dir != filepath.Join(base, "nix-matrix", "id") || (err == nil) != test.ok {
				t.Fatalf("got %s, %v", dir, err)
			}
			if again, err := a.StateDir("id"); again != dir || (err == nil) != test.ok {
				t.Errorf("got %s, %v", again, err)
			}
		})
	}
}

func mkdir(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

// Without a reader of the log, the library panics.
func TestNobodyReads(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	a := action.New(env("GITHUB_ACTIONS", "true"), w)
	a.Annotate(action.LevelError, "title", "message")
	a.Mask("s3cret-text")
}

func TestRunURL(t *testing.T) {
	pairs := []string{"GITHUB_SERVER_URL", "https://ghes.example", "GITHUB_REPOSITORY", "org/repo", "GITHUB_RUN_ID", "7"}
	if got := action.New(env(pairs...), nil).RunURL(); got != "https://ghes.example/org/repo/actions/runs/7" {
		t.Errorf("got %s", got)
	}
	pairs = append(pairs, "GITHUB_RUN_ATTEMPT", "2")
	for _, url := range []func(*action.Action) string{(*action.Action).RunURL, (*action.Action).JobURL} {
		if got := url(action.New(env(pairs...), nil)); got != "https://ghes.example/org/repo/actions/runs/7/attempts/2" {
			t.Errorf("got %s", got)
		}
	}
	pairs = append(pairs, "NIX_MATRIX_JOB_ID", "51725241954")
	if got := action.New(env(pairs...), nil).JobURL(); got != "https://ghes.example/org/repo/actions/runs/7/job/51725241954" {
		t.Errorf("got %s", got)
	}
	if got := action.New(env("NIX_MATRIX_JOB_ID", "51725241954"), nil).JobURL(); got != "" {
		t.Errorf("outside of a run: %s", got)
	}
}
