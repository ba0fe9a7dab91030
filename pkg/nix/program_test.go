package nix

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// nixpkgs writes a flake with programs like those of nixpkgs into a git repository, and returns
// its name.
func nixpkgs(t *testing.T, programs string) string {
	t.Helper()
	dir := t.TempDir()
	text := `{ outputs = _: let
		d = system: name: more: derivation ({ inherit name system; builder = "/bin/sh"; args = [ "-c" more.build ]; } // removeAttrs more [ "build" ]);
		bin = where: let to = "$" + where; in "PATH=` + os.Getenv("PATH") + `; mkdir -p ${to}/bin; printf '#!/bin/sh\necho from the store\n' >${to}/bin/tool; chmod 755 ${to}/bin/tool";
	in { legacyPackages = builtins.listToAttrs (map (system: { name = system; value = let tool = d system "tool" { build = bin "out"; }; in {` + programs + `}; }) [ "x86_64-linux" "aarch64-linux" ]); }; }`
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "git init -q && git add . && git -c user.name=a -c user.email=a@example.org commit -qm first")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// A program is found on PATH, else it is evaluated once, and workers realise it without an
// evaluator.
func TestPrograms(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		flake := nixpkgs(t, `
			inherit tool;
			split = d system "split" { outputs = [ "out" "bin" ]; build = "echo >$out; ${bin "bin"}"; };
			empty = d system "empty" { build = "echo > $out"; };
			text = "a text";
			evil = { type = "derivation"; drvPath = "--plugin-files"; out.outPath = "/etc/passwd"; };
			evilOut = tool // { out.outPath = "--plugin-files"; };
			fails = throw "not on ${system}";
		`)
		ctx := t.Context()
		resolved, err := n.ResolvePrograms(ctx, flake, "tool", "x86_64-linux", "aarch64-linux", "riscv64-linux")
		if err == nil || !strings.Contains(err.Error(), "for riscv64-linux: ") || len(resolved) != 2 {
			t.Fatalf("got %v, %v", resolved, err)
		}
		tool := resolved["x86_64-linux"]
		if tool.OutPath == resolved["aarch64-linux"].OutPath || tool.Name != "tool" || tool.Output != "out" {
			t.Errorf("got %v", resolved)
		}
		split, err := n.ResolvePrograms(ctx, flake, "split", "x86_64-linux")
		if got := split["x86_64-linux"]; err != nil || got.Output != "bin" || !strings.HasSuffix(got.OutPath, "-split-bin") {
			t.Errorf("got %v, %v", split, err)
		}
		for name, want := range map[string]string{"text": "", "evil": "not a derivation", "evilOut": "not a derivation", "fails": "not on x86_64-linux", "none": "none"} {
			if got, err := n.ResolvePrograms(ctx, flake, name, "x86_64-linux"); err == nil || len(got) > 0 || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
		}

		// A worker must not evaluate.
		script(t, places["TMPDIR"], "nix", `case " $* " in *" eval "*|*" build "*|*" flake "*) echo "error: no evaluator: $*" >&2; exit 1;; esac
PATH=${PATH#*:} exec nix "$@"`)
		worker := *n
		worker.env = append([]string{"PATH=" + places["TMPDIR"] + string(os.PathListSeparator) + os.Getenv("PATH")}, n.env...)
		found, release, err := worker.WithPrograms(tool, Program{Name: "other"}).FindProgram(ctx, "tool")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if out, err := exec.Command(found).Output(); err != nil || string(out) != "from the store\n" || found != tool.OutPath+"/bin/tool" {
			t.Errorf("%s says %q, %v", found, out, err)
		}
		tool.DrvPath = "" // it can be fetched, or is valid
		if _, _, err := worker.WithPrograms(tool).FindProgram(ctx, "tool"); err != nil {
			t.Error(err)
		}
		tool.OutPath = resolved["aarch64-linux"].OutPath
		if _, _, err := worker.WithPrograms(tool).FindProgram(ctx, "tool"); err == nil || !strings.Contains(err.Error(), "cannot fetch "+tool.OutPath) {
			t.Errorf("a program of no package: %v", err)
		}
		empty, err := n.ResolvePrograms(ctx, flake, "empty", "x86_64-linux")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := worker.WithPrograms(empty["x86_64-linux"]).FindProgram(ctx, "empty"); err == nil || !strings.Contains(err.Error(), "has no bin/empty") {
			t.Errorf("without a program: %v", err)
		}
		if _, _, err := worker.FindProgram(ctx, "tool"); err == nil || !strings.Contains(err.Error(), "cannot find the program tool: it is not on PATH, and discovery resolved none for x86_64-linux. Install") {
			t.Errorf("an unresolved program: %v", err)
		}

		evaluates := *n
		evaluates.nixpkgs = flake
		if found, _, err := evaluates.FindProgram(ctx, "tool"); err != nil || !strings.HasSuffix(found, "-tool/bin/tool") {
			t.Errorf("got %s, %v", found, err)
		}
		if found, _, err := evaluates.FindProgram(ctx, "sh"); err != nil || strings.HasPrefix(found, "/nix/store") {
			t.Errorf("a program on PATH: %s, %v", found, err)
		}
		if _, _, err := evaluates.FindProgram(ctx, "fails"); err == nil || !strings.Contains(err.Error(), "cannot evaluate "+flake+"#fails: for x86_64-linux: ") {
			t.Errorf("got %v", err)
		}
	})
}

// The hash in a reference is checked with all versions, even if Nix itself does not.
func TestNarHash(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		flake := nixpkgs(t, "inherit tool;")
		out, err := n.output(t.Context(), "nix", raw("flake", "metadata", "--json", "git+file://"+flake))
		if err != nil {
			t.Fatal(err)
		}
		hash := regexp.MustCompile(`"narHash":"(sha256-[^"]*)"`).FindSubmatch(out)
		if hash == nil {
			t.Fatalf("there is no hash in %s", out)
		}
		right := string(hash[1])
		const wrong = "sha256-AAAALZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw="
		for ref, ok := range map[string]bool{
			"git+file://" + flake + "?narHash=" + right:                                           true,
			"git+file://" + flake + "?narHash=" + wrong:                                           false,
			"git+file://" + flake + "?shallow=1&narHash=" + strings.ReplaceAll(wrong, "=", "%3D"): false,
		} {
			got, err := n.ResolvePrograms(t.Context(), ref, "tool", "x86_64-linux")
			if ok != (err == nil) || !ok && !strings.Contains(strings.ToLower(err.Error()), "hash") {
				t.Errorf("%s: %v, %v", ref, got, err)
			}
		}
	})
}

// The pinned reference has a commit and the hash of its files.
func TestDefaultNixpkgs(t *testing.T) {
	pinned := regexp.MustCompile(`^github:NixOS/nixpkgs/[0-9a-f]{40}\?narHash=sha256-[A-Za-z0-9+/]{43}=$`)
	if !pinned.MatchString(DefaultNixpkgs) {
		t.Errorf("%s is not pinned", DefaultNixpkgs)
	}
}
