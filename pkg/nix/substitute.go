package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// Substitute fetches as many of the paths and of their references as substituters have. It calls
// counted, unless that is nil, with each change of the paths that have arrived and the bytes that
// are expected. Only warnings and errors of Nix go to the log. It is an error if the substituters
// have not all of the paths.
func (n *Nix) Substitute(ctx context.Context, counted func(Traffic), paths ...string) error {
	const mostMessages = 20
	var errs []error
	messages := 0
	for _, piece := range chunks(paths) {
		cmd := n.commandWithCredentials(ctx, "nix-store", args("--realise", "--keep-going", "--log-format", "internal-json", "-v").operands(valid.StorePath, piece...))
		cmd.Stdout = io.Discard
		err := n.realise(cmd, func(e Event) {
			switch {
			case e.Kind == FetchCounted && counted != nil:
				counted(e.Traffic)
			case e.Kind == WarnMessage || e.Kind == ErrorMessage:
				if messages++; n.log != nil && messages <= mostMessages {
					_, _ = fmt.Fprintln(n.log, e.Text) // the log is for people only
				}
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot fetch from substituters: %w", err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Forecast returns how many bytes the paths that Nix would fetch for outputs, given as for
// Realise, add to the store. Paths that are built are not counted.
func (n *Nix) Forecast(ctx context.Context, outputs []string) (int64, error) {
	cmd := n.commandWithCredentials(ctx, "nix-store", args("--realise", "--dry-run").operands(valid.Realisable, outputs...))
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	if err := n.run(cmd); err != nil {
		return 0, fmt.Errorf("cannot ask Nix for the paths to fetch: %w", err)
	}
	return parseUnpacked(stderr.String()), nil
}

var unpackedPattern = lazyregexp.New(`([0-9.]+) ([KMGT])iB unpacked\)`)

// parseUnpacked returns the unpacked size that a dry run prints, in bytes.
func parseUnpacked(stderr string) int64 {
	m := unpackedPattern().FindStringSubmatch(text.Plain(stderr))
	if m == nil {
		return 0
	}
	size, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0
	}
	return int64(size * math.Pow(1024, float64(strings.Index("KMGT", m[2])+1)))
}

// ToBuild returns the derivations that Nix would build for outputs, given as for Realise.
func (n *Nix) ToBuild(ctx context.Context, outputs []string) ([]string, error) {
	built := map[string]bool{}
	for _, piece := range chunks(outputs) {
		var stderr bytes.Buffer
		cmd := n.commandWithCredentials(ctx, "nix-store", args("--realise", "--dry-run").operands(valid.Realisable, piece...))
		cmd.Stdout, cmd.Stderr = io.Discard, &stderr
		if err := n.run(cmd); err != nil {
			return nil, fmt.Errorf("cannot ask Nix for the derivations to build: %w", err)
		}
		maps.Copy(built, parseDryRun(stderr.String()))
	}
	return slices.Sorted(maps.Keys(built)), nil
}

// parseDryRun returns the derivations that a dry run lists as those that would be built.
func parseDryRun(stderr string) map[string]bool {
	listed := map[string]bool{}
	within := false
	for line := range strings.Lines(text.Plain(stderr)) {
		line = strings.TrimRight(line, "\n")
		path, indented := strings.CutPrefix(line, "  /nix/store/")
		switch {
		case !indented:
			within = strings.Contains(line, " will be built:")
		case within:
			listed["/nix/store/"+path] = true
		}
	}
	return listed
}
