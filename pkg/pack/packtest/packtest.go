// Package packtest takes packs of chunks apart, and puts them together again with a lie in them, all of which is
// consistent otherwise. It knows the format from the comment of package pack alone.
package packtest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The streams of a path, as in its runs.
const (
	Files = iota
	Skeleton
	NodePositions
	FilePositions
)

// A Pack is a pack of chunks in clear, taken apart.
type Pack struct {
	Version int        `json:"version"`
	Paths   []string   `json:"paths"`
	Records []Record   `json:"records"`
	Places  [][3]int64 `json:"frames"` // offset, size, decompressed length
	Counts  []int      `json:"chunks"`
	Leans   []string   `json:"leans,omitempty"`
	Leaned  []int64    `json:"leaned,omitempty"`

	// Chunks has the chunks of each frame.
	Chunks [][][]byte `json:"-"`
	// Length replaces the lengths in the table, unless it is nil.
	Length []uint64 `json:"-"`
	// Changed is called with the index before it is written, and the frames of the pack, unless it is nil.
	Changed func(index *Pack, frames [][]byte) `json:"-"`
}

// A Record is a path of a pack.
type Record struct {
	NarHash    string   `json:"h"`
	NarSize    int64    `json:"n"`
	References []int    `json:"r,omitempty"`
	Deriver    *int     `json:"d,omitempty"`
	Signatures []string `json:"s,omitempty"`
	CA         string   `json:"c,omitempty"`
	Runs       [][]byte `json:"x,omitempty"`
}

var (
	encoder, _ = zstd.NewWriter(nil)
	decoder, _ = zstd.NewReader(nil)
)

// Parse takes a pack apart.
func Parse(data []byte) (*Pack, error) {
	const trailer = 16
	if len(data) < trailer || string(data[len(data)-8:]) != "nixmpack" {
		return nil, io.ErrUnexpectedEOF
	}
	end := len(data) - trailer
	index, err := decoder.DecodeAll(data[end-int(binary.LittleEndian.Uint64(data[end:])):end], nil)
	if err != nil {
		return nil, err
	}
	p := &Pack{}
	if err := json.Unmarshal(index, p); err != nil {
		return nil, err
	}
	var frames [][]byte
	for _, at := range p.Places {
		plain, err := decoder.DecodeAll(data[at[0]:at[0]+at[1]], nil)
		if err != nil {
			return nil, err
		}
		frames = append(frames, plain)
	}
	// The lengths are those of all chunks of files, and then of all others.
	lengths := Numbers(frames[len(p.Counts)+1])
	p.Chunks = make([][][]byte, len(p.Counts))
	for _, details := range []bool{false, true} {
		for i, n := range p.Counts {
			if n < 0 != details {
				continue
			}
			rest := frames[i]
			for range max(n, -n) {
				size := lengths[0]
				p.Chunks[i] = append(p.Chunks[i], rest[:size:size])
				rest, lengths = rest[size:], lengths[1:]
			}
		}
	}
	return p, nil
}

// Lengths returns the lengths of all chunks, those of files first.
func (p *Pack) Lengths() []uint64 {
	var all []uint64
	for _, chunk := range p.inOrder() {
		all = append(all, uint64(len(chunk)))
	}
	return all
}

// inOrder returns all chunks, those of files first.
func (p *Pack) inOrder() (all [][]byte) {
	var details [][]byte
	for i, n := range p.Counts {
		if n < 0 {
			details = append(details, p.Chunks[i]...)
		} else {
			all = append(all, p.Chunks[i]...)
		}
	}
	return append(all, details...)
}

