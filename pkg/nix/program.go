package nix

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/internal/valid"
)

// DefaultNixpkgs is the flake that programs come from unless the user names another
// one: a commit of nixos-26.05, the last release for x86_64-darwin, whose packages are in
// cache.nixos.org.
const DefaultNixpkgs = "github:NixOS/nixpkgs/21a67dc470149f337cecafbe965d8d252a390518?narHash=sha256-ugpsyk3NM2s87vXfUiIIiibbJ4Pp0JPS5p/3mfs+q+c="

// ParseFlakeReference returns a text that is the reference of a flake. A text that Nix would take for
// something else is refused.
func ParseFlakeReference(text string) (string, error) {
	if text == "" || strings.HasPrefix(text, "-") || strings.ContainsAny(text, "# \t\r\n\x00") {
		return "", errors.New("must be the reference of a flake, such as github:NixOS/nixpkgs/nixos-26.05")
	}
	return text, nil
}

// A Program is bin/Name of a package of nixpkgs that was evaluated for a system.
type Program struct {
	Name    string
	DrvPath string // empty where OutPath is only substituted, never built
	Output  string // of the derivation
	OutPath string
}

// resolve is a function of a package that returns its derivation and the output that lib.getBin
// takes. The path is not called outPath, because a set with outPath is printed as that.
const resolve = `p: let output = if p ? bin then "bin" else if p ? out then "out" else builtins.head p.outputs; in
{ inherit (p) drvPath; inherit output; path = p.${output}.outPath; }`

// ResolvePrograms evaluates a package of a flake such as nixpkgs for each of the systems.
// Systems that fail are missing in the map and are in the error, which is returned with it.
func (n *Nix) ResolvePrograms(ctx context.Context, flake, name string, systems ...string) (map[string]Program, error) {
	if err := cmp.Or(valid.Name(name), valid.All(valid.System, systems...)); err != nil {
		return nil, err
	}
	if err := n.checkNarHash(ctx, flake); err != nil {
		return nil, err
	}
	programs := map[string]Program{}
	var errs []error
	for _, system := range systems {
		p, err := n.resolveProgram(ctx, flake, name, system)
		if err != nil {
			errs = append(errs, fmt.Errorf("for %s: %w", system, err))
			continue
		}
		programs[system] = p
	}
	return programs, errors.Join(errs...)
}

func (n *Nix) resolveProgram(ctx context.Context, flake, name, system string) (Program, error) {
	attr := "#legacyPackages." + system + "." + name
	if n.EvaluatesWholeFlakes() {
		attr = strings.Replace(attr, "#", "#.", 1) // no prefix is tried before it
	}
	with := args("eval", "--json", "--no-eval-cache", "--no-write-lock-file", "--apply").checked(expression, resolve)
	out, err := n.output(ctx, "nix", with.operands(flakeAttr, flake+attr))
	if err != nil {
		return Program{}, err
	}
	var result struct{ DrvPath, Output, Path string }
	if err := json.Unmarshal(out, &result); err != nil {
		return Program{}, fmt.Errorf("cannot read the output of nix eval for %s: %w", name, err)
	}
	if cmp.Or(valid.Derivation(result.DrvPath), valid.StorePath(result.Path), valid.Output(result.Output)) != nil {
		return Program{}, fmt.Errorf("%s of %s is not a derivation with known output paths", name, flake)
	}
	return Program{Name: name, DrvPath: result.DrvPath, Output: result.Output, OutPath: result.Path}, nil
}

// checkNarHash fetches a flake and compares its content with the narHash of the reference,
// because versions before 2.21 don't check that of github: and git+… references.
func (n *Nix) checkNarHash(ctx context.Context, flake string) error {
	_, query, _ := strings.Cut(flake, "?")
	want := ""
	for parameter := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(parameter, "="); name == "narHash" {
			if decoded, err := url.PathUnescape(value); err == nil {
				value = decoded
			}
			want = value
		}
	}
	if want == "" {
		return nil
	}
	out, err := n.output(ctx, "nix", args("flake", "metadata", "--json", "--no-write-lock-file").operands(flakeRef, flake))
	if err != nil {
		return err
	}
	var metadata struct{ Locked struct{ NarHash string } }
	if err := json.Unmarshal(out, &metadata); err != nil {
		return fmt.Errorf("cannot read nix flake metadata: %w", err)
	}
	if got := metadata.Locked.NarHash; got != "" && got != want {
		return fmt.Errorf("%s has the NAR hash %s", flake, got)
	}
	return nil
}

// WithPrograms returns the same Nix with resolved programs, which FindProgram needs not
// evaluate.
func (n *Nix) WithPrograms(programs ...Program) *Nix {
	with := *n
	with.programs = programs
	return &with
}

// FindProgram returns the path of a program that is not part of Nix: from PATH, else from
// WithPrograms, else from the package of the same name in the flake Config.Nixpkgs. It is
// protected from the garbage collector until release is called.
func (n *Nix) FindProgram(ctx context.Context, name string) (program string, release func(), err error) {
	if err := valid.Name(name); err != nil {
		return "", nil, err
	}
	if program, err = exec.LookPath(name); err == nil {
		return program, func() {}, nil
	}
	p, err := n.knownProgram(ctx, name)
	if err == nil {
		program, err = n.realiseProgram(ctx, p)
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot find the program %s: it is not on PATH, and %w. Install it in a step before this one", name, err)
	}
	roots, err := n.AddTempRoots(ctx, p.OutPath)
	if err != nil {
		return program, func() {}, nil //nolint:nilerr // the garbage collector is not likely to come
	}
	return program, func() { _ = roots.Close() }, nil
}

func (n *Nix) knownProgram(ctx context.Context, name string) (Program, error) {
	for _, p := range n.programs {
		if p.Name == name {
			return p, nil
		}
	}
	if n.nixpkgs == "" {
		return Program{}, fmt.Errorf("discovery resolved none for %s", n.System)
	}
	programs, err := n.ResolvePrograms(ctx, n.nixpkgs, name, n.System)
	if err != nil {
		return Program{}, fmt.Errorf("cannot evaluate %s#%s: %w", n.nixpkgs, name, err)
	}
	return programs[n.System], nil
}

// realiseProgram fetches or builds a program.
func (n *Nix) realiseProgram(ctx context.Context, p Program) (string, error) {
	err := valid.StorePath(p.OutPath)
	if err != nil {
		return "", err
	}
	if p.DrvPath == "" {
		err = n.Substitute(ctx, nil, p.OutPath)
	} else {
		// Entries that are built at once on one machine wait for each other here.
		_, err = n.WithOptions(Set("build-poll-interval", "1")).output(ctx, "nix-store", args("--realise").operands(valid.Realisable, p.DrvPath+"!"+p.Output))
	}
	if err != nil {
		return "", fmt.Errorf("cannot fetch %s: %w", p.OutPath, err)
	}
	program := filepath.Join(p.OutPath, "bin", p.Name)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%s has no bin/%s", p.OutPath, p.Name)
	}
	return program, nil
}
