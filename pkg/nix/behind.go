package nix

import "io"

// The memory of a behind.
const (
	behindPiece  = 256 << 10
	behindPieces = 64
)

// A behind writes in a goroutine of its own, with some megabytes of memory, so that one side need not wait whenever the
// other is slower for a moment: a large file takes long to make and little to write, many small files the reverse.
type behind struct {
	to    io.WriteCloser
	full  chan []byte // in the order of Write
	empty chan []byte
	ended chan struct{} // closed when nothing is written any more
	err   error         // set before
}

// writeBehind returns a writer of which the caller must call Close.
func writeBehind(to io.WriteCloser) *behind {
	b := &behind{to: to, full: make(chan []byte, behindPieces), empty: make(chan []byte, behindPieces), ended: make(chan struct{})}
	for range behindPieces {
		b.empty <- nil
	}
	go b.run()
	return b
}

func (b *behind) run() {
	defer close(b.ended)
	for piece := range b.full {
		if _, b.err = b.to.Write(piece); b.err != nil {
			return
		}
		b.empty <- piece[:0]
	}
}

// Write implements io.Writer. Its error may be that of earlier bytes.
func (b *behind) Write(p []byte) (n int, err error) {
	for n < len(p) {
		var piece []byte
		select {
		case piece = <-b.empty:
		case <-b.ended:
			return n, b.err
		}
		size := min(len(p)-n, behindPiece)
		b.full <- append(piece, p[n:n+size]...) // it has room for all pieces
		n += size
	}
	return n, nil
}

// Close implements io.Closer, once all is written.
func (b *behind) Close() error {
	close(b.full)
	<-b.ended
	if err := b.to.Close(); b.err == nil {
		b.err = err
	}
	return b.err
}
