package storecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

// RestoreInputs adds the sources of a flake's inputs, which are at these paths, from a cache
// to the store. It reads the pack that was saved for the same paths, else the newest one, which
// may have some of them. Of a pack's metadata it uses only the parts that the path proves.
func RestoreInputs(ctx context.Context, to RestoreNix, by engine.Engine, from cache.Cache, id string, paths []string, seal *pack.Key) (Restored, error) {
	same := inputsPrefix(id, seal, paths)
	blob, err := from.Open(ctx, same, same, inputsStart(id, seal))
	if errors.Is(err, cache.ErrMiss) {
		return Restored{}, nil
	}
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore flake inputs: %w", err)
	}
	index, err := pack.ReadIndex(ctx, blob, "", seal)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore flake inputs: %w", err)
	}
	var numbers []int
	for n := range index.Records {
		rec := &index.Records[n]
		if slices.Contains(paths, rec.Path) && rec.Path == storepath.Source(rec.NarHash) {
			rec.References, rec.Deriver, rec.Proof = nil, "", pack.Proof{CA: storepath.SourceCA(rec.NarHash)}
			numbers = append(numbers, n)
		}
	}
	restored, err := restoreRecords(ctx, to, by, blob, index, numbers, Proven())
	if err != nil {
		return restored, fmt.Errorf("cannot restore flake inputs: %w", err)
	}
	return restored, nil
}

// SaveInputs saves the valid ones of a flake's inputs in a cache, for a flake with all the
// inputs at paths.
func SaveInputs(ctx context.Context, from Nix, to cache.Cache, id string, paths, valid []string, seal *pack.Key) (err error) {
	f, err := os.CreateTemp("", "nix-matrix-inputs-")
	if err != nil {
		return fmt.Errorf("cannot save flake inputs: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	summary, err := packPaths(ctx, from, f, valid, seal)
	if err != nil {
		return fmt.Errorf("cannot save flake inputs: %w", err)
	}
	err = to.Save(ctx, inputsPrefix(id, seal, paths)+sumOf(inputsFormat, "", valid), f, summary.Size)
	if err != nil && !errors.Is(err, cache.ErrExists) { // another job saved them at the same time
		return fmt.Errorf("cannot save flake inputs: %w", err)
	}
	return nil
}

const inputsFormat = "nix-matrix inputs 1"

// inputsStart returns the prefix of the keys of all inputs, sealed with a key or in clear.
func inputsStart(id string, seal *pack.Key) string {
	return job.InputsPrefix(id, seal.Fingerprint())
}

// inputsPrefix returns the prefix of the keys of packs that were saved for these paths.
func inputsPrefix(id string, seal *pack.Key, paths []string) string {
	return inputsStart(id, seal) + sumOf(inputsFormat, "", paths) + "-"
}
