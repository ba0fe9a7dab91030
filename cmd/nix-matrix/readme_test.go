package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/org/nix-matrix/internal/testbench/docs"
)

// checkout is this repository.
const checkout = "../.."

// The words for what there is are defined once: the documentation and --help say the same.
func TestWords(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(checkout, "docs/how-it-works.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "# How it works\n\n")
	words, _, _ := strings.Cut(rest, "\n\n")
	for _, word := range []string{"*derivation*", "*target*", "*entry*", "*job*"} {
		if strings.Count(words, word) != 1 {
			t.Errorf("docs/how-it-works.md does not define %s", word)
		}
	}
	plain := func(text string) string {
		return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "*", "")
	}
	if help := newRoot(newApp(streams{out: os.Stdout, err: os.Stderr}, func(string) string { return "" })).Long; !strings.Contains(plain(help), plain(words)) {
		t.Errorf("--help does not say: %s", plain(words))
	}
}

// The scripts of the pages push to no other place than they say, whatever the flake calls its targets.
func TestDocumentedPostBuild(t *testing.T) {
	all := docs.Read(t, checkout)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "skopeo"), []byte("#!/bin/sh\ntest \"$1\" = login || printf '<%s>' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const hash = "0123456789abcdfghijklmnpqrsvwxyz"
	for page, tag := range map[string]string{"docs/steps.md": "", "docs/recipes.md": ":" + hash} {
		t.Run(page, func(t *testing.T) {
			script := inputOf(t, docs.Find(t, all, page), "post_build")
			for name, pushed := range map[string]bool{
				"hello": true, "hello-1.0_x": true,
				"": false, "a b": false, "x:latest": false, "../other/hello": false, "hello/../../you/evil": false, "hello@sha256": false, "$(touch ran)": false,
				"-f": false, "hello\n": false, "hello\nevil": false, "UPPER": false, "ä": false, "*": false,
			} {
				cmd := bash(t, bin, script)
				cmd.Env = append(cmd.Env, "NIX_MATRIX_KIND=package", "NIX_MATRIX_OUT=/nix/store/"+hash+"-x", "NIX_MATRIX_NAME="+name, "REGISTRY_TOKEN=t")
				out, err := cmd.Output()
				want := ""
				if pushed {
					want = "<copy><--><docker-archive:/nix/store/" + hash + "-x><docker://ghcr.io/me/" + name + tag + ">"
				}
				if string(out) != want || (err == nil) != pushed {
					t.Errorf("%q: %q, %v", name, out, err)
				}
			}
		})
	}
}

// The recipe's proviso leaves out the images that the registry has, and asks for nothing that is no name.
func TestDocumentedProviso(t *testing.T) {
	script := inputOf(t, docs.Find(t, docs.Read(t, checkout), "docs/recipes.md"), "proviso")
	bin := t.TempDir()
	const skopeo = "#!/bin/sh\necho \"$@\" >\"$ASKED\"\ntest \"$*\" = 'inspect --raw -- docker://ghcr.io/me/image-web:0123456789abcdfghijklmnpqrsvwxyz'\n"
	if err := os.WriteFile(filepath.Join(bin, "skopeo"), []byte(skopeo), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		want  string
		asked bool
	}{
		"image-web": {"skip the registry has 0123456789abcdfghijklmnpqrsvwxyz\n", true},
		"image-api": {"", true},
		"-f":        {"", false},
		"a/b":       {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := filepath.Join(t.TempDir(), "asked")
			cmd := bash(t, bin, script)
			cmd.Env = append(cmd.Env, "ASKED="+asked)
			cmd.Stdin = strings.NewReader(`{"name": "` + name + `", "outPaths": {"out": "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-image.tar.gz"}}`)
			out, err := cmd.Output()
			if string(out) != test.want || (err == nil) != test.asked {
				t.Errorf("%q, %v", out, err)
			}
			if _, err := os.Stat(asked); (err == nil) != test.asked {
				t.Errorf("the registry was asked: %t, want %t", err == nil, test.asked)
			}
		})
	}
}

