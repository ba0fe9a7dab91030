package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/job"
)

// A panic is an error, with which all that follows an error is done.
func TestCrash(t *testing.T) {
	var log bytes.Buffer
	a := newApp(streams{out: &log, err: &log}, func(string) string { return "" })
	err := execute(t.Context(), &cobra.Command{RunE: func(*cobra.Command, []string) error { panic("here") }, Args: cobra.ArbitraryArgs})
	a.fail("nix-matrix failed", err)
	if !strings.HasPrefix(log.String(), "nix-matrix: nix-matrix crashed: here. Please report it") || !strings.Contains(log.String(), "main_test.go") {
		t.Errorf("got %s", &log)
	}
}

// A worker's Result says that it crashed.
func TestCrashResult(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	file := filepath.Join(dir, "result.json")
	var log bytes.Buffer
	a := newApp(streams{out: &log, err: &log}, func(string) string { return "" })
	a.id = job.DefaultID
	row := `{"name":"a","id":"ca978112ca","platform":"x86_64-linux","system":"x86_64-linux","drvPath":"/nix/store/00000000000000000000000000000000-a.drv","outputs":["out"],"runner":["ubuntu-latest"],"plan":"x","targets":[{"n":0,"attr":"a","drvPath":"/nix/store/00000000000000000000000000000000-a.drv"}]}`
	b := &builder{app: a, job: row, resultFile: file, working: workingFlags{reclaim: "auto"}, packing: packing{policy: "off", engine: "auto"}}
	a.show = nil
	err := b.run(t.Context())
	var crash *crashError
	if !errors.As(err, &crash) {
		t.Fatalf("got %v", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	result, err := job.ParseResult(data)
	if err != nil || result.Outcome != job.Broken || !strings.HasPrefix(result.Error, "nix-matrix crashed: ") {
		t.Errorf("got %+v, %v", result, err)
	}
}
