// Package nix runs Nix's programs, and no other package does. It asks Nix rather than
// imitates it, in ways that all versions from 2.8 on understand.
package nix

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

var (
	// ErrMissing means that no usable Nix is installed.
	ErrMissing = errors.New("no usable Nix")
	// ErrUnreachable means that the store can't be opened: its daemon is not running or
	// refuses this user.
	ErrUnreachable = errors.New("cannot reach the Nix store")
	// ErrUntrusted means that the Nix daemon does not trust this user.
	ErrUntrusted = errors.New("the Nix daemon does not trust this user")
)

// How long a program may take to stop after SIGTERM.
const (
	stopGrace = 3 * time.Second // it may have to stop builders first
	copyGrace = time.Second     // it only copies
)

// Nix is an installed Nix.
type Nix struct {
	Version
	System string // "x86_64-linux", from the settings

	log     io.Writer
	env     []string // without NIX_CONFIG
	secrets []string // variables for programs that talk to other stores
	conf    string   // lines as of a nix.conf
	options []Option
	remote  string        // address of the store; empty for one of this machine
	root    string        // the store is in root/nix/store; empty for that of the settings
	answers string        // directory of the substituters' answers, see Remember
	err     error         // why no program can run
	grace   time.Duration // stopGrace if 0
	// programs are resolved already; others are evaluated from the flake nixpkgs.
	programs []Program
	nixpkgs  string
	lock     Lock

	config map[string]setting
}

type setting struct {
	Value json.RawMessage `json:"value"`
}

// Config adds to the settings and variables that Nix's programs get from this process.
type Config struct {
	// Conf has lines as of a nix.conf. Where Nix has no daemon, a derivation can read them, so
	// they may include a file with secrets but contain none.
	Conf string
	// Env has variables, NAME=VALUE, for the programs that read from substituters
	// and push. It may contain secrets, so no evaluator gets it.
	Env []string
	// Fetch has variables for programs that fetch sources, evaluators among them. It may
	// contain secrets.
	Fetch []string
	// SSH has options for ssh, as in NIX_SSHOPTS; empty keeps those of this process.
	SSH string
	// Nixpkgs is the flake from which FindProgram evaluates a program that is not on
	// PATH; empty where nothing may be evaluated.
	Nixpkgs string
}

// Find looks for Nix on PATH. The stderr of Nix's programs goes to log, unless a method's
// comment says otherwise.
func Find(ctx context.Context, log io.Writer, with Config) (*Nix, error) {
	for _, program := range []string{"nix", "nix-store"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %s is not on PATH. In a workflow, put a step with cachix/install-nix-action before this one, or set install_nix of the reusable workflow; elsewhere, install Nix and open a new shell", ErrMissing, program)
		}
	}
	n := &Nix{log: log, env: Environ(), secrets: with.Env, conf: with.Conf, nixpkgs: with.Nixpkgs, err: line(with.SSH)}
	if with.SSH != "" {
		n.env = append(n.env, "NIX_SSHOPTS="+with.SSH)
	}
	n.env = append(n.env, with.Fetch...)
	var settings []byte
	var unsettled error
	var showing sync.WaitGroup
	showing.Go(func() { settings, unsettled = n.output(ctx, "nix", args("config", "show", "--json")) })
	out, err := n.output(ctx, "nix", args("--version"))
	showing.Wait()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot get its version: %w", ErrMissing, err)
	}
	if n.Version, err = ParseVersion(string(out)); err != nil {
		return nil, err
	}
	if !n.HasConfigShow() {
		settings, unsettled = n.output(ctx, "nix", args("show-config", "--json"))
	}
	if unsettled != nil {
		return nil, fmt.Errorf("%w: cannot get its settings: %w", ErrMissing, unsettled)
	}
	if err := json.Unmarshal(settings, &n.config); err != nil {
		return nil, fmt.Errorf("cannot read Nix's settings: %w", err)
	}
	if err := json.Unmarshal(n.config["system"].Value, &n.System); err != nil {
		return nil, fmt.Errorf("cannot read Nix's setting \"system\": %w", err)
	}
	return n, nil
}

