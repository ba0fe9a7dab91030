package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/text"
)

// version is set when a release is built, by Nix too. builtBy is set by scripts/build-dist alone, because only its
// bytes are those of a release.
var (
	version = unreleased
	builtBy = ""
)

const unreleased = "dev"

// programVersion returns the version, which is that of the module where "go install" has built the program.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == unreleased {
		return moduleVersion(info)
	}
	return version
}

// moduleVersion returns the version that Go has recorded, if there is one.
func moduleVersion(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return unreleased
}

// repository is where releases come from, and releaseWorkflow is the workflow there that builds and attests them.
const (
	repository      = "org/nix-matrix"
	releaseWorkflow = repository + "/.github/workflows/release.yml"
)

func newVersion(a *app) *cobra.Command {
	verify := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Prints the version, the system and the processor.

With --verify, it compares this program with the checksums of its release, SHA256SUMS, which
lie beside it or in ../share/doc/nix-matrix, and has gh, the GitHub CLI, check the attestation
that the release workflow of ` + repository + ` has signed for exactly this file. Without gh it
prints the command for that, to run where there is one. Checksums beside a program can be
replaced together with it, so the attestation is the proof, and a gh that you trust has to
check it.

Exits with 1 if a check fails, or if there is none: a program that Go or Nix has built from
the sources has neither checksums nor an attestation, and Nix can build it again to compare.`,
		Example: `  nix-matrix version
  nix-matrix version --verify`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := fmt.Fprintf(a.streams.out, "nix-matrix %s %s/%s\n", programVersion(), runtime.GOOS, runtime.GOARCH); err != nil || !verify {
				return err
			}
			return a.verify(cmd.Context())
		},
	}
	addFlag(cmd, flagvalue.Bool(&verify, false), "verify", "compare this program with the checksums and the attestation of its release")
	return cmd
}

// released matches the version of a release. A build between releases has the number of commits and a hash after it.
var released = lazyregexp.New(`^v\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?$`)

// verify compares this program with its release.
func (a *app) verify(ctx context.Context) error {
	file, err := os.Executable()
	if err == nil {
		file, err = filepath.EvalSymlinks(file)
	}
	if err != nil {
		return fmt.Errorf("cannot verify this program: %w", err)
	}
	sum, err := sha256Of(file)
	if err != nil {
		return fmt.Errorf("cannot verify this program: %w", err)
	}
	if err := a.print(fmt.Sprintf("%s has the SHA-256 %s\n", text.Line(file), sum)); err != nil {
		return err
	}
	if known := released().MatchString(version); !known || builtBy != "build-dist" {
		next := ""
		if known {
			next = ", or have Nix build it again and compare: nix build --rebuild --no-link github:" + repository + "/" + version
		}
		return fmt.Errorf("cannot verify %s: version %s was built from sources, and no release has checksums or an attestation for it. Install a release%s", text.Line(file), programVersion(), next)
	}
	compared, err := a.compare(file, sum)
	if err != nil {
		return err
	}
	attested, err := a.attested(ctx, file)
	if err == nil && !compared && !attested {
		err = fmt.Errorf("cannot verify %s: there is no SHA256SUMS of its release beside it, and no gh on PATH. Install gh, the GitHub CLI, and repeat this", text.Line(file))
	}
	return err
}

// compare compares the hash of this program with the checksums of its release, and reports whether there are any.
func (a *app) compare(file, sum string) (bool, error) {
	name := "nix-matrix-" + runtime.GOOS + "-" + runtime.GOARCH
	for _, list := range []string{"SHA256SUMS", "../share/doc/nix-matrix/SHA256SUMS"} {
		list = filepath.Join(filepath.Dir(file), list)
		want, err := listedSum(list, name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return false, fmt.Errorf("cannot verify %s: %w", text.Line(file), err)
		case want != sum:
			return false, fmt.Errorf("%s is not the program of %s: its SHA-256 is %s, and %s has %s for %s. Do not run it; install the release again",
				text.Line(file), version, sum, text.Line(list), want, name)
		}
		return true, a.print(fmt.Sprintf("%s has the same for %s\n", text.Line(list), name))
	}
	return false, a.print("There is no SHA256SUMS beside it\n")
}

// listedSum returns the checksum of a file in a list of sha256sum.
func listedSum(list, name string) (string, error) {
	const most = 64 << 10
	f, err := os.Open(list)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, most))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) == 2 && strings.TrimPrefix(fields[1], "*") == name {
			if sum, err := hex.DecodeString(fields[0]); err == nil && len(sum) == sha256.Size {
				return fields[0], nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("cannot read %s: %w", text.Line(list), err)
	}
	return "", fmt.Errorf("%s has no checksum for %s. Install the release again", text.Line(list), name)
}

// attested has gh check the attestation of this program, and reports whether there is a gh.
func (a *app) attested(ctx context.Context, file string) (bool, error) {
	args := []string{
		"attestation", "verify", file, "--repo", repository, "--signer-workflow", releaseWorkflow,
		"--source-ref", "refs/tags/" + version, "--deny-self-hosted-runners",
	}
	gh, err := exec.LookPath("gh")
	if err != nil {
		return false, a.print("There is no gh on PATH. Check the attestation where there is one:\n  gh " + strings.Join(args, " ") + "\n")
	}
	const grace, most = 5 * time.Second, 4 << 10
	cmd := child.Command(ctx, grace, gh, args...)
	_, err = cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		said := strings.TrimSpace(text.Clip(string(exit.Stderr), most))
		return true, fmt.Errorf("gh found no attestation of %s for %s, or could not look for one:\n%s\nIf gh lacks access, run \"gh auth login\"; else do not run this program", version, text.Line(file), said)
	}
	if err != nil {
		return true, fmt.Errorf("cannot run gh to check the attestation: %w", err)
	}
	return true, a.print(fmt.Sprintf("GitHub attests that %s built it from the tag %s\n", releaseWorkflow, version))
}

func sha256Of(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
