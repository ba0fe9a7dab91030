// Package words_test holds this project to what a stranger can read: plain words in comments,
// messages and pages, and short files.
package words_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// A rule refuses a turn of phrase.
type rule struct {
	refuses *regexp.Regexp
	say     string
}

// everywhere are the rules for comments, texts and pages.
var everywhere = []rule{
	{regexp.MustCompile(`(?i)\bbesides\b`), "except, too, or as well"},
	{regexp.MustCompile(`(?i)\bwhosever\b`), "whose, or a noun"},
	{regexp.MustCompile(`(?i)\bto and fro\b`), "in both directions"},
	{regexp.MustCompile(`(?i)\b(?:is|are|be) to be had\b`), "is available"},
	{regexp.MustCompile(`(?i)\bcan(?:'t|not)? be had\b`), "is available, cannot be read"},
	{regexp.MustCompile(`(?i)\bat home\b`), "locally"},
	{regexp.MustCompile(`(?i)\bworth while\b`), "worth it"},
	{regexp.MustCompile(`(?i)\bdear(?:er)?\b`), "expensive"},
	{regexp.MustCompile(`(?i)\b(?:of|for|by|to|from|with) who\b`), "a noun: the caller, the reader, the job"},
	{regexp.MustCompile(`(?i)\bwhoever\b`), "a noun: the caller, the reader, a job that"},
}

// comments are the rules for comments in Go.
var comments = []rule{
	{regexp.MustCompile(`^//? ?(?:What|Who)\b[^?]*$`), "a noun as the subject"},
	{regexp.MustCompile(`^// [A-Za-z_]\w* gives\b`), "returns"},
	{regexp.MustCompile(`^// [A-Za-z_]\w* (?:says|tells) (?:whether|if)\b`), "reports whether"},
}

// TestGo checks comments and texts of Go files. Tests have the texts of old messages, so of them
// only comments are checked.
func TestGo(t *testing.T) {
	eachFile(t, ".go", func(t *testing.T, name string, data []byte) {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, data, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				check(t, files.Position(c.Pos()), c.Text, everywhere)
			}
			check(t, files.Position(group.Pos()), group.List[0].Text, comments)
		}
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				check(t, files.Position(text.Pos()), text.Value, everywhere)
			}
			return true
		})
	})
}

// TestPages checks Markdown, YAML and the evaluators' Nix files.
func TestPages(t *testing.T) {
	for _, suffix := range []string{".md", ".yml", ".nix"} {
		eachFile(t, suffix, func(t *testing.T, name string, data []byte) {
			line := 0
			for text := range strings.Lines(string(data)) {
				line++
				check(t, token.Position{Filename: name, Line: line}, text, everywhere)
			}
		})
	}
}

// maxLines is the length of a file that can be read on a few screens.
const maxLines = 450

// TestFileLength checks all files that are written by hand, except pages.
func TestFileLength(t *testing.T) {
	for _, suffix := range []string{".go", ".nix", ".txtar", ".html", ".css", ".sh", "/scripts/testbench"} {
		eachFile(t, suffix, func(t *testing.T, name string, data []byte) {
			if lines := bytes.Count(data, []byte("\n")); lines > maxLines {
				t.Errorf("%s has %d lines: split it by subject, so that no file has more than %d", strings.TrimPrefix(name, root+"/"), lines, maxLines)
			}
		})
	}
}

func check(t *testing.T, at token.Position, text string, rules []rule) {
	t.Helper()
	for _, r := range rules {
		if found := r.refuses.FindString(text); found != "" {
			t.Errorf("%s:%d: %q: say %s", strings.TrimPrefix(at.Filename, root+"/"), at.Line, strings.TrimSpace(found), r.say)
		}
	}
}

// eachFile calls a function for each file of the repository with a suffix. The rules themselves are
// left out.
func eachFile(t *testing.T, suffix string, do func(t *testing.T, name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || strings.HasSuffix(name, "internal/words")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		data, err := os.ReadFile(name)
		if err == nil {
			do(t, name, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
