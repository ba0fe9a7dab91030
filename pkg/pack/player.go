package pack

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/org/nix-matrix/internal/nar"
)

// A Player reads the NAR of a record of a pack of chunks. Like [Reader], it checks the NAR against its
// hash before it returns the last bytes. Its errors wrap [ErrCorrupt], or are those of frames.
type Player struct {
	rec     *Record
	lengths []*Lengths
	frame   func(stream, source, number int) ([]byte, error)
	kept    func(source, number int, start uint32) []byte

	nodes         *skeletonReader
	nodesAre      *cursor
	filePositions *bufio.Reader
	contents      cursor
	composer      *nar.Composer
	hashes        []string

	pending []byte // of the NAR, to be returned
	text    []byte
	buf     []byte // a chunk
	chunks  uint64 // of the open file that are still to come
	patch   patcher
	file    uint64 // number of the next file
	next    uint64 // number of the next file with positions
	more    bool   // there is such a file

	left    int64 // bytes of the NAR that were not returned yet
	sum     hash.Hash
	ended   bool // all of the NAR was made
	checked bool
	err     error
}

// NewPlayer returns a player of a record. Source 0 is the pack itself, others are one more than the number
// of a pack in Leans; lengths has those of each source that [Index.Sources] names, and frame returns a decoded frame,
// which is not changed, and is not read any more when frame is called again for the same of [Streams] streams. Unless
// it is nil, kept is called for each chunk that [Index.EachChunk] names: it returns a chunk for which the frame is not
// needed, or nil.
func (ix *Index) NewPlayer(record int, lengths []*Lengths, frame func(stream, source, number int) ([]byte, error), kept func(source, number int, start uint32) []byte) *Player {
	rec := &ix.Records[record]
	p := &Player{rec: rec, lengths: lengths, frame: frame, kept: kept, left: rec.NarSize, sum: sha256.New()}
	p.contents = p.cursor(files)
	if len(rec.runs[skeleton]) == 0 {
		return p
	}
	p.hashes = references(rec.Path, rec.References)
	p.composer = nar.NewComposer()
	nodes := p.cursor(skeleton)
	positions, err := readAllPositions(p.stream(nodePositions), len(p.hashes))
	if err != nil {
		p.err = err
		return p
	}
	nodes.patch = &patcher{hashes: p.hashes, todo: positions}
	p.nodesAre = &nodes
	p.nodes = &skeletonReader{r: bufio.NewReader(&nodes)}
	p.filePositions = p.stream(filePositions)
	p.err = p.nextPositions(true)
	return p
}

// readAllPositions reads the positions of a stream, which may be empty.
func readAllPositions(r *bufio.Reader, hashes int) ([]position, error) {
	if _, err := r.Peek(1); errors.Is(err, io.EOF) {
		return nil, nil
	}
	return readPositions(varints{r}, hashes)
}

func (p *Player) cursor(kind streamKind) cursor {
	return cursor{p: p, kind: kind, area: kind.area(), runs: p.rec.runs[kind]}
}

func (p *Player) stream(kind streamKind) *bufio.Reader {
	c := p.cursor(kind)
	return bufio.NewReader(&c)
}

// nextPositions reads the number of the next file with positions.
func (p *Player) nextPositions(first bool) error {
	if _, err := p.filePositions.Peek(1); errors.Is(err, io.EOF) {
		p.more = false
		return nil
	}
	distance, err := varints{p.filePositions}.number()
	if err != nil {
		return err
	}
	if distance > 1<<40 || distance == 0 && !first {
		return fmt.Errorf("%w: positions of a file at distance %d", ErrCorrupt, distance)
	}
	p.next += distance
	p.more = true
	return nil
}

// Read implements io.Reader.
func (p *Player) Read(to []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	if len(to) == 0 {
		return 0, nil
	}
	for len(p.pending) == 0 {
		if p.left == 0 && p.ended {
			if p.err = p.check(); p.err == nil {
				p.err = io.EOF
			}
			return 0, p.err
		}
		if p.err = p.step(); p.err != nil {
			return 0, p.err
		}
		if int64(len(p.pending)) > p.left {
			p.err = fmt.Errorf("%w: the NAR of %s has more than %d bytes", ErrCorrupt, p.rec.Path, p.rec.NarSize)
			return 0, p.err
		}
		p.sum.Write(p.pending)
	}
	if int64(len(p.pending)) == p.left {
		if p.err = p.check(); p.err != nil {
			return 0, p.err
		}
	}
	n := copy(to, p.pending)
	p.pending = p.pending[n:]
	p.left -= int64(n)
	return n, nil
}

// check compares the NAR with its hash when all of its bytes are made, of which pending has the last.
func (p *Player) check() error {
	if p.checked {
		return nil
	}
	last := p.pending
	for !p.ended {
		p.pending = nil
		if err := p.step(); err != nil {
			return err
		}
		if len(p.pending) > 0 {
			return fmt.Errorf("%w: the NAR of %s has more than %d bytes", ErrCorrupt, p.rec.Path, p.rec.NarSize)
		}
	}
	p.pending, p.checked = last, true
	if [sha256.Size]byte(p.sum.Sum(nil)) != p.rec.NarHash {
		return fmt.Errorf("%w: the NAR of %s does not have its hash in the index", ErrCorrupt, p.rec.Path)
	}
	return nil
}

