package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/internal/testbench/docs"
)

// Links lead to files and headings that are there, and the README to every page. Source files are moved too often to be linked to, but for the one that
// specifies a format.
func TestLinks(t *testing.T) {
	all := docs.Read(t, root)
	inReadme := map[string]bool{}
	for _, page := range all {
		for _, link := range page.Links {
			u, err := url.Parse(link)
			if err != nil {
				t.Errorf("%s: %v", page.Name, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			name := page.Name
			if u.Path != "" {
				name = path.Join(path.Dir(page.Name), u.Path)
			}
			if page.Name == "README.md" {
				inReadme[name] = true
			}
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page.Name, link)
				continue
			}
			if strings.HasSuffix(name, ".go") && name != "pkg/pack/doc.go" {
				t.Errorf("%s: a link to the source file %s", page.Name, name)
			}
			if u.Fragment != "" && !slices.Contains(docs.Find(t, all, name).Anchors(), u.Fragment) {
				t.Errorf("%s: %s has no heading for the link %s", page.Name, name, link)
			}
		}
	}
	for _, page := range all {
		if strings.HasPrefix(page.Name, "docs/") && !inReadme[page.Name] {
			t.Errorf("README.md has no link to %s", page.Name)
		}
	}
}

// No page has the same item of a list twice.
func TestItemsOnce(t *testing.T) {
	item := regexp.MustCompile(`(?m)^- .{60,}$`)
	for _, page := range docs.Read(t, root) {
		seen := map[string]bool{}
		for _, line := range item.FindAllString(readFile(t, page.Name), -1) {
			if seen[line] {
				t.Errorf("%s has twice: %s", page.Name, line)
			}
			seen[line] = true
		}
	}
}

// The README is for a first look, and links to the rest.
func TestReadmeIsShort(t *testing.T) {
	const most = 180
	if n := strings.Count(readFile(t, "README.md"), "\n"); n > most {
		t.Errorf("README.md has %d lines, want at most %d", n, most)
	}
}

// A snippet is a block of YAML in a page, completed to a workflow.
type snippet struct {
	page, workflow string
}

// snippets returns the blocks of YAML in the pages as workflows.
func snippets(t *testing.T) []snippet {
	t.Helper()
	var all []snippet
	for _, page := range docs.Read(t, root) {
		for _, block := range page.Blocks {
			if block.Language != "yaml" {
				continue
			}
			workflow, err := complete(block.Text)
			if err != nil {
				t.Errorf("%s: %v:\n%s", page.Name, err, block.Text)
				continue
			}
			all = append(all, snippet{page.Name, workflow})
		}
	}
	if len(all) < 20 {
		t.Fatalf("there are %d blocks of YAML in the pages, which is not all", len(all))
	}
	return all
}

// complete makes a workflow of a part of one: of its triggers, its jobs, a job, the steps of a job, or what a call of the
// reusable workflow says.
func complete(part string) (string, error) {
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(part), &node); err != nil {
		return "", err
	}
	indent := func(text string, by int) string {
		unit := strings.Repeat(" ", by)
		return unit + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+unit) + "\n"
	}
	body := strings.TrimRight(part, "\n") + "\n"
	depth := len(body) - len(strings.TrimLeft(body, " "))
	if depth > 0 {
		body = strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n"+strings.Repeat(" ", depth), "\n"), "\n")
	}
	const head, job = "name: part\n", "on: push\npermissions: {}\njobs:\n"
	call := "  nix:\n    uses: org/nix-matrix/" + reusable + "@v1\n"
	if node.Content[0].Kind == yaml.SequenceNode {
		return head + job + "  part:\n    runs-on: ubuntu-latest\n    steps:\n" + indent(body, 6), nil
	}
	var keys map[string]yaml.Node
	if err := node.Decode(&keys); err != nil {
		return "", err
	}
	has := func(key string) bool { _, ok := keys[key]; return ok }
	switch {
	case has("jobs") && has("on"):
		return body, nil
	case has("jobs"):
		return head + "on: push\npermissions: {}\n" + body, nil
	case has("on"):
		return head + body + "permissions: {}\njobs:\n" + call, nil
	case has("with") || has("secrets"):
		return head + job + call + indent(body, 4), nil
	}
	for key, value := range keys {
		if value.Kind != yaml.MappingNode {
			return head + job + call + "    with:\n" + indent(body, 6), nil
		}
		if len(keys) != 1 {
			return "", fmt.Errorf("what is %s?", key)
		}
	}
	return head + job + call + indent(body, 2), nil
}