// inputOf returns the text of an input in the YAML of a page.
func inputOf(t *testing.T, page *docs.Page, input string) string {
	t.Helper()
	for _, block := range page.Blocks {
		var said map[string]any
		if block.Language != "yaml" || yaml.Unmarshal([]byte(block.Text), &said) != nil {
			continue // steps are a list
		}
		if with, ok := said["with"].(map[string]any); ok {
			said = with
		}
		if text, ok := said[input].(string); ok {
			return text
		}
	}
	t.Fatalf("%s has no %s", page.Name, input)
	return ""
}

// bash runs a script as nix-matrix does, with the programs in bin first.
func bash(t *testing.T, bin, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	return cmd
}

// Every command line in the pages is one that the program takes.
func TestDocumentedCommands(t *testing.T) {
	found := map[string]int{}
	for _, page := range docs.Read(t, checkout) {
		var lines []string
		for _, block := range page.Blocks {
			if slices.Contains([]string{"sh", "console"}, block.Language) {
				lines = append(lines, strings.Split(strings.ReplaceAll(block.Text, "\\\n", " "), "\n")...)
			}
		}
		for _, span := range page.Spans {
			if strings.HasPrefix(span, "nix-matrix ") {
				lines = append(lines, span)
			}
		}
		for _, line := range lines {
			for _, args := range commandLines(line) {
				found[page.Name]++
				if err := takes(args); err != nil {
					t.Errorf("%s: %s: %v", page.Name, line, err)
				}
			}
		}
	}
	for _, name := range []string{"README.md", "docs/store-cache.md", "docs/choosing.md", "docs/troubleshooting.md", "examples/fleet/README.md"} {
		if found[name] == 0 {
			t.Errorf("%s has no command line, where there are some", name)
		}
	}
}

// takes parses a command line as the program does, and runs nothing.
func takes(args []string) error {
	a := newApp(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, func(string) string { return "" })
	defer a.log.Close()
	cmd, rest, err := newRoot(a).Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	return errors.Join(readFlags(cmd, a.action), cmd.ValidateArgs(cmd.Flags().Args()))
}

// called matches the program where a line of a shell calls it.
var called = regexp.MustCompile(`(?:^|[\s;&|(])(?:(?:\./)?dist/)?nix-matrix(?:\s|$)`)

// commandLines returns the arguments of each call of the program in a line.
func commandLines(line string) [][]string {
	var all [][]string
	for _, at := range called.FindAllStringIndex(line, -1) {
		all = append(all, shellWords(line[at[1]:]))
	}
	return all
}

// shellWords splits what follows the name of a program as a shell does, up to the end of the command.
func shellWords(rest string) []string {
	var args []string
	var word strings.Builder
	var quote rune
	begun := false
	end := func() {
		if begun {
			args = append(args, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, r := range rest {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			end()
		case strings.ContainsRune("|;&<>)", r), r == '#' && !begun:
			end()
			return args
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return args
}

// TestCommandLines shows what TestDocumentedCommands looks at, and what it refuses.
func TestCommandLines(t *testing.T) {
	for _, test := range []struct {
		line  string
		want  [][]string
		taken bool
	}{
		{"nix-matrix run .#a --push file:///srv/cache   # push", [][]string{{"run", ".#a", "--push", "file:///srv/cache"}}, true},
		{"$ KEY=$(pass x) dist/nix-matrix unseal 'a b' | jq .", [][]string{{"unseal", "a b"}}, true},
		{"nix-matrix restore && nix build && nix-matrix save", [][]string{{"restore"}, {"save"}}, true},
		{"nix-matrix --help", [][]string{{"--help"}}, true},
		{"cat nix-matrix.plan", nil, true},
		{"nix-matrix run --pusch x", [][]string{{"run", "--pusch", "x"}}, false},
		{"nix-matrix biuld", [][]string{{"biuld"}}, false},
		{"nix-matrix version 1", [][]string{{"version", "1"}}, false},
		{"nix-matrix run --jobs many", [][]string{{"run", "--jobs", "many"}}, false},
		{"nix-matrix run --timeout soon", [][]string{{"run", "--timeout", "soon"}}, false},
	} {
		got := commandLines(test.line)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: - want + got:\n%s", test.line, diff)
		}
		for _, args := range got {
			if err := takes(args); (err == nil) != test.taken {
				t.Errorf("%s: %v", test.line, err)
			}
		}
	}
}
