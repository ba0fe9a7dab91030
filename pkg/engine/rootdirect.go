package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// DirectAsRoot returns the direct engine for a user who may not write to the store, but may
// run programs as root without a password. command is an absolute path with arguments: a
// program that calls [ServeDirect], whose last arguments are appended. It has no environment
// and gets all data through a pipe. It ends with the sink, with ctx before Begin, and at the
// latest with this process.
func DirectAsRoot(ctx context.Context, n *nix.Nix, command ...string) (Engine, error) {
	first, err := startAsRoot(ctx, n, command)
	if err != nil {
		return Engine{}, fmt.Errorf("cannot use the direct engine as root: %w", err)
	}
	var mu sync.Mutex // of first
	return Engine{
		Name:     "direct",
		Parallel: unpackers(),
		Begin: func(ctx context.Context, infos []nix.PathInfo) (_ Sink, err error) {
			mu.Lock()
			s := first
			first = nil
			mu.Unlock()
			if s == nil {
				if s, err = startAsRoot(ctx, n, command); err != nil {
					return nil, err
				}
			}
			if err := s.begin(ctx, infos); err != nil {
				return nil, errors.Join(err, s.Close())
			}
			return s, nil
		},
	}, nil
}

// A rootSink is the [Sink] of DirectAsRoot.
type rootSink struct {
	cmd    *child.Cmd
	in     io.WriteCloser
	to     messenger
	stderr bytes.Buffer // the process's stderr
	reader errgroup.Group
	stop   func() bool
	chunks sync.Pool

	numbers map[string]uint32

	mu      sync.Mutex
	waiting map[answered]chan error
	lost    error // set when no more answers can arrive
}

// answered identifies the request of an answer.
type answered struct {
	kind   byte
	number uint32
}

func startAsRoot(ctx context.Context, n *nix.Nix, command []string) (*rootSink, error) {
	if runtime.GOOS != "linux" {
		return nil, errors.New("it supports only Linux")
	}
	if _, dir, err := n.Local(); err != nil {
		return nil, err
	} else if n.Root() == "" && dir != "/nix/store" { // the other process has root's settings
		return nil, fmt.Errorf("the store is in %s", dir)
	}
	programs, err := nix.Programs()
	if err != nil {
		return nil, err
	}
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return nil, fmt.Errorf("%q is not an absolute path", command)
	}
	s := &rootSink{waiting: map[answered]chan error{}}
	s.chunks.New = func() any { return make([]byte, headSize+chunkSize) }
	args := append([]string{"-n", "--"}, command...)
	args = append(args, programs, n.Root())
	s.cmd = child.Command(context.WithoutCancel(ctx), 0, "sudo", args...) // the same program as this one
	s.cmd.Env = []string{}
	s.cmd.Dir = "/"
	s.cmd.Stderr = &s.stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.to.w = s.in
	ready := s.expect(msgReady, 0)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.stop = context.AfterFunc(ctx, func() { _ = s.in.Close() })
	s.reader.Go(func() error { return s.read(out) })
	if err := <-ready; err != nil {
		_ = s.Close()
		return nil, s.explain(err)
	}
	return s, nil
}

// explain returns the process's stderr as the error if the process has ended. It may be called
// after Close.
func (s *rootSink) explain(err error) error {
	if message := strings.TrimSpace(text.Plain(s.stderr.String())); message != "" && errors.Is(err, errLost) {
		return errors.New(message)
	}
	return err
}

var errLost = errors.New("the process that runs as root has ended")

// read passes answers on until the process ends.
func (s *rootSink) read(out io.Reader) error {
	r := bufio.NewReader(out)
	for {
		m, err := receive(r, func() []byte { return make([]byte, chunkSize) })
		s.mu.Lock()
		if err != nil {
			s.lost = errLost
			for _, ch := range s.waiting {
				ch <- s.lost
			}
			s.waiting = nil
			s.mu.Unlock()
			return err
		}
		key := answered{m.kind, m.number}
		if ch := s.waiting[key]; ch != nil {
			if m.kind != msgTaken {
				delete(s.waiting, key)
				delete(s.waiting, answered{msgTaken, m.number})
			}
			if len(m.data) > 0 {
				err = errors.New(string(m.data))
			}
			ch <- err
		}
		s.mu.Unlock()
	}
}

// expect returns the channel on which the answer to a request will arrive, or those to the parts of a NAR.
func (s *rootSink) expect(kind byte, number uint32) <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan error, window+1) // so that read never waits
	if s.lost != nil {
		ch <- s.lost
		return ch
	}
	s.waiting[answered{kind, number}] = ch
	return ch
}

// ask sends a message about all paths and waits for its answer.
func (s *rootSink) ask(ctx context.Context, kind byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	answer := s.expect(kind, 0)
	if err = s.to.send(append(head(nil, kind, 0), data...)); err != nil {
		_ = s.in.Close() // so that the process answers or ends
	}
	if answered := <-answer; answered != nil {
		err = answered
	}
	return s.cause(ctx, err)
}

// cause returns the cause of the context if that has ended, else err.
func (*rootSink) cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *rootSink) begin(ctx context.Context, infos []nix.PathInfo) error {
	s.stop()
	s.stop = context.AfterFunc(ctx, func() { _ = s.in.Close() })
	s.numbers = make(map[string]uint32, len(infos))
	for i, info := range infos {
		s.numbers[info.Path] = uint32(i)
	}
	return s.ask(ctx, msgBegin, infos)
}

// Add sends the NAR.
func (s *rootSink) Add(ctx context.Context, info nix.PathInfo, r io.Reader) error {
	number := s.numbers[info.Path]
	answer := s.expect(msgEnd, number)
	broken, err := s.sendNAR(number, &stoppable{ctx, r})
	if err == nil {
		err = <-answer
	}
	if broken != nil {
		return fmt.Errorf("cannot unpack %s: %w", info.Path, broken)
	}
	return s.cause(ctx, err)
}

// sendNAR sends a NAR. broken is an error of its reader, err any other one.
func (s *rootSink) sendNAR(number uint32, r io.Reader) (broken, err error) {
	buf, _ := s.chunks.Get().([]byte)
	defer s.chunks.Put(buf) //nolint:staticcheck // one allocation per path does not matter
	chunk := head(buf[:0], msgData, number)
	taken := s.expect(msgTaken, number)
	for sent := 0; ; {
		n, err := r.Read(chunk[len(chunk):cap(chunk)])
		chunk = chunk[:len(chunk)+n]
		if len(chunk) > headSize && (len(chunk) == cap(chunk) || err != nil) {
			if sent++; sent > window {
				if err := <-taken; err != nil {
					return nil, err
				}
			}
			if err := s.to.send(chunk); err != nil {
				return nil, err
			}
			chunk = chunk[:headSize]
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, s.to.send(head(nil, msgEnd, number))
		case err != nil:
			return err, s.to.send(head(nil, msgBroken, number))
		}
	}
}

// Finish has the paths registered.
func (s *rootSink) Finish(ctx context.Context, infos []nix.PathInfo) error {
	numbers := make([]uint32, len(infos))
	for i, info := range infos {
		numbers[i] = s.numbers[info.Path]
	}
	return s.ask(ctx, msgFinish, numbers)
}

// Close ends the process, which removes the paths that were not made valid.
func (s *rootSink) Close() error {
	s.stop()
	_ = s.in.Close()
	_ = s.reader.Wait() // its error is that the stream has ended
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("cannot restore as root: %w", s.explain(errors.Join(errLost, err)))
	}
	return nil
}
