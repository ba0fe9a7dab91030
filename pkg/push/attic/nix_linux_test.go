package attic_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nar"
	"github.com/nix-community/go-nix/pkg/nixhash"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

// closure is a path with many references (too many for a header), one of which
// has a reference to itself, a symlink, an executable, an empty directory and a
// name that is no ASCII.
const closure = `
	let
		sh = name: refs: script: derivation {
			inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "@PATH@";
			args = [ "-ec" "echo ${toString refs} >&2; ${script}" ];
		};
		texts = builtins.genList (i: builtins.toFile "text-${toString i}" "text ${toString i}") 80;
		tree = sh "tree" [ ] ''
			mkdir -p $out/bin $out/empty
			echo $out > $out/self
			echo '#!/bin/sh' > $out/bin/run
			chmod +x $out/bin/run
			ln -s bin/run $out/link
			echo > $out/ä
		'';
	in sh "top" texts "echo ${tree} ${toString texts} > $out"
`

// nixIn returns the environment of a Nix whose store is a new one at /nix.
func nixIn(t *testing.T, version string, config ...string) func(program string, args ...string) (string, error) {
	t.Helper()
	path := testbench.NixPath(t, version)
	testbench.UseStore(t, t.TempDir())
	env := append(os.Environ(), "HOME="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir(), "NIX_REMOTE=",
		"NIX_CONFIG="+strings.Join(append(config, "experimental-features = nix-command"), "\n"))
	return func(program string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(path, program), args...)
		cmd.Env = env
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, &said)
		}
		return strings.TrimSpace(string(out)), err
	}
}

// TestNix pushes from one real store and has others substitute what was pushed,
// with the signatures checked.
func TestNix(t *testing.T) {
	nix := nixIn(t, testbench.NixVersions[0])
	must := func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	top := must(nix("nix-build", "--no-out-link", "--expr", strings.ReplaceAll(closure, "@PATH@", os.Getenv("PATH"))))
	var infos map[string]struct {
		NarHash, Deriver, CA string
		NarSize              int64
		References           []string
		Signatures           []string
	}
	if err := json.Unmarshal([]byte(must(nix("nix", "path-info", "--json", "--recursive", top))), &infos); err != nil {
		t.Fatal(err)
	}
	if len(infos) != 82 {
		t.Fatalf("the closure has %d paths", len(infos))
	}
	var paths []attic.Path
	for storePath, info := range infos {
		slices.Reverse(info.References) // an order that no signature is made of
		hash, err := nixhash.ParseAny(info.NarHash, nil)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, attic.Path{
			StorePath: storePath, NarHash: hex.EncodeToString(hash.Digest()), NarSize: info.NarSize, Deriver: info.Deriver,
			CA: info.CA, References: info.References, Signatures: info.Signatures,
		})
	}
	server, options := listen(t, attictest.Options{Dir: t.TempDir()})
	c := dial(t, options)
	program := filepath.Join(testbench.NixPath(t, testbench.NixVersions[0]), "nix-store")
	stats, err := c.Push(t.Context(), paths, func(ctx context.Context, storePath string) (io.ReadCloser, error) {
		if strings.Contains(storePath, "-text-") {
			return archive(storePath), nil // quicker, for so many
		}
		return dump(ctx, program, storePath)
	})
	if err != nil || stats.Uploaded != 82 {
		t.Fatalf("%+v, %v", stats, err)
	}
	contents := tree(t, filepath.Dir(top))

	address, err := url.Parse(c.Substituter())
	if err != nil {
		t.Fatal(err)
	}
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte("machine "+address.Hostname()+" password "+server.Token(true, false)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := []string{"substituters = " + c.Substituter(), "trusted-public-keys = " + c.PublicKey(), "netrc-file = " + netrc}
	for _, version := range testbench.NixVersions {
		t.Run("realise "+version, func(t *testing.T) {
			nix := nixIn(t, version, settings...)
			if _, err := nix("nix-store", "--realise", top); err != nil {
				t.Fatal(err)
			}
			if _, err := nix("nix-store", "--verify", "--check-contents"); err != nil {
				t.Error(err)
			}
			if got := tree(t, filepath.Dir(top)); got != contents {
				t.Errorf("got %s\nwant %s", got, contents)
			}
		})
	}
	t.Run("copy", func(t *testing.T) {
		nix := nixIn(t, testbench.NixVersions[0], settings...)
		if _, err := nix("nix", "copy", "--from", c.Substituter(), top); err != nil {
			t.Error(err)
		}
		deriver, err := nix("nix-store", "--query", "--deriver", top)
		if err != nil || deriver != infos[top].Deriver {
			t.Errorf("the deriver is %s, want %s (%v)", deriver, infos[top].Deriver, err)
		}
	})
	// Nix checks the signatures, which would not be noticed otherwise.
	other, err := attictest.New(attictest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("another key", func(t *testing.T) {
		nix := nixIn(t, testbench.NixVersions[0], settings[0], "trusted-public-keys = "+other.PublicKey(), settings[2])
		if _, err := nix("nix-store", "--realise", top); err == nil || !strings.Contains(err.Error(), "not signed") {
			t.Errorf("error: %v", err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		nix := nixIn(t, testbench.NixVersions[0], settings[:2]...)
		if _, err := nix("nix-store", "--realise", top); err == nil {
			t.Error("a private cache was read")
		}
	})
}

// dump is the NAR of a path, as nix-store writes it.
func dump(ctx context.Context, program, storePath string) (io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, program, "--dump", storePath)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{out, cmd}, cmd.Start()
}

// archive is the NAR of a path, as another program makes it.
func archive(storePath string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(nar.DumpPath(w, storePath)) }()
	return r
}

type process struct {
	io.ReadCloser
	cmd *exec.Cmd
}

func (p *process) Close() error {
	err := p.ReadCloser.Close()
	_ = p.cmd.Wait()
	return err
}

// tree is the names, kinds and contents of all that is below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), ".drv") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		switch {
		case info.Mode().IsRegular():
			data, err = os.ReadFile(path)
		case info.Mode()&os.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			data = []byte(target)
		}
		fmt.Fprintf(&all, "%s %s %q\n", path, info.Mode(), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
