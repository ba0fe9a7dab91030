package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/text"
)

// What this program reads into memory at most, in bytes. Whoever can write an artifact
// or a cache chooses how large a document is.
const (
	maxPlan    = 256 << 20
	maxRecord  = 64 << 20
	maxNeeds   = 64 << 20 // GitHub lets all outputs of a run have 50 MB
	maxBefore  = 256 << 20
	maxResult  = 64 << 20
	maxResults = 512 << 20 // all of a directory together
	// maxResultFiles is how many files a directory of Results may have: a matrix has 256
	// entries at most.
	maxResultFiles = 1024
)

// readFile reads a file of at most limit bytes. Flags are added to those of os.OpenFile.
func readFile(name string, limit int64, flags int) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is larger than %s, the most that is read", text.Size(limit))}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// readResults reads all Results of a directory, which others have filled: no symlink is
// followed, and no more is read than fits into the limits. A Result that can't be read
// is an error beside the others.
func readResults(dir string, seal *pack.Key) ([]*job.Result, error) {
	names, err := resultFiles(dir)
	if err != nil {
		return nil, err
	}
	var results []*job.Result
	var errs []error
	room := int64(maxResults)
	for _, name := range names {
		data, err := readFile(filepath.Join(dir, name), min(room, maxResult), unix.O_NOFOLLOW|unix.O_NONBLOCK)
		room -= int64(len(data))
		if err == nil {
			data, err = seal.Open(resultDocument, data)
		}
		var r *job.Result
		if err == nil {
			r, err = job.ParseResult(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", name, err))
			continue
		}
		results = append(results, r)
	}
	return results, errors.Join(errs...)
}

// resultFiles returns the names of the files that may be Results, in order.
func resultFiles(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxResultFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > maxResultFiles {
		return nil, fmt.Errorf("%s has more than %d files: give a directory with nothing but the results of one run", dir, maxResultFiles)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
