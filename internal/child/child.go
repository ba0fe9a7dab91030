// Package child starts other programs, each as the leader of a session of its own. A Ctrl-C
// at the terminal therefore reaches this process alone, which ends its children in its own order, after
// the outputs that were built are pushed. No child can ask a question at the terminal: from the background,
// it would be stopped until somebody kills it.
package child

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A Cmd is a program together with the processes of its process group. Everything that the program writes
// is read, however late and however slowly, and also if another process has its streams open.
type Cmd struct {
	*exec.Cmd
	ctx   context.Context
	pipes []*pipe // of its streams
}

// Command prepares a program. At the end of the context its process group gets SIGTERM. The processes that
// are left at the end of the program, or after the time of grace, are killed.
func Command(ctx context.Context, grace time.Duration, name string, args ...string) *Cmd {
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ctx: ctx}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Cancel = c.Terminate
	c.WaitDelay = grace
	return c
}

// running are the programs for which nobody has waited yet.
var running = struct {
	sync.Mutex
	programs map[*Cmd]bool
	ended    bool // no other program starts
}{programs: map[*Cmd]bool{}}

var errEnded = errors.New("the program ends")

// Start is [exec.Cmd.Start].
func (c *Cmd) Start() error {
	running.Lock()
	defer running.Unlock()
	if running.ended {
		return errEnded
	}
	err := c.openPipes()
	if err == nil {
		err = c.Cmd.Start()
	}
	for _, p := range c.pipes {
		p.started(err)
	}
	if err == nil {
		running.programs[c] = true
	}
	return err
}

// Wait is [exec.Cmd.Wait].
func (c *Cmd) Wait() error {
	err := c.Cmd.Wait()
	if c.ctx.Err() != nil {
		_ = c.Kill() // the processes that are left
	}
	for _, p := range c.pipes {
		if written := p.finish(); err == nil {
			err = written
		}
	}
	running.Lock()
	defer running.Unlock()
	delete(running.programs, c)
	return err
}

// Run is [exec.Cmd.Run].
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is [exec.Cmd.Output].
func (c *Cmd) Output() ([]byte, error) {
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	err := c.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		exit.Stderr = said.Bytes()
	}
	return out.Bytes(), err
}

// Terminate sends SIGTERM to the process group of a program that runs.
func (c *Cmd) Terminate() error { return c.signal(syscall.SIGTERM) }

// Kill kills the process group of a program that runs.
func (c *Cmd) Kill() error { return c.signal(syscall.SIGKILL) }

func (c *Cmd) signal(sig syscall.Signal) error {
	running.Lock()
	defer running.Unlock()
	if !running.programs[c] {
		return os.ErrProcessDone // its number may be another's by now
	}
	return c.send(sig)
}

// send sends a signal. The caller holds the lock.
func (c *Cmd) send(sig syscall.Signal) error {
	err := syscall.Kill(-c.Process.Pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// EndAll ends all programs before the end of this process: it sends SIGTERM to all process groups and kills
// those that do not end at once. No program can be started after it.
func EndAll() {
	running.Lock()
	defer running.Unlock()
	running.ended = true
	sig := syscall.SIGTERM
	const pause, pauses = 10 * time.Millisecond, 25
	for range pauses {
		left := false
		for c := range running.programs {
			left = c.send(sig) == nil || left
		}
		if !left {
			return
		}
		sig = 0 // which asks whether there are any
		time.Sleep(pause)
	}
	for c := range running.programs {
		_ = c.send(syscall.SIGKILL)
	}
}

// Background starts a program that goes on after this process has ended, in a session of its own. It has the
// environment of this process, and out and err as streams. No signal is passed on to it.
func Background(out, err *os.File, name string, args ...string) (*os.Process, error) {
	cmd := exec.CommandContext(context.Background(), name, args...) // which never ends
	cmd.Stdout, cmd.Stderr = out, err
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}
