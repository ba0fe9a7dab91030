// Package nix is the only place that runs Nix's programs. It asks them rather
// than imitate them, in ways that all versions from 2.8 on understand.
package nix

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

var (
	// ErrMissing says that no usable Nix is installed.
	ErrMissing = errors.New("no usable Nix")
	// ErrUnreachable says that the store can't be opened: its daemon is not there or
	// refuses this user.
	ErrUnreachable = errors.New("cannot reach the Nix store")
	// ErrUntrusted says that the Nix daemon does not trust this user.
	ErrUntrusted = errors.New("the Nix daemon does not trust this user")
)

// How long a program may take to stop after it was told to: one that builds, which
// has builders to end, and one that copies, which is told when that has long been.
const (
	stopGrace = 3 * time.Second
	copyGrace = time.Second
)

// Nix is an installed Nix.
type Nix struct {
	Version
	System string // "x86_64-linux", as the settings say

	log     io.Writer
	env     []string // without NIX_CONFIG
	secrets []string // variables for programs that talk to other stores
	conf    string   // lines as of a nix.conf
	options []Option
	remote  string        // address of the store; empty for this machine's
	answers string        // directory for what substituters have answered, see Remember
	err     error         // why no program can be run
	grace   time.Duration // stopGrace if 0
	// programs are known without an evaluator, and nixpkgs is the flake that has others.
	programs []Program
	nixpkgs  string

	config map[string]setting
}

type setting struct {
	Value json.RawMessage `json:"value"`
}

// Config adds to the settings and variables that Nix's programs get from this process.
type Config struct {
	// Conf has lines as of a nix.conf. Where Nix has no daemon, a derivation can ask for
	// them: secrets are for a file that they include.
	Conf string
	// Env has variables, NAME=VALUE, for the programs that read from substituters
	// and push. It may have secrets, so no evaluator gets it.
	Env []string
	// Fetch has variables for programs that fetch sources, which evaluators do. So it is
	// with secrets.
	Fetch []string
	// SSH has options for ssh, as in NIX_SSHOPTS, empty for those of this process.
	SSH string
	// Nixpkgs is the flake of which FindProgram evaluates a program that is not on
	// PATH; empty where nothing may be evaluated.
	Nixpkgs string
}

// Find looks for Nix on PATH. What Nix's programs have to say goes to log,
// unless a method says otherwise.
func Find(ctx context.Context, log io.Writer, with Config) (*Nix, error) {
	for _, program := range []string{"nix", "nix-store"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %s is not on PATH. In a workflow, put a step with cachix/install-nix-action before this one; elsewhere, install Nix and open a new shell", ErrMissing, program)
		}
	}
	n := &Nix{log: log, env: Environ(), secrets: with.Env, conf: with.Conf, nixpkgs: with.Nixpkgs, err: line(with.SSH)}
	if with.SSH != "" {
		n.env = append(n.env, "NIX_SSHOPTS="+with.SSH)
	}
	n.env = append(n.env, with.Fetch...)
	out, err := n.output(ctx, "nix", args("--version"))
	if err != nil {
		return nil, fmt.Errorf("%w: ask for its version: %w", ErrMissing, err)
	}
	if n.Version, err = ParseVersion(string(out)); err != nil {
		return nil, err
	}
	show := args("show-config", "--json")
	if n.HasConfigShow() {
		show = args("config", "show", "--json")
	}
	if out, err = n.output(ctx, "nix", show); err != nil {
		return nil, fmt.Errorf("%w: ask for its settings: %w", ErrMissing, err)
	}
	if err := json.Unmarshal(out, &n.config); err != nil {
		return nil, fmt.Errorf("read Nix's settings: %w", err)
	}
	if err := json.Unmarshal(n.config["system"].Value, &n.System); err != nil {
		return nil, fmt.Errorf("read Nix's setting \"system\": %w", err)
	}
	return n, nil
}

// WithOptions returns the same Nix with settings overridden, for a daemon that trusts the
// user too. A setting that begins with "extra-" is added to.
func (n *Nix) WithOptions(options ...Option) *Nix {
	with := *n
	with.options = slices.Concat(n.options, options)
	return &with
}

// WithStore returns the same Nix whose store is another one, by its address. What is read
// from files, which are derivations, is still this machine's.
func (n *Nix) WithStore(store string) *Nix {
	at := *n
	at.env = append(slices.Clone(n.env), "NIX_REMOTE="+store)
	at.remote, at.err = store, cmp.Or(n.err, valid.Address(store))
	return &at
}

// Text gives one of Nix's settings that is a text, such as "netrc-file", as it
// was without WithOptions.
func (n *Nix) Text(name string) string {
	var text string
	_ = json.Unmarshal(n.config[name].Value, &text) // another type is no text
	return text
}

// AccessTokens are those of the setting access-tokens, with which Nix asks servers for
// sources, by the servers' names, as it was without WithOptions.
func (n *Nix) AccessTokens() map[string]string {
	var tokens map[string]string
	_ = json.Unmarshal(n.config["access-tokens"].Value, &tokens) // another type has none
	return tokens
}

// Setting gives one of Nix's settings that is a list of words, such as
// "extra-platforms" or "substituters", as it was without WithOptions.
func (n *Nix) Setting(name string) []string {
	var words []string
	if json.Unmarshal(n.config[name].Value, &words) == nil {
		return words
	}
	return nil
}

