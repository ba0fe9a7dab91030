package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/nix"
)

// maxOpen is the most paths that may be added at a time.
const maxOpen = 64

// ServeDirect is the root process of [DirectAsRoot]. It runs Nix's programs from the
// directory programs, if only root can change them. The store is in root/nix/store; an empty
// root is for the store of this machine.
func ServeDirect(ctx context.Context, in io.Reader, out io.Writer, programs, root string) error {
	// Incomplete paths are removed even if the reader of the answers has ended.
	signal.Ignore(syscall.SIGPIPE)
	answers := &messenger{w: out}
	engine, err := engineOf(ctx, programs, root)
	if err := errors.Join(err, answers.answer(msgReady, 0, err)); err != nil {
		return err
	}
	return serve(ctx, engine, bufio.NewReaderSize(in, chunkSize), answers)
}

func engineOf(ctx context.Context, programs, root string) (Engine, error) {
	if err := nix.TrustPrograms(programs); err != nil {
		return Engine{}, err
	}
	n, err := nix.Find(ctx, io.Discard, nix.Config{})
	if err != nil {
		return Engine{}, err
	}
	if root != "" {
		n = n.WithRoot(root)
	}
	return direct(ctx, n)
}

// A server serves a sink.
type server struct {
	in      *bufio.Reader
	answers *messenger
	chunks  sync.Pool

	infos []nix.PathInfo
	sink  Sink
	adds  errgroup.Group
	open  map[uint32]*incoming
}

// serve answers messages, which may be hostile, until the stream ends.
func serve(ctx context.Context, engine Engine, in *bufio.Reader, answers *messenger) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{in: in, answers: answers, open: map[uint32]*incoming{}}
	s.chunks.New = func() any { return make([]byte, chunkSize) }
	s.adds.SetLimit(maxOpen)

	m, err := s.receive()
	if errors.Is(err, io.EOF) {
		return nil // no sink was begun
	}
	if err == nil && m.kind != msgBegin {
		err = fmt.Errorf("unexpected first message %q", m.kind)
	}
	if err == nil {
		err = json.Unmarshal(m.data, &s.infos)
	}
	if err != nil {
		return err
	}
	s.sink, err = engine.Begin(ctx, s.infos)
	if answered := answers.answer(msgBegin, 0, err); err != nil {
		return errors.Join(err, answered)
	} else if answered != nil { // the client has ended
		return errors.Join(answered, s.sink.Close())
	}
	err = s.all(ctx)
	cancel() // incomplete paths will not be completed
	for _, add := range s.open {
		add.end(io.ErrUnexpectedEOF)
	}
	return errors.Join(err, s.adds.Wait(), s.sink.Close())
}

func (s *server) receive() (message, error) {
	return receive(s.in, func() []byte {
		chunk, _ := s.chunks.Get().([]byte)
		return chunk[:chunkSize]
	})
}

func (s *server) all(ctx context.Context) error {
	for {
		m, err := s.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m.kind {
		case msgData, msgEnd, msgBroken:
			err = s.nar(ctx, m)
		case msgFinish:
			err = s.finish(ctx, m)
		default:
			err = fmt.Errorf("unknown message %q", m.kind)
		}
		if err != nil {
			return err
		}
	}
}

// nar passes on a chunk of a NAR, or its end.
func (s *server) nar(ctx context.Context, m message) error {
	add := s.open[m.number]
	if add == nil {
		if int64(m.number) >= int64(len(s.infos)) || len(s.open) == maxOpen {
			return fmt.Errorf("invalid path %d of %d, or more than the %d open ones", m.number, len(s.infos), len(s.open))
		}
		add = &incoming{chunks: make(chan []byte, window), used: &s.chunks}
		add.taken = func() { _ = s.answers.answer(msgTaken, m.number, nil) } // an error is that of stdin, too
		s.open[m.number] = add
		s.adds.Go(func() error {
			err := s.sink.Add(ctx, s.infos[m.number], add)
			_, _ = io.Copy(io.Discard, add) // the rest after an error
			return s.answers.answer(msgEnd, m.number, err)
		})
	}
	switch m.kind {
	case msgData:
		select {
		case add.chunks <- m.data:
			return nil
		default:
			return fmt.Errorf("more than %d parts of path %d at a time", window, m.number)
		}
	case msgBroken:
		add.end(errors.New("the NAR is incomplete"))
	case msgEnd:
		add.end(io.EOF)
	}
	delete(s.open, m.number)
	return nil
}

func (s *server) finish(ctx context.Context, m message) error {
	var numbers []int
	if err := json.Unmarshal(m.data, &numbers); err != nil {
		return err
	}
	if len(s.open) > 0 {
		return fmt.Errorf("unexpected end while %d paths are open", len(s.open))
	}
	if err := s.adds.Wait(); err != nil {
		return err
	}
	infos := make([]nix.PathInfo, len(numbers))
	for i, n := range numbers {
		if n < 0 || n >= len(s.infos) {
			return fmt.Errorf("invalid path %d of %d", n, len(s.infos))
		}
		infos[i] = s.infos[n]
	}
	// Finish may wait for locks. The client sends nothing until it has the answer, and ends
	// the stream to stop it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var more errgroup.Group
	more.Go(func() error {
		if _, err := s.in.Peek(1); err != nil {
			cancel()
		}
		return nil
	})
	err := s.answers.answer(msgFinish, 0, s.sink.Finish(ctx, infos))
	_ = more.Wait() // because only one goroutine may read
	return err
}

// incoming is the reader of a NAR that arrives in chunks.
type incoming struct {
	chunks chan []byte
	used   *sync.Pool // for chunks that were read
	taken  func()     // called when a chunk was taken
	last   error      // after the chunks; set before the channel is closed

	chunk, rest []byte
}

// end marks the last chunk. Read then returns err.
func (i *incoming) end(err error) {
	i.last = err
	close(i.chunks)
}

func (i *incoming) Read(p []byte) (int, error) {
	for len(i.rest) == 0 {
		if i.chunk != nil {
			i.used.Put(i.chunk) //nolint:staticcheck // one allocation per chunk does not matter
			i.chunk = nil
		}
		chunk, ok := <-i.chunks
		if !ok {
			return 0, i.last
		}
		i.taken()
		i.chunk, i.rest = chunk, chunk
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
