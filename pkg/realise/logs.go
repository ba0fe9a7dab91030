package realise

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// maxLog is the most of a derivation's log in a file, in bytes.
const maxLog = 256 << 20

// logs writes the logs of derivations to files while they are built, and keeps those of failed
// ones. A log that cannot be written is no failure.
type logs struct {
	dir  string
	open map[string]*logFile
	old  map[string]bool // files of an earlier build
}

type logFile struct {
	f    *os.File
	w    *bufio.Writer
	size int
}

// newLogs returns logs in a directory, from which it removes older logs unless they are kept.
func newLogs(dir string, keep bool) *logs {
	l := &logs{dir: dir, open: map[string]*logFile{}, old: map[string]bool{}}
	switch {
	case dir == "":
	case keep:
		for _, file := range l.files() {
			l.old[file] = true
		}
	default:
		_ = os.RemoveAll(dir)
	}
	return l
}

func (l *logs) files() []string {
	files, _ := filepath.Glob(filepath.Join(l.dir, "*.log"))
	return files
}

func (l *logs) path(drv string) string {
	name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(drv), ".drv"), "?", "_") // artifacts refuse it
	return filepath.Join(l.dir, name+".log")
}

func (l *logs) see(e nix.Event) {
	if l.dir == "" {
		return
	}
	switch e.Kind {
	case nix.BuildLine:
		l.write(e.Path, e.Text)
	case nix.BuildStopped:
		l.end(e.Path)
	case nix.BuildStarted, nix.FetchStarted, nix.FetchStopped, nix.FetchCounted, nix.FetchProgress, nix.ErrorMessage, nix.WarnMessage:
	}
}

func (l *logs) write(drv, line string) {
	file := l.open[drv]
	if file == nil {
		file = &logFile{}
		l.open[drv] = file
		if err := os.MkdirAll(l.dir, 0o750); err != nil {
			return
		}
		f, err := os.Create(l.path(drv))
		if err != nil {
			return
		}
		file.f, file.w = f, bufio.NewWriterSize(f, 64<<10)
	}
	if file.w == nil || file.size > maxLog {
		return
	}
	if file.size += len(line) + 1; file.size > maxLog {
		line = fmt.Sprintf("… the log is longer than %d MiB", maxLog>>20)
	}
	_, _ = file.w.WriteString(line)
	_ = file.w.WriteByte('\n')
}

func (l *logs) end(drv string) {
	if file := l.open[drv]; file != nil && file.f != nil {
		_ = file.w.Flush()
		_ = file.f.Close()
	}
	delete(l.open, drv)
}

// keepFailed removes the logs of derivations that did not fail.
func (l *logs) keepFailed(failed []string) {
	if l.dir == "" {
		return
	}
	kept := maps.Clone(l.old)
	for _, drv := range failed {
		kept[l.path(drv)] = true
	}
	for _, file := range l.files() {
		if !kept[file] {
			_ = os.Remove(file)
		}
	}
	_ = os.Remove(l.dir) // if it is empty
}

// file returns the name of the file with the log of a derivation, or "" if there is none.
func (l *logs) file(drv string) string {
	if l.dir == "" {
		return ""
	}
	if _, err := os.Stat(l.path(drv)); err != nil {
		return ""
	}
	return l.path(drv)
}

func (l *logs) close() {
	for drv := range l.open {
		l.end(drv)
	}
}