// Error is the failure of one of Nix's programs.
type Error struct {
	Program string
	Message string // what it said, without colours; may have many lines
	Stderr  string // the last of all that it wrote to stderr
	Err     error  // of package exec
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Program, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// How Nix, and Cachix's program, tell of a server's answer.
var statusPattern = regexp.MustCompile(`HTTP error (\d{3})\b|\bstatusCode = (\d{3})\b`)

// HTTPStatus returns the status of the server's answer that the message tells of as the
// reason, or 0.
func (e *Error) HTTPStatus() int {
	m := statusPattern.FindStringSubmatch(e.Message)
	if m == nil {
		return 0
	}
	status, _ := strconv.Atoi(m[1] + m[2]) // which are digits
	return status
}

// command prepares one of Nix's programs with all settings.
func (n *Nix) command(ctx context.Context, program literal, with *arguments) *child.Cmd {
	all := args().settings(n.options...)
	return n.program(ctx, string(program), &arguments{append(all.words, with.words...), cmp.Or(n.err, all.err, with.err)})
}

// commandWithCredentials prepares a program that talks to other stores and gets the secrets for
// that.
func (n *Nix) commandWithCredentials(ctx context.Context, program literal, with *arguments) *child.Cmd {
	cmd := n.command(ctx, program, with)
	cmd.Env = append(cmd.Env, n.secrets...)
	return cmd
}

// program prepares a program whose end the context brings about politely: Nix
// then stops its builders and releases its locks. With invalid arguments it does not start.
func (n *Nix) program(ctx context.Context, program string, with *arguments) *child.Cmd {
	grace := cmp.Or(n.grace, stopGrace)
	cmd := child.Command(ctx, grace, program, with.words...)
	if with.err != nil {
		cmd.Err = with.err
	}
	conf := []string{os.Getenv("NIX_CONFIG"), n.conf, "extra-experimental-features = nix-command flakes"}
	cmd.Env = append(slices.Clone(n.env), "NIX_CONFIG="+strings.TrimLeft(strings.Join(conf, "\n"), "\n"))
	cmd.Cancel = func() error {
		// Nix misses a signal that comes just before it begins to wait.
		for again := grace / 8; again < grace; again *= 2 {
			time.AfterFunc(again, func() { _ = cmd.Terminate() })
		}
		return cmd.Terminate()
	}
	return cmd
}

// run runs a prepared program and makes its failure an *Error. Its stderr goes
// to n.log, unless the caller has directed it elsewhere.
func (n *Nix) run(cmd *child.Cmd) error {
	keep := &tail{limit: 16 << 10}
	switch {
	case cmd.Stderr == nil && n.log == nil:
		cmd.Stderr = keep
	case cmd.Stderr == nil:
		cmd.Stderr = io.MultiWriter(n.log, keep)
	default:
		cmd.Stderr = io.MultiWriter(cmd.Stderr, keep)
	}
	return failure(cmd, cmd.Run(), keep.String())
}

// failure makes an *Error of what became of a program.
func failure(cmd *child.Cmd, err error, stderr string) error {
	// A process that was left behind, such as a shared ssh connection, may keep
	// the streams of a program that has ended well.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return nil
	}
	e := &Error{Program: filepath.Base(cmd.Path), Message: Message(stderr), Stderr: stderr, Err: err}
	if cmd.ProcessState != nil {
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && !errorLine.MatchString(text.Plain(stderr)) {
			e.Message = strings.TrimSpace(fmt.Sprintf("it was ended by a signal (%v); was there too little memory?\n%s", status.Signal(), e.Message))
		}
	}
	return e
}

// output runs a program for its stdout; what it says is only in the error.
func (n *Nix) output(ctx context.Context, program literal, with *arguments) ([]byte, error) {
	return n.capture(n.command(ctx, program, with))
}

// capture is output for a program that is prepared.
func (n *Nix) capture(cmd *child.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = io.Discard
	if err := n.run(cmd); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var errorLine = regexp.MustCompile(`(?m)^[ \t]*error:[ \t]*`)

// Message finds in what a program wrote to stderr the part that says what went
// wrong: the last "error:", which is the innermost, and what follows it. Where that is only
// that something else could not be built, as with what is imported from a derivation, it
// begins with what failed.
func Message(stderr string) string {
	said := text.Plain(stderr)
	errs := errorLine.FindAllStringIndex(said, -1)
	if errs == nil {
		return unindented(said)
	}
	last := unindented(said[errs[len(errs)-1][1]:])
	if !OnlyOthers(last) {
		return last
	}
	var all []string
	for i, at := range errs[:len(errs)-1] {
		const most = 5
		message := unindented(indented(said[at[1]:errs[i+1][0]]))
		if len(Named(message)) > 0 && !strings.HasPrefix(message, "…") && len(all) < most { // else it is where something was evaluated
			all = append(all, message)
		}
	}
	return strings.Join(append(all, last), "\n")
}

// indented returns the first line and those after it that Nix has set below it.
func indented(text string) string {
	const most = 30
	var all []string
	for line := range strings.Lines(text) {
		if len(all) == most || len(all) > 0 && !strings.HasPrefix(line, " ") && line != "\n" {
			break
		}
		all = append(all, line)
	}
	return strings.Join(all, "")
}

// unindented takes off what Nix sets before the lines of an error.
func unindented(text string) string {
	var kept []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		if !strings.HasPrefix(line, "(use '--show-trace'") {
			kept = append(kept, strings.TrimPrefix(strings.TrimRight(line, "\n"), "       "))
		}
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}

// tail keeps the last bytes that are written to it.
type tail struct {
	limit int
	data  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*t.limit {
		t.data = append(t.data[:0], t.data[len(t.data)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	if len(t.data) > t.limit {
		return string(t.data[len(t.data)-t.limit:])
	}
	return string(t.data)
}

// chunks splits paths so that each piece fits into an argument list.
func chunks(paths []string) [][]string {
	return slices.Collect(slices.Chunk(paths, 2000))
}

func lines(out []byte) []string {
	return strings.FieldsFunc(string(out), func(c rune) bool { return c == '\n' })
}
