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
	"syscall"

	"golang.org/x/term"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/nix"
)

// version is set when a release is built.
var version = "dev"

// Exit codes, as --help says them.
const (
	exitRed         = 1
	exitUsage       = 2
	exitUnfit       = 3
	exitInterrupted = 130 // as a shell says it of SIGINT
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second Ctrl-C ends the program the hard way. Not so a SIGTERM after it:
	// that is how a runner goes on cancelling, and the Result is being written.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Getenv))
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
func run(ctx context.Context, args []string, s streams, getenv func(string) string) int {
	app := newApp(s, getenv)
	defer app.show.Close()
	root := newRoot(app)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	app.show.Close()

	var usage *usageError
	var red *redError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &red) && ctx.Err() != nil:
		return exitInterrupted // the verdict has been told
	case errors.As(err, &red):
		return exitRed // likewise
	case ctx.Err() != nil:
		app.fail("Interrupted", fmt.Errorf("interrupted: %w", context.Cause(ctx))) // what it has led to tells nothing more
		return exitInterrupted
	case errors.As(err, &usage):
		app.fail("Wrong usage", err)
		return exitUsage
	case errors.Is(err, nix.ErrMissing), errors.Is(err, nix.ErrUntrusted):
		app.fail("Nix can't be used", err)
		return exitUnfit
	case errors.Is(err, action.ErrForbidden):
		app.fail("GitHub's API can't be used", err)
		return exitUnfit
	default:
		app.fail("nix-matrix failed", err)
		return exitRed
	}
}

// fail tells why the program ends, once.
func (a *app) fail(title string, err error) {
	_, _ = fmt.Fprintf(a.streams.err, "nix-matrix: %s\n", action.Foreign(nix.Plain(err.Error())))
	a.action.Annotate(action.LevelError, title, err.Error())
}

// usageError is a mistake of who called us.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// redError says that the program did its work, and the result is not green.
type redError struct{ verdict string }

func (e *redError) Error() string { return e.verdict }
