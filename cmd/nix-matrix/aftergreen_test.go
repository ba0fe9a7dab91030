package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// Paths that fit are an output, and leave the room that they don't take to other outputs. Too many go into a file for an
// artifact, sealed if there is a key. Without a green verdict there are none.
func TestOutputPaths(t *testing.T) {
	const store = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-"
	green := func(count int) *verdict.Verdict {
		v := &verdict.Verdict{Status: verdict.Success}
		for i := range count {
			name := fmt.Sprintf("packages.x86_64-linux.a-name-of-some-length-%d", i)
			v.Targets = append(v.Targets, verdict.Target{Status: verdict.TargetSkipped, Target: job.Target{
				Attr: name, Available: true, Outputs: []string{"out"}, OutPaths: map[string]string{"out": store + name},
			}})
		}
		return v
	}
	report := func(t *testing.T, v *verdict.Verdict, key string) (outputs string, room int) {
		t.Helper()
		dir := t.TempDir()
		env := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": filepath.Join(dir, "outputs"), "RUNNER_TEMP": dir, "NIX_MATRIX_ENCRYPTION_KEY": key}
		a := newApp(streams{err: io.Discard}, func(name string) string { return env[name] })
		t.Cleanup(a.log.Close)
		a.id = job.DefaultID
		docs, err := a.documents()
		if err != nil {
			t.Fatal(err)
		}
		data, room, err := (&reporter{app: a, docs: docs}).outputPaths(v)
		if err != nil || (len(data) > 0) != (v.Status == verdict.Success) {
			t.Fatalf("%d bytes of paths, %v", len(data), err)
		}
		written, err := os.ReadFile(filepath.Join(dir, "outputs"))
		if err != nil && v.Status == verdict.Success {
			t.Fatal(err)
		}
		return string(written), room
	}
	few, room := report(t, green(10), "")
	if !strings.Contains(few, `{"packages.x86_64-linux.a-name-of-some-length-0":{"out":"`+store) || strings.Contains(few, "paths_file") || room >= job.MaxMatrix || room < job.MaxMatrix/2 {
		t.Errorf("few: room for %d, and %.200s", room, few)
	}
	for _, key := range []string{"", "a key of some length"} {
		many, room := report(t, green(2000), key)
		_, file, ok := strings.Cut(many, "paths_file<<")
		if strings.Contains(many, "paths<<") || !ok || room != job.MaxMatrix {
			t.Fatalf("many: room for %d, and %.200s", room, many)
		}
		data, err := os.ReadFile(strings.Split(file, "\n")[1])
		if inClear := strings.Contains(string(data), store); err != nil || inClear != (key == "") {
			t.Errorf("with the key %q the file has the paths in clear: %t, %v", key, inClear, err)
		}
	}
	if none, room := report(t, &verdict.Verdict{Status: verdict.Failure, Targets: green(1).Targets}, ""); none != "" || room != job.MaxMatrix {
		t.Errorf("a red verdict: %s", none)
	}
}
