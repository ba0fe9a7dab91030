package actionstest_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// TestOfficialClient saves a file with the npm package @actions/cache, has the
// cache of package actions read it and save it under another key, and restores
// that with @actions/cache again.
func TestOfficialClient(t *testing.T) { onBoth(t, testOfficialClient) }

func testOfficialClient(t *testing.T, options actionstest.Options) {
	node := testbench.Program(t, "node")
	testbench.Program(t, "tar")
	client := testbench.Path(t, "npm/node_modules/@actions/cache/lib/cache.js")
	server := actionstest.Start(t, options)
	work := t.TempDir()
	script, err := filepath.Abs("testdata/cache.mjs")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, append([]string{script}, args...)...)
		cmd.Dir = work
		cmd.Env = append(environ(server), "CLIENT="+client, "RUNNER_TEMP="+work, "GITHUB_WORKSPACE="+work)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	file := filepath.Join(work, "file")
	want := []byte("what is cached\n")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run("save", "theirs-1", "file"); !strings.Contains(out, "saved 1") {
		t.Fatalf("save: %s", out)
	}
	if out := run("save", "theirs-1", "file"); !strings.Contains(out, "Unable to reserve cache with key theirs-1, another job may be creating this cache") {
		t.Errorf("second save: %s", out)
	}
	entries := server.Entries()
	if len(entries) != 1 || entries[0].Key != "theirs-1" {
		t.Fatalf("entries: %v", entries)
	}
	ours := newCache(t, server, entries[0].Version)
	blob, err := ours.Open(t.Context(), "theirs-1")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := cache.ReadAll(t.Context(), blob, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Save(t.Context(), "ours-1", bytes.NewReader(archive), blob.Size()); err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]string{{"ours-1", "file"}, {"absent", "file", "none-", "ours-"}} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		out := run(append([]string{"restore"}, keys...)...)
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) || !strings.Contains(out, "restored ours-1") {
			t.Errorf("restore %v: %q, %v\n%s", keys, got, err, out)
		}
	}
	if out := run("restore", "absent", "file"); !strings.Contains(out, "restored undefined") {
		t.Errorf("restore of what is not there: %s", out)
	}
}

// TestGoActionsCache saves with another Go client and restores with the cache
// of package actions, and the other way round.
func TestGoActionsCache(t *testing.T) { onBoth(t, testGoActionsCache) }

func testGoActionsCache(t *testing.T, options actionstest.Options) {
	server := actionstest.Start(t, options)
	program := testbench.GoProgram(t, "go-actions-cache")
	run := func(stdin []byte, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = environ(server)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.New(string(exit.Stderr))
		}
		return out, err
	}
	want := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(want)
	if _, err := run(want, "save", "theirs-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := run(want, "save", "theirs-1"); err == nil {
		t.Error("the second save under a key succeeds")
	}
	ours := newCache(t, server, server.Entries()[0].Version)
	blob, err := ours.Open(t.Context(), "absent", "theirs-")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cache.ReadAll(t.Context(), blob, 4<<20); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bytes differ, %v", err)
	}
	if err := ours.Save(t.Context(), "ours-1", bytes.NewReader(want), int64(len(want))); err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]string{{"ours-1"}, {"absent", "ours-"}} {
		if got, err := run(nil, append([]string{"load"}, keys...)...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("load %v: the bytes differ, %v", keys, err)
		}
	}
	if _, err := run(nil, "load", "absent"); err == nil || !strings.Contains(err.Error(), "miss") {
		t.Errorf("load of what is not there: %v", err)
	}
}

// onBoth runs a test with the blobs in an Azurite and on a Disk.
func onBoth(t *testing.T, test func(*testing.T, actionstest.Options)) {
	t.Run("azurite", func(t *testing.T) { test(t, actionstest.Options{}) })
	t.Run("disk", func(t *testing.T) { test(t, actionstest.Options{OnDisk: true}) })
}

// newCache is the cache of package actions, with blocks of 1 MiB.
func newCache(t *testing.T, server *actionstest.Running, version string) cache.Cache {
	t.Helper()
	config, err := actions.FromEnv(server.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	config.Version = version
	config.BlockSize = 1 << 20
	return actions.New(config)
}

// environ is this process's environment, with what an action sees in it.
func environ(server *actionstest.Running) []string {
	env := os.Environ()
	for name, value := range server.Env(server.URL) {
		env = append(env, name+"="+value)
	}
	return env
}
