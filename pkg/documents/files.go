package documents

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/text"
)

// DiskFull reports whether an error says that a disk is full, or a quota used up.
func DiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// CheckWritable returns an error if WriteFile would fail, as far as that is known before.
func CheckWritable(name string) error {
	dir := filepath.Dir(name)
	info, err := os.Stat(dir)
	switch {
	case err != nil || !info.IsDir():
		return fmt.Errorf("there is no directory %s", dir)
	case unix.Access(dir, unix.W_OK) != nil:
		return fmt.Errorf("cannot write to the directory %s: permission denied", dir)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return errors.New("is a directory")
	}
	return nil
}

// WriteFile writes a file as a whole or not at all. The umask decides who may read it.
func WriteFile(name string, data []byte) (err error) {
	const mode = 0o666
	f, err := os.OpenFile(filepath.Join(filepath.Dir(name), ".nix-matrix-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// FreshDir makes a directory for a Plan, and for the Results of its entries below it, without those of an
// earlier run.
func FreshDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove the results of the last run: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o750); err != nil {
		return fmt.Errorf("cannot make a directory for the results: %w", err)
	}
	return nil
}

// ReadFile returns the content of a file of at most limit bytes.
func ReadFile(name string, limit int64) ([]byte, error) { return readFile(name, limit, 0) }

// readFile returns the content of a file of at most limit bytes, opened with further flags.
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

// WritePlan writes the JSON of a Plan to a file, sealed if there is a key.
func (s *Store) WritePlan(name string, data []byte) error {
	if err := WriteFile(name, s.Seal.Seal(planName, data)); err != nil {
		return fmt.Errorf("cannot write the plan: %w", err)
	}
	return nil
}

// WriteResult writes a Result to a file, sealed if there is a key.
func (s *Store) WriteResult(name string, r *job.Result) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := WriteFile(name, s.Seal.Seal(resultName, data)); err != nil {
		return fmt.Errorf("cannot write the result: %w", err)
	}
	return nil
}

// WritePaths writes the JSON of the store paths of targets to a file, sealed if there is a key.
func (s *Store) WritePaths(name string, data []byte) error {
	if err := WriteFile(name, s.Seal.Seal(pathsName, data)); err != nil {
		return fmt.Errorf("cannot write the paths: %w", err)
	}
	return nil
}

// WriteReport writes a file of the report for an artifact, sealed if there is a key.
func (s *Store) WriteReport(name string, data []byte) error {
	if err := WriteFile(name, s.Seal.Seal(reportName, data)); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

// WriteUpdate writes an Update to a file, sealed if there is a key.
func (s *Store) WriteUpdate(name string, u *job.Update) error {
	data, err := u.Marshal()
	if err != nil {
		return err
	}
	if err := WriteFile(name, s.Seal.Seal(updateName, data)); err != nil {
		return fmt.Errorf("cannot write the update: %w", err)
	}
	return nil
}

// ReadUpdate returns the Update in a file, which any job of the run may have written.
func (s *Store) ReadUpdate(name string) (*job.Update, error) {
	data, err := readFile(name, maxUpdate, unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err == nil {
		data, err = s.Seal.Open(updateName, data)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the update: %w", err)
	}
	return job.ParseUpdate(data)
}

// ReadResults returns all Results in a directory. Because strangers can write to an artifact, it
// follows no symlink and reads within limits. A file that is no Result is an error, returned together
// with the other Results.
func (s *Store) ReadResults(dir string) ([]*job.Result, error) {
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
		var r *job.Result
		if err == nil {
			r, err = s.parseResult(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", name, err))
			continue
		}
		results = append(results, r)
	}
	return results, errors.Join(errs...)
}

// resultFiles returns the sorted names of the files that may be Results.
func resultFiles(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxFileCount + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > maxFileCount {
		return nil, fmt.Errorf("%s has more than %d files. Give a directory with nothing but the results of one run", dir, maxFileCount)
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

// SealLogs seals the *.log files of a directory in place, if there is a key.
func (s *Store) SealLogs(dir string) error {
	if s.Seal == nil {
		return nil
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is ours
	for _, log := range logs {
		if err := s.sealFile(log); err != nil {
			return fmt.Errorf("cannot seal the log %s: %w", log, err)
		}
	}
	return nil
}

// sealFile replaces a log with its sealed form.
func (s *Store) sealFile(name string) (err error) {
	plain, err := os.Open(name)
	if err != nil {
		return err
	}
	defer plain.Close()
	sealed, err := os.CreateTemp(filepath.Dir(name), ".nix-matrix-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(sealed.Name())
		}
	}()
	w, err := s.Seal.NewWriter(sealed, logName)
	if err == nil {
		_, err = io.Copy(w, plain)
		err = errors.Join(err, w.Close())
	}
	if err = errors.Join(err, sealed.Close()); err != nil {
		return err
	}
	return os.Rename(sealed.Name(), name)
}

// Unseal writes the content of a sealed file: a Plan, a Result, a log, a JUnit report, the paths of targets, or an Update.
func (s *Store) Unseal(w io.Writer, name string) error {
	for _, document := range []string{planName, resultName, logName, reportName, pathsName, updateName} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := s.Seal.NewReader(f, document)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		// The first piece does not open as another document.
		opened := bufio.NewReader(r)
		if _, err := opened.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if _, err := opened.WriteTo(w); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("%s: %w: it was changed or cut off, or is neither a plan nor a result nor a log, nor a JUnit report, nor paths, nor an update", name, pack.ErrSeal)
}