// Bytes returns the pack, and the hash of its index.
func (p *Pack) Bytes() (data []byte, sum string, err error) {
	var frames [][]byte
	for _, chunks := range p.Chunks {
		var frame []byte
		for _, chunk := range chunks {
			frame = append(frame, chunk...)
		}
		frames = append(frames, frame)
	}
	var sums []byte
	for _, chunk := range p.inOrder() {
		hash := sha256.Sum256(chunk)
		sums = append(sums, hash[:16]...)
	}
	lengths := p.Length
	if lengths == nil {
		lengths = p.Lengths()
	}
	frames = append(frames, sums, Varints(lengths...))
	p.Places = nil
	for i, frame := range frames {
		frames[i] = encoder.EncodeAll(frame, nil)
		p.Places = append(p.Places, [3]int64{0, 0, int64(len(frame))})
	}
	if p.Changed != nil {
		p.Changed(p, frames)
	}
	for i, frame := range frames {
		p.Places[i][0], p.Places[i][1] = int64(len(data)), int64(len(frame))
		data = append(data, frame...)
	}
	index, err := json.Marshal(p)
	if err != nil {
		return nil, "", err
	}
	index = encoder.EncodeAll(index, nil)
	hash := sha256.Sum256(index)
	data = binary.LittleEndian.AppendUint32(data, 0x184D2A5E)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(index)+16))
	data = append(data, index...)
	data = binary.LittleEndian.AppendUint64(data, uint64(len(index)))
	return append(data, "nixmpack"...), hex.EncodeToString(hash[:]), nil
}

// Stream returns the bytes of a stream of a record, all of whose chunks are in this pack.
func (p *Pack) Stream(record, stream int) []byte {
	var chunks [][]byte
	for i, n := range p.Counts {
		if n < 0 == (stream != Files) {
			chunks = append(chunks, p.Chunks[i]...)
		}
	}
	var data []byte
	for _, run := range p.Runs(record, stream) {
		if run.Source != 0 {
			panic(fmt.Sprintf("stream %d of record %d is in another pack", stream, record))
		}
		for _, chunk := range chunks[run.First:][:run.Count] {
			data = append(data, chunk...)
		}
	}
	return data
}

// SetStream replaces a stream of a record by a chunk in a frame of its own.
func (p *Pack) SetStream(record, stream int, data []byte) {
	first, sign := 0, 1
	if stream != Files {
		sign = -1
	}
	for _, n := range p.Counts {
		first += max(0, sign*n)
	}
	p.Chunks = append(p.Chunks, [][]byte{data})
	p.Counts = append(p.Counts, sign)
	p.SetRuns(record, stream, Run{0, first, 1})
}

// A Run is consecutive chunks of a stream.
type Run struct{ Source, First, Count int }

// Runs returns the runs of a stream.
func (p *Pack) Runs(record, stream int) (runs []Run) {
	data := p.Records[record].Runs[stream]
	ends := map[int]int{}
	for len(data) > 0 {
		source, n := binary.Uvarint(data)
		distance, m := binary.Varint(data[n:])
		count, k := binary.Uvarint(data[n+m:])
		data = data[n+m+k:]
		r := Run{int(source), ends[int(source)] + int(distance), int(count)}
		ends[r.Source] = r.First + r.Count
		runs = append(runs, r)
	}
	return runs
}

// SetRuns sets the runs of a stream.
func (p *Pack) SetRuns(record, stream int, runs ...Run) {
	var data []byte
	ends := map[int]int{}
	for _, r := range runs {
		data = binary.AppendUvarint(data, uint64(r.Source))
		data = binary.AppendVarint(data, int64(r.First-ends[r.Source]))
		data = binary.AppendUvarint(data, uint64(r.Count))
		ends[r.Source] = r.First + r.Count
	}
	p.Records[record].Runs[stream] = data
}

// Numbers decodes varints.
func Numbers(data []byte) (all []uint64) {
	for len(data) > 0 {
		number, n := binary.Uvarint(data)
		all, data = append(all, number), data[n:]
	}
	return all
}

// Varints encodes numbers.
func Varints(numbers ...uint64) (data []byte) {
	for _, n := range numbers {
		data = binary.AppendUvarint(data, n)
	}
	return data
}
