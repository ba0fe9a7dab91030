package nix

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/nix-community/go-nix/pkg/wire"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// Numbers of the worker protocol (src/libstore/worker-protocol.hh). The lower version of both
// sides is used. We offer 1.35: Lix supports no other one from 2.94 on, and the additions of
// later ones would only have to be skipped.
const (
	clientMagic     = 0x6e697863
	serverMagic     = 0x6478696f
	protocolVersion = 1<<8 | 35
	oldestProtocol  = 1<<8 | 32 // the first with opAddMultipleToStore
	trustProtocol   = 1<<8 | 35 // the first with Trust

	opAddTempRoot              = 11
	opQueryAllValidPaths       = 23
	opQueryPathInfo            = 26
	opQueryValidPaths          = 31
	opQueryMissing             = 40
	opQueryDerivationOutputMap = 41
	opAddMultipleToStore       = 44

	messageLast   = 0x616c7473
	messageError  = 0x63787470
	messageNext   = 0x6f6c6d67
	messageStart  = 0x53545254
	messageStop   = 0x53544f50
	messageResult = 0x52534c54

	maxString = 1 << 20
)

// A Daemon is a connection to the store in the worker protocol, through
// `nix-daemon --stdio`: with access to the store that works without a daemon, otherwise it
// forwards to the running one. Several goroutines may call its methods, which take turns. Any
// error other than the server's own message ends the connection.
type Daemon struct {
	close func() error

	trust      Trust
	signatures bool         // paths from an untrusted user need signatures
	log        func(string) // is called with what the server logs; nil drops it

	mu     sync.Mutex // held from a request to the end of its answer
	in     io.WriteCloser
	w      *bufio.Writer
	r      *bufio.Reader
	stderr tail
}

// Connect opens a connection. The context ends it, as Close does.
func (n *Nix) Connect(ctx context.Context) (*Daemon, error) {
	d, err := n.connect(ctx, n.command(ctx, "nix-daemon", args("--stdio")), nil)
	if err != nil && d != nil {
		return nil, n.unreachable(d, err)
	}
	return d, err
}

// connect opens a connection to a prepared program. log is called with what the server logs,
// unless it is nil. If the program has started, a failed connection is returned with the error.
func (n *Nix) connect(ctx context.Context, cmd *child.Cmd, log func(string)) (*Daemon, error) {
	d := &Daemon{stderr: tail{limit: 4 << 10}, signatures: n.requiresSignatures(), log: log}
	cmd.Stderr = &d.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	widen(w)
	cmd.Stdin, d.in = in, w
	d.w, d.r = bufio.NewWriter(d.in), bufio.NewReader(out)
	err = cmd.Start()
	_ = in.Close() // the program has its own
	if err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("cannot start nix-daemon: %w", err)
	}
	stop := d.StopWith(ctx)
	d.close = sync.OnceValue(func() error {
		stop()
		_ = d.in.Close()
		return cmd.Wait()
	})
	if err := d.hello(); err != nil {
		_ = d.Close()
		return d, err
	}
	return d, nil
}

// unreachable returns the error of a failed hello. It wraps [ErrUnreachable] if the server hung
// up, as it does if it can't open its store.
func (n *Nix) unreachable(d *Daemon, err error) error {
	hungUp := slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, os.ErrClosed}, func(end error) bool { return errors.Is(err, end) })
	if !hungUp {
		return fmt.Errorf("cannot talk to the Nix daemon: %w", d.explain(err))
	}
	why := whyHungUp(d.stderr.String())
	if n.remote != "" {
		return fmt.Errorf("%w %s: %s. Check its address (input store), the ssh key (ssh_key), the host's key (ssh_known_hosts) and that Nix is installed there",
			ErrUnreachable, Redact(n.remote), cmp.Or(why, "it does not answer"))
	}
	if n.root != "" {
		return fmt.Errorf("%w in %s: %s", ErrUnreachable, valid.Quote(n.root), cmp.Or(why, "nix-daemon has ended"))
	}
	return fmt.Errorf("%w: %s. Start the Nix daemon, as with sudo systemctl start nix-daemon, and name this user in the setting allowed-users of its nix.conf",
		ErrUnreachable, cmp.Or(why, "the Nix daemon is not running, or refused this user"))
}

