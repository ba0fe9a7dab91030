package engine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The direct engine of who may not write to the store has two processes: one with the
// NARs, and one of root's with a [Sink], which reads messages from its stdin and
// answers on its stdout. A message is a kind, the number of a path as a u32, the
// length of what follows as a u32, and that. Numbers are little endian.
const (
	msgReady  = 'r' // answer: it runs; all answers have what went wrong, or nothing
	msgBegin  = 'b' // the infos, as JSON; paths have numbers in their order
	msgData   = 'd' // some of a path's NAR
	msgEnd    = 'e' // the NAR has come to its end; answered when the path is added
	msgBroken = 'x' // the NAR has no end; answered as msgEnd
	msgFinish = 'f' // the paths' numbers, as JSON
	// Its stdin ends when it is to give up what it does and to close the sink; then it ends.

	headSize  = 9
	chunkSize = 256 << 10
	// What is larger than a chunk is about all paths.
	maxMessage = 1 << 30
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

// head begins a message, to which its data is appended.
func head(buf []byte, kind byte, number uint32) []byte {
	buf = append(buf, kind)
	buf = binary.LittleEndian.AppendUint32(buf, number)
	return append(buf, 0, 0, 0, 0)
}

// send sends what head began.
func (m *messenger) send(message []byte) error {
	if len(message)-headSize > maxMessage {
		return fmt.Errorf("a message of %d bytes is too large", len(message)-headSize)
	}
	binary.LittleEndian.PutUint32(message[headSize-4:], uint32(len(message)-headSize)) //nolint:gosec // at most maxMessage
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.w.Write(message)
	return err
}

// answer sends what became of something.
func (m *messenger) answer(kind byte, number uint32, err error) error {
	message := head(nil, kind, number)
	if err != nil {
		message = append(message, err.Error()...)
	}
	return m.send(message)
}

// receive reads a message. The data of one that is no larger than a chunk is in what
// chunk gives.
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
			return message{}, fmt.Errorf("a message of %d bytes", size)
		}
		m.data = make([]byte, size)
	default:
		return message{}, fmt.Errorf("a message %q of %d bytes", m.kind, size)
	}
	if _, err := io.ReadFull(r, m.data); err != nil {
		return message{}, fmt.Errorf("read a message of %d bytes: %w", size, err)
	}
	return m, nil
}
