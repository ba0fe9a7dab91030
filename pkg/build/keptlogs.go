package build

import (
	"path/filepath"

	"github.com/org/nix-matrix/pkg/job"
)

// placeLogs records for each failure of an entry where its whole log is.
func (w *Worker) placeLogs(e *job.Entry, failures []job.Failure) {
	for i := range failures {
		f := &failures[i]
		switch {
		case f.LogFile == "":
		case w.LogArtifact != "":
			f.LogArtifact, f.LogFile = w.LogArtifact+e.ID, filepath.Base(f.LogFile)
		default:
			f.NixLog = w.Env.Remote == ""
			if path, err := filepath.Abs(f.LogFile); err == nil {
				f.LogFile = path
			}
		}
	}
}
