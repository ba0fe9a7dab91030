package engine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// [DirectAsRoot] has two processes: this one has the NARs, and one that runs as root has a
// [Sink], reads messages from its stdin and answers on its stdout. A message is a kind, the
// number of a path as a u32, the length of its data as a u32, and the data. Numbers are
// little endian. The end of stdin stops all operations, closes the sink and ends the
// process, which reads on while paths wait for a lock.
const (
	msgReady  = 'r' // answer: the process runs. The data of an answer is an error or empty
	msgBegin  = 'b' // the infos as JSON; paths are numbered in their order
	msgData   = 'd' // part of a path's NAR
	msgEnd    = 'e' // the end of the NAR; answered when the path is added
	msgBroken = 'x' // the NAR has no end; answered like msgEnd
	msgTaken  = 't' // answer: a part of the NAR was taken. No more than window parts may wait for that
	msgFinish = 'f' // the paths' numbers as JSON

	window     = 4
	headSize   = 9
	chunkSize  = 256 << 10
	maxMessage = 1 << 30 // of a message about all paths; others are at most a chunk
)

type message struct {
	kind   byte
	number uint32
	data   []byte
}

// A messenger writes messages for several goroutines.
type messenger struct {
	mu sync.Mutex
	w  io.Writer
}

// head returns the beginning of a message, to which the caller appends the data.
func head(buf []byte, kind byte, number uint32) []byte {
	buf = append(buf, kind)
	buf = binary.LittleEndian.AppendUint32(buf, number)
	return append(buf, 0, 0, 0, 0)
}

// send sets the length of a message and sends it.
func (m *messenger) send(message []byte) error {
	if len(message)-headSize > maxMessage {
		return fmt.Errorf("message of %d bytes is too large", len(message)-headSize)
	}
	binary.LittleEndian.PutUint32(message[headSize-4:], uint32(len(message)-headSize)) //nolint:gosec // at most maxMessage
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.w.Write(message)
	return err
}

// answer sends the result of a request.
func (m *messenger) answer(kind byte, number uint32, err error) error {
	message := head(nil, kind, number)
	if err != nil {
		message = append(message, err.Error()...)
	}
	return m.send(message)
}

// receive reads a message. Data that fits into a chunk is read into the result of chunk.
func receive(r *bufio.Reader, chunk func() []byte) (message, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	m := message{kind: head[0], number: binary.LittleEndian.Uint32(head[1:])}
	size := binary.LittleEndian.Uint32(head[5:])
	switch {
	case size <= chunkSize:
		m.data = chunk()[:size]
	case m.kind == msgBegin || m.kind == msgFinish:
		if size > maxMessage {
			return message{}, fmt.Errorf("message of %d bytes is too large", size)
		}
		m.data = make([]byte, size)
	default:
		return message{}, fmt.Errorf("message %q of %d bytes is too large", m.kind, size)
	}
	if _, err := io.ReadFull(r, m.data); err != nil {
		return message{}, fmt.Errorf("cannot read a message of %d bytes: %w", size, err)
	}
	return m, nil
}
