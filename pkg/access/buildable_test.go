package access

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEmulated(t *testing.T) {
	binfmtDir = t.TempDir()
	t.Cleanup(func() { binfmtDir = "/proc/sys/fs/binfmt_misc" })
	for name, text := range map[string]string{
		"status":        "enabled\n",
		"register":      "",
		"qemu-aarch64":  "enabled\ninterpreter /usr/bin/qemu-aarch64-static\n",
		"qemu-armv7l":   "disabled\ninterpreter /usr/bin/qemu-arm-static\n",
		"qemu-s390x":    "enabled\n",
		"riscv64-linux": "enabled\ninterpreter /run/binfmt/riscv64-linux\n",
		"python3.11":    "enabled\n",
	} {
		if err := os.WriteFile(filepath.Join(binfmtDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"aarch64-linux", "riscv64-linux"}, emulated()); diff != "" {
		t.Error(diff)
	}
}

func TestBuilderSystems(t *testing.T) {
	machines := filepath.Join(t.TempDir(), "machines")
	if err := os.WriteFile(machines, []byte("# comment\n@"+machines+"\n\nssh://a aarch64-linux,armv7l-linux key 4 # more\nssh://b\nssh://c -\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"":                            nil,
		"ssh://host":                  {"own"},
		"ssh://host - key":            {"own"},
		"ssh-ng://host x86_64-darwin": {"x86_64-darwin"},
		"@" + machines:                {"aarch64-linux", "armv7l-linux", "own", "own"},
		"@/no/such/file":              nil,
	} {
		t.Run(line, func(t *testing.T) {
			if diff := cmp.Diff(want, builderSystems(line, "own")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