// eofLine matches the message of a server that forwards to another one, which hung up.
var eofLine = lazyregexp.New(`(?m)^error: (?:unexpected )?(?:EOF|end-of-file)\b.*\n?`)

// whyHungUp returns on one line why a server with this stderr hung up: its error, or else the
// last lines, which are ssh's. It is empty if the reason is not known.
func whyHungUp(stderr string) string {
	const most = 3
	all := lines([]byte(Message(eofLine().ReplaceAllString(text.Plain(stderr), ""))))
	for i := range all {
		all[i] = strings.TrimRight(all[i], ".")
	}
	return strings.Join(all[max(0, len(all)-most):], "; ")
}

// Reach returns an error that wraps [ErrUnreachable] if the store can't be opened.
func (n *Nix) Reach(ctx context.Context) error {
	d, err := n.Connect(ctx)
	if err == nil {
		_ = d.Close()
	}
	if errors.Is(err, ErrUnreachable) && ctx.Err() == nil {
		return err
	}
	return nil
}

// StopWith ends the connection when the context ends, unless stop is called before, which then
// returns true.
func (d *Daemon) StopWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = d.in.Close() })
}

// Close ends the connection, its temporary roots and its running operations.
func (d *Daemon) Close() error { return d.close() }

// explain adds the program's message to an error. It may be called after Close.
func (d *Daemon) explain(err error) error {
	if message := Message(d.stderr.String()); message != "" {
		return fmt.Errorf("%w: %s", err, message)
	}
	return err
}

func (d *Daemon) hello() error {
	if err := d.send(clientMagic); err != nil {
		return err
	}
	magic, err := wire.ReadUint64(d.r)
	if err != nil {
		return err
	}
	if magic != serverMagic {
		return fmt.Errorf("it begins with %#x, not with the protocol's number", magic)
	}
	version, err := wire.ReadUint64(d.r)
	if err != nil {
		return err
	}
	switch {
	case version < oldestProtocol:
		return fmt.Errorf("its protocol version %d.%d is too old", version>>8, version&0xff)
	case version>>8 != protocolVersion>>8:
		return fmt.Errorf("its protocol version %d.%d is too new", version>>8, version&0xff)
	}
	// The two zeros are CPU affinity and reserved space, both obsolete.
	if err := d.send(protocolVersion, 0, 0); err != nil {
		return err
	}
	version = min(version, protocolVersion)
	if version >= 1<<8|33 {
		if _, err := wire.ReadString(d.r, maxString); err != nil { // version of Nix
			return err
		}
	}
	if version >= trustProtocol {
		if err := d.readTrust(); err != nil {
			return err
		}
	}
	return d.messages()
}

// AddTempRoots keeps the garbage collector away from paths, valid or not yet,
// while the connection is open. After an error the connection is closed.
func (d *Daemon) AddTempRoots(paths ...string) error {
	err := d.askAll(len(paths), func(i int, q *request) {
		q.numbers(opAddTempRoot)
		q.checked(valid.StorePath, paths[i])
	})
	if err != nil {
		return fmt.Errorf("cannot add temporary roots: %w", d.explain(errors.Join(err, d.Close())))
	}
	return nil
}

