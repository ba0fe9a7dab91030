// Package action is the GitHub surface: inputs, outputs, annotations, the job summary, the
// REST API and the tokens of a job's identity. Outside of GitHub Actions, only inputs and the API do anything.
package action

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sethvargo/go-githubactions"

	"github.com/org/nix-matrix/pkg/text"
)

// MaxSummary is how large the summary of a step may be, in bytes.
const MaxSummary = 1 << 20

// Action is the job that this program runs in.
type Action struct {
	getenv   func(string) string
	commands *githubactions.Action
}

// New returns the job with an environment and the stream for workflow commands, which the
// runner reads as the log.
func New(getenv func(string) string, log io.Writer) *Action {
	return &Action{
		getenv:   getenv,
		commands: githubactions.New(githubactions.WithWriter(errIgnorer{log}), githubactions.WithGetenv(getenv)),
	}
}

// errIgnorer is a writer without errors, because the library panics on one when the reader of
// the log has gone.
type errIgnorer struct{ io.Writer }

func (w errIgnorer) Write(p []byte) (int, error) {
	_, _ = w.Writer.Write(p)
	return len(p), nil
}

// Running reports whether this is a job of GitHub Actions.
func (a *Action) Running() bool { return a.getenv("GITHUB_ACTIONS") == "true" }

// Input returns an input of the action, which is the default of the flag of the
// same name. A composite action must map each of its inputs itself, as INPUT_NAME.
func (a *Action) Input(name string) string {
	return strings.TrimSpace(a.getenv("INPUT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))))
}

// Lines returns the values of an input that has one in each line. A line that starts with #
// is a comment.
func (a *Action) Lines(name string) []string {
	var values []string
	for line := range strings.Lines(a.Input(name)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			values = append(values, line)
		}
	}
	return values
}

// SetOutput sets an output of the step.
func (a *Action) SetOutput(name, value string) error {
	file := a.getenv("GITHUB_OUTPUT")
	if file == "" {
		return nil
	}
	if err := assign(file, name, value); err != nil {
		return fmt.Errorf("cannot set the output %s: %w", name, err)
	}
	return nil
}

// SetEnv sets a variable for the later steps of the job, in which it may be overridden.
func (a *Action) SetEnv(name, value string) error {
	file := a.getenv("GITHUB_ENV")
	if file == "" {
		return errors.New("cannot set a variable for later steps: GITHUB_ENV names no file")
	}
	if err := assign(file, name, value); err != nil {
		return fmt.Errorf("cannot set the variable %s for later steps: %w", name, err)
	}
	return nil
}

// AddSummary adds Markdown to the step's summary.
func (a *Action) AddSummary(markdown string) error {
	file := a.getenv("GITHUB_STEP_SUMMARY")
	if file == "" {
		return nil
	}
	if err := appendTo(file, markdown+"\n"); err != nil {
		return fmt.Errorf("cannot add to the job's summary: %w", err)
	}
	return nil
}

// assign sets an output or a variable in a file of workflow commands. The delimiter is random, so that no
// value can end itself and set further ones.
func assign(file, name, value string) error {
	delimiter := "nix-matrix-" + rand.Text()
	return appendTo(file, fmt.Sprintf("%s<<%s\n%s\n%s\n", name, delimiter, value, delimiter))
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Level is how an annotation is shown.
type Level string

// The levels of annotations. GitHub shows ten of each and step.
const (
	LevelError   Level = "error"
	LevelWarning Level = "warning"
	LevelNotice  Level = "notice"
)

// Annotate shows a message on the run's page.
func (a *Action) Annotate(level Level, title, message string) {
	a.AnnotateAt(level, title, message, "", 0)
}

// AnnotateAt shows a message on the run's page and in the diff at a line of a
// file, which is relative to the root of the repository. Without a file it is
// Annotate; the line 0 stands for the whole file.
func (a *Action) AnnotateAt(level Level, title, message, file string, line int) {
	if !a.Running() {
		return
	}
	title, message = text.Plain(title), text.Plain(message)
	fields := map[string]string{}
	if title != "" {
		fields["title"] = title
	}
	if file != "" {
		fields["file"] = file
		if line > 0 {
			fields["line"] = strconv.Itoa(line)
		}
	}
	c := a.commands
	if len(fields) > 0 {
		c = c.WithFieldsMap(fields)
	}
	switch level {
	case LevelError:
		c.Errorf("%s", message)
	case LevelWarning:
		c.Warningf("%s", message)
	case LevelNotice:
		c.Noticef("%s", message)
	}
}

// Mask keeps a secret out of the log from now on. The runner masks the secrets that it
// has given, but not their parts.
func (a *Action) Mask(secret string) {
	if a.Running() && strings.TrimSpace(secret) != "" {
		a.commands.AddMask(secret)
	}
}

// TempDir makes a directory with a random name, for files that this step hands to later ones by
// its outputs.
func (a *Action) TempDir(id string) (string, error) {
	base := a.temp()
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(base, "nix-matrix-"+id+"-") // mode 0700
}

// StateDir makes the directory that a later step of the job finds by the same id, without an
// output of this one. It is an error if another user has made it, or could have put files
// into it.
func (a *Action) StateDir(id string) (string, error) {
	base := a.temp()
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	dir := filepath.Join(base, "nix-matrix")
	return filepath.Join(dir, id), errors.Join(ownDir(dir), ownDir(filepath.Join(dir, id)))
}

// ownDir makes a directory, or checks that it is one that only this user can change.
func ownDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	const others = 0o022
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode()&others != 0 || !ok || int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use %s: it is not a directory that only this user can change (%v). Remove it", dir, info.Mode())
	}
	return nil
}

func (a *Action) temp() string {
	if base := a.getenv("RUNNER_TEMP"); base != "" {
		return base
	}
	return os.TempDir()
}

// RunURL returns the address of the page of the run, empty outside of one.
func (a *Action) RunURL() string {
	url := a.runURL()
	if url == "" {
		return ""
	}
	if attempt := a.getenv("GITHUB_RUN_ATTEMPT"); attempt != "" {
		url += "/attempts/" + attempt
	}
	return url
}

// JobURL returns the address of the page of this job. Without the expression job.check_run_id
// in NIX_MATRIX_JOB_ID, as on an old GitHub Enterprise Server, it is RunURL.
func (a *Action) JobURL() string {
	id := a.getenv("NIX_MATRIX_JOB_ID")
	if url := a.runURL(); url != "" && id != "" {
		return url + "/job/" + id
	}
	return a.RunURL()
}

// runURL returns the address of the run without an attempt.
func (a *Action) runURL() string {
	repository, run := a.getenv("GITHUB_REPOSITORY"), a.getenv("GITHUB_RUN_ID")
	if repository == "" || run == "" {
		return ""
	}
	return fmt.Sprintf("%s/%s/actions/runs/%s", a.getenv("GITHUB_SERVER_URL"), repository, run)
}

// Began returns when the runner began this job, before any of its steps: it wrote the event then. It is zero if that
// is unknown.
func (a *Action) Began() time.Time {
	info, err := os.Stat(a.getenv("GITHUB_EVENT_PATH"))
	if err != nil || !a.Running() {
		return time.Time{}
	}
	return info.ModTime().UTC().Truncate(time.Second)
}

// RunNumber returns GitHub's numbers of the run and of its attempt, 0 outside of one.
func (a *Action) RunNumber() (run int64, attempt int) {
	run, _ = strconv.ParseInt(a.getenv("GITHUB_RUN_ID"), 10, 64)
	attempt, _ = strconv.Atoi(a.getenv("GITHUB_RUN_ATTEMPT"))
	return run, attempt
}
