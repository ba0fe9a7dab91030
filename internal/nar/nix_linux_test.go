package nar

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// This package reads the NARs of Nix, and Nix reads those of this package.
func TestNix(t *testing.T) {
	for _, version := range testbench.NixVersions {
		nixStore := filepath.Join(testbench.NixPath(t, version), "nix-store")
		for _, nar := range append([]string{archive(dir(entry("copy", file(odd))))}, good...) {
			restored := filepath.Join(t.TempDir(), "restored")
			restore := exec.CommandContext(t.Context(), nixStore, "--restore", restored)
			restore.Stdin = strings.NewReader(nar)
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", version, err, out)
			}
			if diff := differ(nar, dump(t, restored)); diff != "" {
				t.Errorf("%s restored: %s", version, diff)
			}
			root, err := unpack(t, strings.NewReader(nar), len(nar))
			must(t, err)
			for _, path := range []string{root, restored} {
				dumped, err := exec.CommandContext(t.Context(), nixStore, "--dump", path).Output()
				must(t, err)
				if diff := differ(nar, string(dumped)); diff != "" {
					t.Errorf("%s dumps %s: %s", version, path, diff)
				}
			}
		}
	}
}
