package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Numbers of the worker protocol, and of what Lix 2.94 makes of it.
const (
	clientMagic = 0x6e697863
	serverMagic = 0x6478696f
	protocol    = 1<<8 | 35

	messageError = 0x63787470
	levelError   = 0
)

// The requests that are understood: s is a string, n a number, l a list of strings, f a
// stream in frames.
var requests = map[uint64]string{
	1:  "s",   // IsValidPath
	10: "s",   // EnsurePath
	11: "s",   // AddTempRoot
	23: "",    // QueryAllValidPaths
	26: "s",   // QueryPathInfo
	31: "ln",  // QueryValidPaths
	40: "l",   // QueryMissing
	41: "s",   // QueryDerivationOutputMap
	44: "nnf", // AddMultipleToStore
}

// removed are the operations that Lix has taken out of the protocol.
var removed = map[uint64]string{
	3: "HasSubstitutes", 4: "QueryPathHash", 5: "QueryReferences", 8: "AddTextToStore", 13: "SyncWithGC", 16: "ExportPath",
	18: "QueryDeriver", 22: "QueryDerivationOutputs", 27: "ImportPaths", 28: "QueryDerivationOutputNames",
	42: "RegisterDrvOutput", 43: "QueryRealisation",
}

// serve is nix-daemon --stdio: it greets a client as Lix does, and lets another daemon do
// what it asks for.
func (f *fork) serve(args []string) error {
	client := newStream(os.Stdin, os.Stdout)
	if err := client.greet(); err != nil {
		return err
	}
	cmd := f.program("nix-daemon", args...)
	cmd.Stdin, cmd.Stdout = nil, nil
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	server := newStream(out, in)
	trust, err := server.connect()
	if err != nil {
		return err
	}
	client.text("2.94.0")
	client.number(trust)
	if err := client.w.Flush(); err != nil {
		return err
	}
	answered := make(chan error, 1)
	go func() {
		_, err := io.Copy(os.Stdout, server.r)
		answered <- err
	}()
	refused := client.forward(server)
	_ = in.Close()
	err = errors.Join(<-answered, cmd.Wait())
	if refused != nil {
		client.refuse(refused)
		return refused
	}
	return err
}

// forward hands requests on until there is none any more. The error is why one is not.
func (s *stream) forward(server *stream) error {
	for {
		op, err := s.readNumber()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		parts, ok := requests[op]
		switch {
		case removed[op] != "":
			return fmt.Errorf("%s is not supported in Lix", removed[op])
		case !ok:
			return fmt.Errorf("invalid operation %d", op)
		}
		server.number(op)
		for _, part := range parts {
			if err := s.pass(server, part); err != nil {
				return err
			}
		}
		if err := server.w.Flush(); err != nil {
			return err
		}
	}
}

// pass hands a part of a request on.
func (s *stream) pass(server *stream, part rune) error {
	switch part {
	case 'n':
		n, err := s.readNumber()
		server.number(n)
		return err
	case 's':
		text, err := s.readText()
		server.text(text)
		return err
	case 'l':
		n, err := s.readNumber()
		server.number(n)
		for ; n > 0 && err == nil; n-- {
			err = s.pass(server, 's')
		}
		return err
	}
	for {
		size, err := s.readNumber()
		if err != nil {
			return err
		}
		server.number(size)
		if size == 0 {
			return nil
		}
		if _, err := io.CopyN(server.w, s.r, int64(size)); err != nil {
			return err
		}
	}
}

// stream is one side of a connection. An error of writing comes with Flush.
type stream struct {
	r *bufio.Reader
	w *bufio.Writer
}

func newStream(r io.Reader, w io.Writer) *stream {
	return &stream{bufio.NewReader(r), bufio.NewWriter(w)}
}

// greet is the server's part of the greeting, up to its version and trust.
func (s *stream) greet() error {
	magic, err := s.readNumber()
	if err != nil {
		return err
	}
	if magic != clientMagic {
		return errors.New("protocol mismatch")
	}
	s.number(serverMagic)
	s.number(protocol)
	if err := s.w.Flush(); err != nil {
		return err
	}
	version, err := s.readNumber()
	if err != nil {
		return err
	}
	if version < protocol {
		return errors.New("the Nix client version is too old")
	}
	for _, obsolete := range []string{"CPU affinity", "reserved space"} {
		if n, err := s.readNumber(); err != nil || n != 0 {
			return fmt.Errorf("%s is %d, %w", obsolete, n, err)
		}
	}
	return nil
}

// connect is the client's part of the greeting. It gives whether the server trusts it.
func (s *stream) connect() (trust uint64, err error) {
	s.number(clientMagic)
	if err := s.w.Flush(); err != nil {
		return 0, err
	}
	for range 2 { // magic and version
		if _, err := s.readNumber(); err != nil {
			return 0, err
		}
	}
	for _, n := range []uint64{protocol, 0, 0} {
		s.number(n)
	}
	if err := s.w.Flush(); err != nil {
		return 0, err
	}
	if _, err := s.readText(); err != nil { // version of Nix
		return 0, err
	}
	return s.readNumber()
}

// refuse tells an error that ends the connection.
func (s *stream) refuse(err error) {
	s.number(messageError)
	s.text("Error")
	s.number(levelError)
	s.text("Error")
	s.text(err.Error())
	s.number(0) // position
	s.number(0) // traces
	_ = s.w.Flush()
}

func (s *stream) number(n uint64) {
	_, _ = s.w.Write(binary.LittleEndian.AppendUint64(nil, n))
}

func (s *stream) text(text string) {
	s.number(uint64(len(text)))
	_, _ = s.w.WriteString(text)
	_, _ = s.w.Write(make([]byte, -len(text)&7))
}

func (s *stream) readNumber() (uint64, error) {
	var data [8]byte
	_, err := io.ReadFull(s.r, data[:])
	return binary.LittleEndian.Uint64(data[:]), err
}

func (s *stream) readText() (string, error) {
	size, err := s.readNumber()
	if err != nil {
		return "", err
	}
	if size > 1<<20 {
		return "", fmt.Errorf("a string of %d bytes", size)
	}
	data := make([]byte, size+-size&7)
	if _, err := io.ReadFull(s.r, data); err != nil {
		return "", err
	}
	for _, b := range data[size:] {
		if b != 0 {
			return "", errors.New("non-zero padding")
		}
	}
	return string(data[:size]), nil
}
