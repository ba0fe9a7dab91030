package access

import (
	"context"
	"io"
	"strings"

	"github.com/org/nix-matrix/pkg/secretdir"
)

// The environment variables with secrets. None is ever an argument.
const (
	SigningKeyVariable = "NIX_MATRIX_SIGNING_KEY"
	NetrcVariable      = "NIX_MATRIX_NETRC"
	EnvVariable        = "NIX_MATRIX_ENV"
	SSHKeyVariable     = "NIX_MATRIX_SSH_KEY"
	ConfVariable       = "NIX_MATRIX_CONF"
	GitHubVariable     = "NIX_MATRIX_GITHUB_ACCESS_TOKEN"
	EncryptionVariable = "NIX_MATRIX_ENCRYPTION_KEY"
	GitCryptVariable   = "NIX_MATRIX_GIT_CRYPT_KEY"
)

// A Host is the environment of the process: the source of secrets, and the log.
type Host struct {
	Getenv  func(string) string
	Secrets *secretdir.Dir // for files with secrets
	Log     Log
	Mask    func(secret string) // keeps a text out of the log of a job

	Running  bool   // in GitHub Actions, where nobody answers a question
	Hosted   bool   // on a runner of GitHub's, which ends with the job
	Withheld bool   // the run gets no secrets from GitHub
	JobToken string // the token of each workflow, which gives no access to private sources

	// IDToken returns a token by which this job proves its identity to the server that calls itself by an
	// audience; nil if it may not. Issuer is the address that such tokens name as theirs.
	IDToken func(ctx context.Context, audience string) (string, error)
	Issuer  string
	// ChangeRef is the ref of the change that the run is for, in full; empty if it is not known.
	ChangeRef string
}

// Log is where a person sees what happens.
type Log interface {
	io.Writer // for what Nix says
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// Has reports whether a variable has a text.
func (h *Host) Has(variable string) bool { return strings.TrimSpace(h.Getenv(variable)) != "" }
