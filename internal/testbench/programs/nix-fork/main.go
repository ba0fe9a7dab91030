// Command nix-fork runs one of Nix's programs and behaves as another implementation does,
// in what is known of it and matters here. It stands in for implementations that cannot be
// installed from a package registry, and is strict: what they refuse, it refuses.
//
//	nix-fork KIND DIRECTORY PROGRAM [ARGUMENT…]
//
// The program is in the directory. The kinds are
//
//   - lix, which is Lix 2.94 made from Nix 2.26: its daemon speaks the worker protocol 1.35
//     with clients of that version or a newer one, and without the operations that Lix has
//     removed; `nix path-info --json` prints a list and has no --json-format; a whole flake
//     has no name.
//   - nix-2.35, which is Nix 2.35 made from Nix 2.34: an evaluation leaves no source in the
//     store, but for those that derivations refer to.
//   - determinate, which is Determinate Nix 3 with lazy trees made from Nix 2.34: it also
//     says neither where a flake is in the store nor its hash, if that is not locked.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// versions are what `nix --version` says.
var versions = map[string]string{
	"lix":         "nix (Lix, like Nix) 2.94.0",
	"nix-2.35":    "nix (Nix) 2.35.2",
	"determinate": "nix (Determinate Nix 3.21.9) 2.34.8",
}

func main() {
	if len(os.Args) < 4 || versions[os.Args[1]] == "" {
		fmt.Fprintln(os.Stderr, "usage: nix-fork lix|nix-2.35|determinate DIRECTORY PROGRAM [ARGUMENT…]")
		os.Exit(2)
	}
	f := &fork{kind: os.Args[1], dir: os.Args[2]}
	err := f.run(os.Args[3], os.Args[4:])
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

type fork struct{ kind, dir string }

func (f *fork) run(program string, args []string) error {
	has := func(word string) bool { return slices.Contains(args, word) }
	lix := f.kind == "lix"
	switch {
	case program == "nix-daemon" && lix && has("--stdio"):
		return f.serve(args)
	case program != "nix":
		return f.become(program, args...)
	case has("--version"):
		_, err := fmt.Println(versions[f.kind])
		return err
	case lix:
		return f.lix(args)
	case has("eval") || has("flake"):
		return f.lazily(func() error { return f.lazy(args) })
	case has("config") && f.kind == "determinate":
		return f.editJSON(args, func(settings map[string]any) any {
			settings["lazy-trees"] = map[string]any{"value": true}
			return settings
		})
	}
	return f.become("nix", args...)
}

// become goes on as one of Nix's programs.
func (f *fork) become(name string, args ...string) error {
	program := filepath.Join(f.dir, name)
	return syscall.Exec(program, append([]string{program}, args...), os.Environ())
}

// program prepares one of Nix's programs, with the streams of this one.
func (f *fork) program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(f.dir, name), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// lix runs nix.
func (f *fork) lix(args []string) error {
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		if flag == "--json-format" {
			return fmt.Errorf("unrecognised flag '%s'", flag)
		}
		if flake, attr, ok := strings.Cut(arg, "#"); ok && strings.HasPrefix(attr, ".") && slices.Contains(args, "eval") {
			return fmt.Errorf("flake '%s' does not provide attribute '%s'", flake, attr)
		}
	}
	if slices.Contains(args, "path-info") && slices.Contains(args, "--json") {
		return f.editJSON(args, func(byPath map[string]any) any {
			list := []map[string]any{}
			for path, info := range byPath {
				known, ok := info.(map[string]any)
				if !ok {
					known = map[string]any{"valid": false}
				}
				known["path"] = path
				list = append(list, known)
			}
			return list
		})
	}
	return f.become("nix", args...)
}
