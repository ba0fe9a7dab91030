package e2e_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Code from outside is pinned: an action by commit, a container image by digest.
func TestPins(t *testing.T) {
	steps := slices.Clone(parse[actionFile](t, "action.yml").Runs.Steps)
	var images []string
	for _, name := range slices.Concat(workflows(t, ".github/workflows"), workflows(t, "examples/workflows")) {
		for _, job := range parse[workflowFile](t, name).Jobs {
			steps = append(append(steps, step{Uses: job.Uses}), job.Steps...)
			for _, container := range slices.AppendSeq([]yaml.Node{job.Container}, maps.Values(job.Services)) {
				images = append(images, imageOf(t, container))
			}
		}
	}
	used := map[string]bool{}
	for _, s := range steps {
		used[s.Uses] = true
		for _, problem := range unpinned(s) {
			t.Error(problem)
		}
	}
	for _, image := range images {
		if image != "" && !digest.MatchString(image) {
			t.Errorf("the container image %s is not pinned by digest", image)
		}
	}
	if !used["org/nix-matrix@v1"] || !used["org/nix-matrix/"+reusable+"@v1"] || len(used) < 8 {
		t.Errorf("only %v is looked at", slices.Sorted(maps.Keys(used)))
	}
}

// A release pins the action in the workflows that others can call: one hash of a caller then pins it all.
func TestReleasePins(t *testing.T) {
	const commit = "0123456789012345678901234567890123456789"
	dir := t.TempDir()
	for _, part := range []string{"scripts", ".github/workflows"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "scripts/release-pin"), "v1.2.3", commit).CombinedOutput()
	if got, want := string(out), reusable+"\n"+updating+"\n"; err != nil || got != want {
		t.Errorf("scripts/release-pin pins %q, want %q: %v", got, want, err)
	}
	for _, name := range []string{reusable, updating} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		used := 0
		for id, job := range parseText[workflowFile](t, name, string(text)).Jobs {
			for _, s := range append(job.Steps, step{Uses: job.Uses}) {
				if s.Uses == "org/nix-matrix@"+commit {
					used++
				} else if strings.HasPrefix(s.Uses, "org/nix-matrix") {
					t.Errorf("%s: %s uses %s in a release", name, id, s.Uses)
				}
			}
		}
		if used < 2 {
			t.Errorf("%s uses the action %d times", name, used)
		}
		for _, page := range []string{"docs/verify.md", "docs/github.md"} {
			if !strings.Contains(readFile(t, page), "`"+filepath.Base(name)+"`") {
				t.Errorf("%s does not name %s, which a release pins", page, name)
			}
		}
	}
}

// TestUnpinned shows that TestPins finds what it looks for.
func TestUnpinned(t *testing.T) {
	const hash = "0123456789012345678901234567890123456789"
	image := "example.org/image:1@sha256:" + hash + hash[:24]
	qemu := "docker/setup-qemu-action@" + hash
	for name, test := range map[string]struct {
		step step
		want int
	}{
		"nothing":             {step{Run: "true"}, 0},
		"a commit":            {step{Uses: "actions/checkout@" + hash}, 0},
		"a tag":               {step{Uses: "actions/checkout@v7"}, 1},
		"a short commit":      {step{Uses: "actions/checkout@" + hash[:12]}, 1},
		"our action":          {step{Uses: "org/nix-matrix@v1"}, 0},
		"another workflow":    {step{Uses: "org/other/.github/workflows/nix.yml@v1"}, 1},
		"an image":            {step{Uses: "docker://" + image}, 0},
		"a tag of an image":   {step{Uses: "docker://example.org/image:1"}, 1},
		"qemu":                {step{Uses: qemu, With: map[string]string{"image": image, "cache-image": "false"}}, 0},
		"the default image":   {step{Uses: qemu, With: map[string]string{"cache-image": "false"}}, 1},
		"a cached image":      {step{Uses: qemu, With: map[string]string{"image": image}}, 1},
		"the tag of an input": {step{Uses: qemu, With: map[string]string{"image": "tonistiigi/binfmt:latest", "cache-image": "false"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unpinned(test.step); len(got) != test.want {
				t.Errorf("got %q, want %d problems", got, test.want)
			}
		})
	}
}

// unpinned says what a step runs that can change under the same name.
func unpinned(s step) (problems []string) {
	image, docker := strings.CutPrefix(s.Uses, "docker://")
	_, ours := called(s.Uses)
	switch {
	case docker && !digest.MatchString(image):
		problems = append(problems, "the container image "+image+" is not pinned by digest")
	case docker || ours || s.Uses == "" || s.Uses == "./" || s.Uses == "org/nix-matrix@v1":
	case !pinned.MatchString(s.Uses):
		problems = append(problems, s.Uses+" is not pinned by commit")
	}
	// This one runs an image, privileged, and has a default for it.
	qemu := strings.HasPrefix(s.Uses, "docker/setup-qemu-action@")
	if image, given := s.With["image"]; (given || qemu) && !digest.MatchString(image) {
		problems = append(problems, s.Uses+": the container image "+image+" is not pinned by digest")
	}
	if qemu && s.With["cache-image"] != "false" {
		problems = append(problems, s.Uses+" takes the container image from a cache that other jobs can write")
	}
	return problems
}

// imageOf returns the image of a job's container, which is empty if there is none.
func imageOf(t *testing.T, node yaml.Node) string {
	t.Helper()
	var image string
	if node.IsZero() || node.Decode(&image) == nil {
		return image
	}
	var container struct{ Image string }
	if err := node.Decode(&container); err != nil {
		t.Fatal(err)
	}
	return container.Image
}

// pinned matches an action from outside that is named by commit.
var pinned = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)

// digest matches a container image that is named by its content.
var digest = regexp.MustCompile(`^[\w./:-]+@sha256:[0-9a-f]{64}$`)
