package main

import (
	"path/filepath"

	"github.com/org/nix-matrix/pkg/job"
)

// placeLogs notes of each failure of an entry where its whole log is to be found.
func (w *worker) placeLogs(e *job.Entry, failures []job.Failure) {
	for i := range failures {
		f := &failures[i]
		switch {
		case f.LogFile == "":
		case w.artifact: // by action.yml
			f.LogArtifact, f.LogFile = w.app.id+".log."+e.ID, filepath.Base(f.LogFile)
		default:
			f.NixLog = w.site.remote == ""
			if path, err := filepath.Abs(f.LogFile); err == nil {
				f.LogFile = path
			}
		}
	}
}
