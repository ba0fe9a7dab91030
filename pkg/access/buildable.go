package access

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// BinfmtDir is where Linux lists the programs that it runs by an interpreter.
var BinfmtDir = "/proc/sys/fs/binfmt_misc"

// Buildable returns the systems that this machine builds for: its own, those that Nix's
// settings name, those of the remote builders, and those that the kernel emulates. It returns
// nil for a remote store, which decides that itself.
func (n *Nix) Buildable() []string {
	if n.Remote != "" {
		return nil
	}
	systems := append([]string{n.System}, n.Setting("extra-platforms")...)
	systems = append(systems, n.builderSystems()...)
	systems = append(systems, Emulated()...)
	slices.Sort(systems[1:])
	var each []string
	for _, system := range systems {
		// Nix also counts the levels of x86-64, for which there are no packages.
		if !slices.Contains(each, system) && !strings.HasPrefix(system, "x86_64-v") {
			each = append(each, system)
		}
	}
	return each
}

// OneSlot reports whether Nix builds one derivation of a build at a time: its setting max-jobs is 1, and it has
// no remote builders.
func (n *Nix) OneSlot() bool { return n.Integer("max-jobs") == 1 && len(n.builderSystems()) == 0 }

// builderSystems returns the systems of all remote builders.
func (n *Nix) builderSystems() []string {
	var systems []string
	for _, line := range slices.Concat(n.config.Builders, strings.FieldsFunc(n.Text("builders"), func(c rune) bool { return c == '\n' || c == ';' })) {
		systems = append(systems, builderSystems(line, n.System)...)
	}
	return systems
}

// builderSystems returns the systems of a line of the setting builders, or of all lines of the
// file that it names as @FILE. A builder without systems has the one of this machine.
func builderSystems(line, own string) []string {
	fields := strings.Fields(line)
	switch {
	case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		return nil
	case strings.HasPrefix(fields[0], "@"):
		data, err := os.ReadFile(strings.TrimPrefix(fields[0], "@"))
		if err != nil {
			return nil // to Nix, a missing file is an empty one
		}
		var systems []string
		for line := range strings.Lines(string(data)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "@") {
				systems = append(systems, builderSystems(line, own)...)
			}
		}
		return systems
	case len(fields) == 1 || fields[1] == "-":
		return []string{own}
	}
	return strings.Split(fields[1], ",")
}

// Emulated returns the Linux systems whose programs the kernel runs by an interpreter, such as
// qemu's, under the names that qemu's and NixOS's registrations use.
func Emulated() []string {
	var systems []string
	files, _ := filepath.Glob(filepath.Join(BinfmtDir, "*")) // the pattern is valid
	for _, file := range files {
		name := filepath.Base(file)
		system := strings.TrimPrefix(name, "qemu-") + "-linux"
		if name == strings.TrimPrefix(name, "qemu-") {
			system = name // NixOS registers aarch64-linux
		}
		if !slices.Contains([]string{"aarch64-linux", "armv6l-linux", "armv7l-linux", "i686-linux", "riscv64-linux", "x86_64-linux"}, system) {
			continue
		}
		if data, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(data), "enabled") {
			systems = append(systems, system)
		}
	}
	return systems
}
