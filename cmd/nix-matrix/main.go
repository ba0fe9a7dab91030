// Command nix-matrix turns one Nix repository into a GitHub Actions job matrix
// and builds it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// The exit codes that --help lists.
const (
	exitRed         = 1
	exitUsage       = 2
	exitUnfit       = 3
	exitInterrupted = 130 // as a shell has it for SIGINT
)

func main() {
	access.HideMemory()
	app := newApp(streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Getenv)
	ctx, stop := context.WithCancelCause(context.Background())
	go app.handleSignals(signals(), stop)
	os.Exit(app.run(ctx, os.Args[1:]))
}

// signals returns the signals that end the program. SIGPIPE is not among them: a pipe without a reader is an
// error of the write, after which the program cleans up.
func signals() <-chan os.Signal {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return received
}

// handleSignals cancels the context at the first signal, and ends the program at a second Ctrl-C. A SIGTERM
// after the first signal does not: a runner cancels that way, while the Result is being written. Nor does a
// Ctrl-C after another signal.
func (a *app) handleSignals(received <-chan os.Signal, stop context.CancelCauseFunc) {
	if !second(received, stop) {
		return
	}
	a.abort()
	child.EndAll()
	signal.Reset(os.Interrupt) // a third Ctrl-C does not wait for git-crypt
	_ = a.secretDir.Close()
	os.Exit(exitInterrupted)
}

// second calls stop at the first signal, and returns true at the second Ctrl-C.
func second(received <-chan os.Signal, stop context.CancelCauseFunc) bool {
	interrupts := 0
	for sig := range received {
		stop(fmt.Errorf("%v signal received", sig))
		stop = func(error) {}
		if sig == os.Interrupt {
			interrupts++
		}
		if interrupts > 1 {
			return true
		}
	}
	return false
}

// onAbort sets the function that abort calls while everything else goes on; nil for none.
func (a *app) onAbort(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.atAbort = do
}

// abort prepares the end at a second Ctrl-C: it removes the secrets first.
func (a *app) abort() {
	a.secretDir.Remove()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.atAbort != nil {
		a.atAbort()
	}
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// width returns the columns of the terminal that the output goes to, 0 if it goes elsewhere.
func (s *streams) width() int {
	f, ok := s.out.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(width, 1)
}

// run is the program. It alone decides the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	defer a.log.Close()
	root := newRoot(a)
	root.SetArgs(args)
	err := execute(ctx, root)
	a.log.Close()
	if cerr := a.secretDir.Close(); cerr != nil {
		a.log.Warn("Cannot remove all secrets", cerr)
	}
	return a.exitCode(ctx, err)
}

// exitCode reports why the program ends, and returns its exit code.
func (a *app) exitCode(ctx context.Context, err error) int {
	var wrong *usage.Error
	var red *redError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &red) && ctx.Err() != nil:
		return exitInterrupted // the verdict is printed
	case errors.As(err, &red):
		return exitRed // the verdict is printed
	case ctx.Err() != nil:
		a.fail("Interrupted", fmt.Errorf("interrupted: %w", context.Cause(ctx))) // the errors that it caused say nothing more
		return exitInterrupted
	case errors.As(err, &wrong):
		a.fail("Wrong usage", err)
		return exitUsage
	case errors.Is(err, nix.ErrMissing), errors.Is(err, nix.ErrUntrusted), errors.Is(err, nix.ErrUnreachable):
		a.fail("Nix can't be used", err)
		return exitUnfit
	case errors.Is(err, action.ErrForbidden):
		a.fail("GitHub's API can't be used", err)
		return exitUnfit
	case documents.DiskFull(err):
		a.fail("The disk is full", err)
		return exitUnfit
	default:
		a.fail("nix-matrix failed", err)
		return exitRed
	}
}

func execute(ctx context.Context, root *cobra.Command) (err error) {
	defer recovered(&err)
	return root.ExecuteContext(ctx)
}

// recovered turns a panic into an error.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = &crashError{v, debug.Stack()}
	}
}

// A crashError is a bug of this program or of a library.
type crashError struct {
	value any
	stack []byte
}

func (e *crashError) Error() string {
	return fmt.Sprintf("nix-matrix crashed: %v. Report it, with the log", e.value)
}

// fail reports why the program ends, once.
func (a *app) fail(title string, err error) {
	_, _ = fmt.Fprintf(a.streams.err, "nix-matrix: %s\n", text.NoCommands(text.Plain(err.Error())))
	if crash, ok := errors.AsType[*crashError](err); ok {
		_, _ = a.streams.err.Write(crash.stack)
	}
	a.action.Annotate(action.LevelError, title, err.Error())
}

// A redError says that the program did its work, and the verdict is not green.
type redError struct{ verdict string }

func (e *redError) Error() string { return e.verdict }