// ask sends a request and reads its answer.
func (d *Daemon) ask(q *request, read func(*answer)) error {
	if q.err != nil {
		return q.err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.exchange(q, read)
	var refusal *serverError
	if err != nil && !errors.As(err, &refusal) {
		_ = d.in.Close() // the connection may be out of step
	}
	return err
}

func (d *Daemon) exchange(q *request, read func(*answer)) error {
	if _, err := q.WriteTo(d.w); err != nil {
		return err
	}
	if err := d.w.Flush(); err != nil {
		return err
	}
	if err := d.messages(); err != nil {
		return err
	}
	a := &answer{r: d.r}
	read(a)
	return a.err
}

// A request is a buffer of what to send. Writing to it can't fail.
type request struct {
	bytes.Buffer
	err error // if set, it must not be sent
}

func (q *request) numbers(all ...uint64) {
	for _, n := range all {
		_ = wire.WriteUint64(q, n)
	}
}

func (q *request) texts(all ...string) {
	for _, s := range all {
		_ = wire.WriteString(q, s)
	}
}

// checked adds texts that a check must accept.
func (q *request) checked(check func(string) error, all ...string) {
	q.err = cmp.Or(q.err, valid.All(check, all...))
	q.texts(all...)
}

func (q *request) list(all []string) {
	q.numbers(uint64(len(all)))
	q.texts(all...)
}

// An answer reads values of the protocol. After an error they are zero.
type answer struct {
	r   io.Reader
	err error
}

func (a *answer) number() (n uint64) {
	if a.err == nil {
		n, a.err = wire.ReadUint64(a.r)
	}
	return n
}

func (a *answer) text() (s string) {
	if a.err == nil {
		s, a.err = wire.ReadString(a.r, maxString)
	}
	return s
}

func (a *answer) list() []string {
	var all []string
	for n := a.number(); n > 0 && a.err == nil; n-- {
		all = append(all, a.text())
	}
	return all
}

func (d *Daemon) send(numbers ...uint64) error {
	for _, n := range numbers {
		if err := wire.WriteUint64(d.w, n); err != nil {
			return err
		}
	}
	return d.w.Flush()
}

// messages reads the server's messages until the operation is done. An error message ends the
// operation.
func (d *Daemon) messages() error {
	for {
		kind, err := wire.ReadUint64(d.r)
		if err != nil {
			return err
		}
		// The parts of each message, in the notation of skip.
		switch kind {
		case messageLast:
			return nil
		case messageNext:
			var said string
			if said, err = wire.ReadString(d.r, maxString); err == nil && d.log != nil {
				d.log(said)
			}
		case messageStart:
			err = d.skip("nnnsfn")
		case messageStop:
			err = d.skip("n")
		case messageResult:
			err = d.skip("nnf")
		case messageError:
			return d.errorMessage()
		default:
			return fmt.Errorf("unknown message %#x", kind)
		}
		if err != nil {
			return err
		}
	}
}

// skip reads numbers (n), strings (s) and lists of fields (f) and drops them.
func (d *Daemon) skip(parts string) error {
	for _, part := range parts {
		var err error
		switch part {
		case 'n':
			_, err = wire.ReadUint64(d.r)
		case 's':
			_, err = wire.ReadString(d.r, maxString)
		case 'f':
			err = d.skipFields()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) skipFields() error {
	count, err := wire.ReadUint64(d.r)
	for range count {
		if err != nil {
			return err
		}
		var kind uint64
		if kind, err = wire.ReadUint64(d.r); err != nil {
			return err
		}
		if kind == 0 {
			err = d.skip("n")
		} else {
			err = d.skip("s")
		}
	}
	return err
}

// errorMessage reads an error: type, level, name, message, position and traces.
func (d *Daemon) errorMessage() error {
	if err := d.skip("sns"); err != nil {
		return err
	}
	message, err := wire.ReadString(d.r, maxString)
	if err != nil {
		return err
	}
	if err := d.skip("n"); err != nil {
		return err
	}
	count, err := wire.ReadUint64(d.r)
	for range count {
		if err != nil {
			return err
		}
		err = d.skip("ns")
	}
	if err != nil {
		return err
	}
	return &serverError{text: text.Plain(message)}
}

// A serverError is the server's message about a failed operation.
type serverError struct{ text string }

func (e *serverError) Error() string { return e.text }
