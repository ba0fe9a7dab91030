package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The words for what there is are defined once: the README and --help say the same.
func TestWords(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "## How it works\n\n")
	words, _, _ := strings.Cut(rest, "\n\n")
	for _, word := range []string{"*derivation*", "*target*", "*entry*", "*job*"} {
		if strings.Count(words, word) != 1 {
			t.Errorf("the README does not define %s", word)
		}
	}
	plain := func(text string) string {
		return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "*", "")
	}
	if help := newRoot(newApp(streams{out: os.Stdout, err: os.Stderr}, func(string) string { return "" })).Long; !strings.Contains(plain(help), plain(words)) {
		t.Errorf("--help does not say: %s", plain(words))
	}
}

// The README's post_build pushes to no other place than it says, whatever the flake calls
// its targets.
func TestReadmePostBuild(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "### Your own steps\n\n```yaml\n")
	block, _, ok := strings.Cut(rest, "```\n")
	var steps struct {
		Script string `yaml:"post_build"`
	}
	if err := yaml.Unmarshal([]byte(block), &steps); err != nil || !ok || steps.Script == "" {
		t.Fatalf("the README has no post_build: %v", err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "skopeo"), []byte("#!/bin/sh\nprintf '<%s>' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, pushed := range map[string]bool{
		"hello": true, "hello-1.0_x": true,
		"": false, "a b": false, "x:latest": false, "../other/hello": false, "hello/../../you/evil": false, "hello@sha256": false, "$(touch ran)": false,
		"-f": false, "hello\n": false, "hello\nevil": false, "UPPER": false, "ä": false, "*": false,
	} {
		cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps.Script)
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "NIX_MATRIX_KIND=package", "NIX_MATRIX_OUT=/nix/store/x", "NIX_MATRIX_NAME=" + name, "LC_ALL=C.UTF-8"}
		out, err := cmd.Output()
		want := ""
		if pushed {
			want = "<copy><--><docker-archive:/nix/store/x><docker://ghcr.io/me/" + name + ">"
		}
		if string(out) != want || (err == nil) != pushed {
			t.Errorf("%q: %q, %v", name, out, err)
		}
	}
}