// step makes the next bytes of the NAR, or none.
func (p *Player) step() error {
	switch {
	case p.ended:
		return fmt.Errorf("%w: the NAR of %s ends before its last %d bytes", ErrCorrupt, p.rec.Path, p.left)
	case p.nodes == nil:
		return p.wholeStep()
	case p.chunks > 0:
		return p.contentsStep()
	}
	n, chunks, err := p.nodes.next()
	if errors.Is(err, io.EOF) {
		return p.finish()
	}
	if err != nil {
		return err
	}
	if n.Kind == nar.File || n.Kind == nar.Executable {
		if n.Size, err = p.contents.size(chunks); err != nil {
			return err
		}
		if err := p.beginFile(chunks); err != nil {
			return err
		}
	}
	p.text, err = p.composer.Append(p.text[:0], n)
	p.pending = p.text
	return p.malformed(err)
}

func (p *Player) malformed(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// beginFile prepares the chunks of a file.
func (p *Player) beginFile(chunks uint64) error {
	p.chunks = chunks
	p.patch = patcher{}
	if p.more && p.next == p.file {
		positions, err := readPositions(varints{p.filePositions}, len(p.hashes))
		if err != nil {
			return err
		}
		p.patch = patcher{hashes: p.hashes, todo: positions}
		if err := p.nextPositions(false); err != nil {
			return err
		}
	}
	p.file++
	return nil
}

func (p *Player) contentsStep() error {
	chunk, err := p.contents.next()
	if err != nil {
		return err
	}
	p.chunks--
	p.pending = chunk
	if len(p.patch.todo) > 0 {
		p.buf = append(p.buf[:0], chunk...)
		p.patch.patch(p.buf)
		p.pending = p.buf
	}
	if p.chunks == 0 {
		return p.patch.done()
	}
	return nil
}

// wholeStep makes bytes of a NAR that is stored whole.
func (p *Player) wholeStep() error {
	chunk, err := p.contents.next()
	if errors.Is(err, io.EOF) {
		p.ended = true
		return nil
	}
	p.pending = chunk
	return err
}

func (p *Player) finish() (err error) {
	p.ended = true
	if err := p.nodesAre.patch.done(); err != nil {
		return err
	}
	p.text, err = p.composer.Finish(p.text[:0])
	p.pending = p.text
	return p.malformed(err)
}

// A cursor reads the chunks of a stream one after the other.
type cursor struct {
	p     *Player
	kind  streamKind
	area  area
	runs  []chunkRun
	at    int      // in the first run
	patch *patcher // nil leaves the chunks as they are
	data  []byte   // of a chunk, for Read
	buf   []byte

	// The frame of the last chunk is held, so that it need not be decoded again because others used its place.
	frameIs Need
	frame   []byte
}

// next returns the next chunk, which must not be changed, or io.EOF.
func (c *cursor) next() ([]byte, error) {
	if len(c.runs) == 0 {
		return nil, io.EOF
	}
	run := c.runs[0]
	frame, start, end, err := c.p.lengths[run.source].find(c.area, run.first+c.at)
	if err != nil {
		return nil, err
	}
	if c.at++; c.at == run.count {
		c.runs, c.at = c.runs[1:], 0
	}
	if c.p.kept != nil {
		if chunk := c.p.kept(run.source, frame, start); chunk != nil {
			return chunk, nil
		}
	}
	if is := (Need{run.source, frame}); c.frame == nil || c.frameIs != is {
		if c.frame, err = c.p.frame(int(c.kind), run.source, frame); err != nil {
			return nil, err
		}
		c.frameIs = is
	}
	if uint64(end) > uint64(len(c.frame)) {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrCorrupt, len(c.frame))
	}
	return c.frame[start:end], nil
}

// size returns the number of bytes in the next chunks.
func (c *cursor) size(chunks uint64) (size int64, err error) {
	runs, at := c.runs, c.at
	for range chunks {
		if len(runs) == 0 {
			return 0, fmt.Errorf("%w: a file of %d chunks, of which some are missing", ErrCorrupt, chunks)
		}
		_, start, end, err := c.p.lengths[runs[0].source].find(c.area, runs[0].first+at)
		if err != nil {
			return 0, err
		}
		size += int64(end - start)
		if at++; at == runs[0].count {
			runs, at = runs[1:], 0
		}
	}
	return size, nil
}

// Read implements io.Reader.
func (c *cursor) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		data, err := c.next()
		if err != nil {
			return 0, err
		}
		if c.patch != nil && len(c.patch.todo) > 0 {
			c.buf = append(c.buf[:0], data...)
			data = c.buf
			c.patch.patch(data)
		}
		c.data = data
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}
