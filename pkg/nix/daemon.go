package nix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Numbers of the worker protocol (src/libstore/worker-protocol.hh). We offer
// version 1.34: the lower of both sides' versions holds, and what came later
// would only have to be skipped.
const (
	clientMagic     = 0x6e697863
	serverMagic     = 0x6478696f
	protocolVersion = 1<<8 | 34

	opAddTempRoot = 11

	messageLast   = 0x616c7473
	messageError  = 0x63787470
	messageNext   = 0x6f6c6d67
	messageStart  = 0x53545254
	messageStop   = 0x53544f50
	messageResult = 0x52534c54

	maxString = 1 << 20
)

// A Daemon is a connection to the store that speaks the worker protocol, by
// `nix-daemon --stdio`: with access to the store this works without a daemon,
// otherwise it asks the running one.
type Daemon struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	w      *bufio.Writer
	r      *bufio.Reader
	stderr tail
}

// Connect opens a connection. The context ends it, as Close does.
func (n *Nix) Connect(ctx context.Context) (*Daemon, error) {
	d := &Daemon{cmd: n.command(ctx, "nix-daemon", "--stdio"), stderr: tail{limit: 4 << 10}}
	d.cmd.Stderr = &d.stderr
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.w, d.r = bufio.NewWriter(d.in), bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start nix-daemon: %w", err)
	}
	if err := d.hello(); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("talk to nix-daemon: %w", d.explain(err))
	}
	return d, nil
}

// Close ends the connection, and with it what it held.
func (d *Daemon) Close() error {
	_ = d.in.Close()
	return d.cmd.Wait()
}

// explain adds what the program said to an error, after Close.
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
		return fmt.Errorf("it says %#x for hello", magic)
	}
	version, err := wire.ReadUint64(d.r)
	if err != nil {
		return err
	}
	if version < 1<<8|32 {
		return fmt.Errorf("its protocol version %d.%d is too old", version>>8, version&0xff)
	}
	// The two zeros are CPU affinity and reserved space, both obsolete.
	if err := d.send(protocolVersion, 0, 0); err != nil {
		return err
	}
	if min(version, protocolVersion) >= 1<<8|33 {
		if _, err := wire.ReadString(d.r, maxString); err != nil { // version of Nix
			return err
		}
	}
	return d.messages()
}

// AddTempRoots keeps the garbage collector away from paths, valid or not yet,
// for as long as the connection is open.
func (d *Daemon) AddTempRoots(paths ...string) error {
	for _, path := range paths {
		if err := d.addTempRoot(path); err != nil {
			return fmt.Errorf("add %s as a temporary root: %w", path, err)
		}
	}
	return nil
}

func (d *Daemon) addTempRoot(path string) error {
	if err := wire.WriteUint64(d.w, opAddTempRoot); err != nil {
		return err
	}
	if err := wire.WriteString(d.w, path); err != nil {
		return err
	}
	if err := d.w.Flush(); err != nil {
		return err
	}
	if err := d.messages(); err != nil {
		return err
	}
	_, err := wire.ReadUint64(d.r) // 1
	return err
}

func (d *Daemon) send(numbers ...uint64) error {
	for _, n := range numbers {
		if err := wire.WriteUint64(d.w, n); err != nil {
			return err
		}
	}
	return d.w.Flush()
}

// messages reads what the server has to say until it has done what it was
// asked. An error message ends the operation.
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
			err = d.skip("s")
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

// skip reads over numbers (n), strings (s) and lists of fields (f).
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

// errorMessage reads type, level, name, message, position and traces.
func (d *Daemon) errorMessage() error {
	if err := d.skip("sns"); err != nil {
		return err
	}
	text, err := wire.ReadString(d.r, maxString)
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
	return errors.New(Plain(text))
}
