// Command release makes the files of a GitHub release from the binaries that a release tag carries: archives,
// Debian packages, a list of what is in the binaries (an SBOM), checksums, and the notes.
//
// The same binaries, version and time give the same bytes on every machine. It imports the standard library
// alone, because the tests of scripts run it in a module of their own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

const usage = `Usage: release notes VERSION
       release files --version VERSION --time SECONDS --binaries DIR --output DIR

notes prints the section of CHANGELOG.md for a version. files writes the files of a release into
the directory --output, from nix-matrix-OS-ARCH and SHA256SUMS in the directory --binaries.
Both run in the root of the repository.
`

func main() {
	err := run(context.Background(), os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, "release: ", err, "\n", usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "notes":
		return printNotes(args[1])
	case len(args) > 0 && args[0] == "files":
		return writeFiles(ctx, args[1:])
	}
	return errUsage
}

// versions matches a version of a release: semantic versioning without build metadata.
var versions = regexp.MustCompile(`^v(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$`)

func checkVersion(version string) error {
	if !versions.MatchString(version) {
		return fmt.Errorf("%q is not a version: it must be like v1.2.3 or v1.2.3-rc.1", version)
	}
	return nil
}

func printNotes(version string) error {
	if err := checkVersion(version); err != nil {
		return err
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	notes, err := notesOf(string(changelog), version)
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(notes)
	return err
}

func writeFiles(ctx context.Context, args []string) error {
	var r release
	flags := flag.NewFlagSet("files", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "version of the release")
	seconds := flags.Int64("time", 0, "time of all files, in seconds since 1970")
	binaries := flags.String("binaries", "dist", "directory with the binaries")
	output := flags.String("output", "", "directory for the files, which is made")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *output == "" || *seconds <= 0 {
		return errUsage
	}
	if err := checkVersion(r.version); err != nil {
		return err
	}
	r.time = time.Unix(*seconds, 0).UTC()
	if err := r.read(ctx, *binaries); err != nil {
		return err
	}
	files, err := r.files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*output, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(*output, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}