// WithOptions returns the same Nix with settings overridden, also in a daemon that trusts the
// user. A name that begins with "extra-" adds to the setting.
func (n *Nix) WithOptions(options ...Option) *Nix {
	with := *n
	with.options = slices.Concat(n.options, options)
	return &with
}

// WithStore returns the same Nix with another store, given by its address. Derivations are
// still read from the files of this machine.
func (n *Nix) WithStore(store string) *Nix {
	at := *n
	at.env = append(slices.Clone(n.env), "NIX_REMOTE="+store)
	at.remote, at.root, at.err = store, "", cmp.Or(n.err, valid.Address(store))
	return &at
}

// WithRoot returns the same Nix with the store in the directory root/nix/store of this machine,
// whose paths are in /nix/store all the same. Nix opens it without a daemon. root is an absolute
// path.
func (n *Nix) WithRoot(root string) *Nix {
	at := n.WithOptions(Set("store", "local?root="+strings.ReplaceAll(url.QueryEscape(root), "+", "%20")))
	at.root, at.remote = root, ""
	if at.err = cmp.Or(n.err, fileName(root)); at.err == nil && !filepath.IsAbs(root) {
		at.err = fmt.Errorf("invalid path %s: must be absolute", valid.Quote(root))
	}
	return at
}

// Root returns the root of WithRoot, or an empty string.
func (n *Nix) Root() string { return n.root }

// Text returns one of Nix's settings that is a string, such as "netrc-file", without the
// options of WithOptions.
func (n *Nix) Text(name string) string {
	var text string
	_ = json.Unmarshal(n.config[name].Value, &text) // another type is no text
	return text
}

// Integer returns one of Nix's settings that is a number, such as "max-jobs", without the options of
// WithOptions, and 0 if it has another type.
func (n *Nix) Integer(name string) int64 {
	var number int64
	_ = json.Unmarshal(n.config[name].Value, &number) // another type is no number
	return number
}

// AccessTokens returns the setting access-tokens, the tokens with which Nix fetches sources, by
// the names of the servers, without the options of WithOptions.
func (n *Nix) AccessTokens() map[string]string {
	var tokens map[string]string
	_ = json.Unmarshal(n.config["access-tokens"].Value, &tokens) // another type has none
	return tokens
}

// Setting returns one of Nix's settings that is a list of words, such as
// "extra-platforms" or "substituters", without the options of WithOptions.
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
	Message string // the error that it printed, without colours; may have many lines
	Stderr  string // the end of its stderr
	Err     error  // of package exec
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Program, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// statusPattern matches how Nix and the program cachix print the status of a response.
var statusPattern = lazyregexp.New(`HTTP error (\d{3})\b|\bstatusCode = (\d{3})\b`)

// HTTPStatus returns the status of the HTTP response that the message gives as the reason, or 0.
func (e *Error) HTTPStatus() int {
	m := statusPattern().FindStringSubmatch(e.Message)
	if m == nil {
		return 0
	}
	status, _ := strconv.Atoi(m[1] + m[2]) // the pattern has only digits
	return status
}

// command prepares one of Nix's programs with all settings.
func (n *Nix) command(ctx context.Context, program literal, with *arguments) *child.Cmd {
	all := args().settings(n.options...)
	return n.program(ctx, string(program), &arguments{append(all.words, with.words...), cmp.Or(n.err, all.err, with.err)})
}

// commandWithCredentials prepares a program that talks to other stores. It gets the secrets of
// Config.Env.
func (n *Nix) commandWithCredentials(ctx context.Context, program literal, with *arguments) *child.Cmd {
	cmd := n.command(ctx, program, with)
	cmd.Env = append(cmd.Env, n.secrets...)
	return cmd
}

