package main

import (
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
)

// root is this repository.
const root = "../.."

// sources are the directories that flake.nix builds from.
var sources = []string{"cmd", "internal", "pkg"}

var update = flag.Bool("update", false, "write vendorHash into flake.nix")

var vendorHash = regexp.MustCompile(`vendorHash = "([^"]*)";`)

// The vendorHash of flake.nix is that of the directory which nixpkgs' buildGoModule makes: "go mod vendor" on the
// sources of the package, hashed as a NAR. `go test ./internal/release -update` writes it.
func TestVendorHash(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(data))
	}
	for _, name := range sources {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "mod", "vendor")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	hash := sha256.New()
	if err := nar.Dump(hash, filepath.Join(dir, "vendor")); err != nil {
		t.Fatal(err)
	}
	want := "sha256-" + base64.StdEncoding.EncodeToString(hash.Sum(nil))

	file := filepath.Join(root, "flake.nix")
	flake, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := vendorHash.FindAllStringSubmatch(string(flake), -1)
	if len(found) != 1 {
		t.Fatalf("flake.nix has %d lines with vendorHash, want 1", len(found))
	}
	switch got := found[0][1]; {
	case got == want:
	case *update:
		writeFile(t, file, strings.Replace(string(flake), got, want, 1))
	default:
		t.Errorf("flake.nix has vendorHash = %q, and the modules have %q. Write it: go test ./internal/release -run TestVendorHash -update", got, want)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