// The YAML in the pages is what GitHub takes, uses inputs that there are, and is pinned.
func TestSnippets(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	for i, s := range snippets(t) {
		name := fmt.Sprintf("%s, block %d of YAML", s.page, i)
		workflow := parseText[workflowFile](t, name, s.workflow)
		for id, job := range workflow.Jobs {
			if file, ours := called(job.Uses); ours {
				takes := parse[workflowFile](t, file).call(t)
				known(t, name+": "+id+": the workflow has no input", job.With, takes.Inputs)
				known(t, name+": "+id+": the workflow has no secret", job.Secrets, takes.Secrets)
			}
			for _, problem := range unpinned(step{Uses: job.Uses}) {
				t.Errorf("%s: %s", name, problem)
			}
			for _, used := range job.Steps {
				if used.Uses == "org/nix-matrix@v1" {
					known(t, name+": "+id+": the action has no input", used.With, action.Inputs)
				}
				for _, problem := range unpinned(used) {
					t.Errorf("%s: %s", name, problem)
				}
			}
		}
	}
}

// actionlint knows what GitHub takes, and has shellcheck read the scripts.
func TestSnippetsAreLinted(t *testing.T) {
	linters := testbench.Path(t, "lint/bin")
	dir := t.TempDir()
	args := []string{"-shellcheck", filepath.Join(linters, "shellcheck"), "-pyflakes", ""}
	for i, s := range snippets(t) {
		name := strings.ReplaceAll(strings.TrimSuffix(s.page, ".md"), "/", "-")
		file := filepath.Join(dir, fmt.Sprintf("%s-%d.yml", name, i))
		if err := os.WriteFile(file, []byte(s.workflow), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(linters, "actionlint"), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestComplete shows that parts of workflows become whole ones, and that what is none does not.
func TestComplete(t *testing.T) {
	for name, test := range map[string]struct {
		part string
		jobs string // and how many steps they have; empty if the part is refused
	}{
		"a workflow": {"on: push\njobs: {a: {steps: [{run: x}]}}\n", "a 1"},
		"jobs":       {"jobs: {a: {steps: [{run: x}, {run: y}]}}\n", "a 2"},
		"steps":      {"      - run: x\n      - run: y\n", "part 2"},
		"a job":      {"  deploy:\n    steps:\n      - run: x\n", "deploy 1"},
		"triggers":   {"on:\n  push:\n", "nix 0"},
		"a call":     {"    with:\n      push: x\n", "nix 0"},
		"inputs":     {"      push: x\n      setup: |\n        y\n\n        z\n", "nix 0"},
		"no YAML":    {"a: b: c\n", ""},
		"two jobs":   {"a: {steps: []}\nb: {steps: []}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			workflow, err := complete(test.part)
			if test.jobs == "" {
				if err == nil {
					t.Errorf("it becomes\n%s", workflow)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			file := parseText[workflowFile](t, name, workflow)
			wanted, _, _ := strings.Cut(test.jobs, " ")
			if got := fmt.Sprintf("%s %d", wanted, len(file.Jobs[wanted].Steps)); got != test.jobs {
				t.Errorf("got %s, want %s, of\n%s", got, test.jobs, workflow)
			}
		})
	}
}

// The headings of the page are messages that the program has.
func TestMessagesInTroubleshooting(t *testing.T) {
	var said bytes.Buffer
	for _, dir := range []string{"cmd", "pkg", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			data, err := os.ReadFile(file)
			said.Write(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	page := readFile(t, "docs/troubleshooting.md")
	found := 0
	for line := range strings.SplitSeq(page, "\n") {
		heading, ok := strings.CutPrefix(line, "### `")
		if !ok {
			continue
		}
		found++
		for part := range strings.SplitSeq(strings.TrimSuffix(heading, "`"), "…") {
			if !bytes.Contains(said.Bytes(), []byte(strings.TrimSpace(part))) {
				t.Errorf("docs/troubleshooting.md explains %q, which no message has", part)
			}
		}
	}
	if found < 30 {
		t.Errorf("%d messages are explained, which is not all", found)
	}
}