// program prepares a program that gets SIGTERM when the context ends, so that Nix stops its
// builders and releases its locks. With invalid arguments it does not start.
func (n *Nix) program(ctx context.Context, program string, with *arguments) *child.Cmd {
	grace := cmp.Or(n.grace, stopGrace)
	cmd := child.Command(ctx, grace, program, with.words...)
	if with.err != nil {
		cmd.Err = with.err
	}
	conf := []string{os.Getenv("NIX_CONFIG"), n.conf, "extra-experimental-features = nix-command flakes"}
	cmd.Env = append(slices.Clone(n.env), "NIX_CONFIG="+strings.TrimLeft(strings.Join(conf, "\n"), "\n"))
	cmd.Cancel = func() error {
		// Nix misses a signal that arrives just before it begins to wait.
		for _, part := range []time.Duration{8, 4, 2} {
			time.AfterFunc(grace/part, func() { _ = cmd.Terminate() })
		}
		return cmd.Terminate()
	}
	return cmd
}

// run runs a prepared program and returns its failure as an *Error. Its stderr goes
// to n.log, unless the caller has set another writer.
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

// failure returns the failure of a program as an *Error.
func failure(cmd *child.Cmd, err error, stderr string) error {
	// A process that was left behind may have the input of a successful program open.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return nil
	}
	e := &Error{Program: filepath.Base(cmd.Path), Message: Message(stderr), Stderr: stderr, Err: err}
	if cmd.ProcessState != nil {
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && !errorLine().MatchString(text.Plain(stderr)) {
			e.Message = strings.TrimSpace(fmt.Sprintf("killed by a signal (%v), perhaps because memory ran out\n%s", status.Signal(), e.Message))
		}
	}
	return e
}

// output runs a program and returns its stdout. Its stderr is only in the error.
func (n *Nix) output(ctx context.Context, program literal, with *arguments) ([]byte, error) {
	return n.capture(n.command(ctx, program, with))
}

// capture is output for a prepared program.
func (n *Nix) capture(cmd *child.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = io.Discard
	if err := n.run(cmd); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var errorLine = lazyregexp.New(`(?m)^[ \t]*error:[ \t]*`)

// Message returns the cause of a failure from a program's stderr: the text after the last
// "error:", which is the innermost. Where that says only that another derivation failed, as
// with an import from a derivation, the errors of the failed derivations come first.
func Message(stderr string) string {
	plain := text.Plain(stderr)
	errs := errorLine().FindAllStringIndex(plain, -1)
	if errs == nil {
		return unindented(plain)
	}
	last := unindented(plain[errs[len(errs)-1][1]:])
	if !OnlyOthers(last) {
		return last
	}
	var all []string
	for i, at := range errs[:len(errs)-1] {
		const most = 5
		message := unindented(indented(plain[at[1]:errs[i+1][0]]))
		if len(Named(message)) > 0 && !strings.HasPrefix(message, "…") && len(all) < most { // else it is a position in the evaluation
			all = append(all, message)
		}
	}
	return strings.Join(append(all, last), "\n")
}

// indented returns the first line and the indented lines after it.
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

// unindented removes the indentation of an error and the hint at --show-trace.
func unindented(text string) string {
	var kept []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		if !strings.HasPrefix(line, "(use '--show-trace'") {
			kept = append(kept, strings.TrimPrefix(strings.TrimRight(line, "\n"), "       "))
		}
	}
	return strings.TrimSpace(strings.Join(kept, "\n"))
}

// tail keeps the last bytes written to it.
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

// chunks splits paths into pieces that fit into an argument list.
func chunks(paths []string) [][]string {
	return slices.Collect(slices.Chunk(paths, 2000))
}

func lines(out []byte) []string {
	return strings.FieldsFunc(string(out), func(c rune) bool { return c == '\n' })
}
