package pack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// A pack has its chunks in two areas, with numbers of their own from 0 on.
type area int

const (
	contents area = iota // of files
	details              // skeletons and positions
	areas
)

// A stream is a sequence of bytes that is cut into chunks. A path has these four.
type streamKind int

const (
	files         streamKind = iota // the contents of files one after the other, or the whole NAR
	skeleton                        // the nodes
	nodePositions                   // of references in the skeleton
	filePositions                   // of references in files
	streams
)

// Streams is the number of streams, which have numbers from 0 on.
const Streams = int(streams)

func (k streamKind) area() area {
	if k == files {
		return contents
	}
	return details
}

// A run is a number of consecutive chunks of a pack.
type chunkRun struct {
	source int // 0 is the pack of the recipe, others are one more than the number in its leans
	first  int
	count  int
}

// maxChunks is the most chunks of an area of a pack, which bounds the memory for their
// hashes.
const maxChunks = 1 << 22

// appendRuns encodes the runs of a stream: for each its source, the distance of its first chunk from
// the end of the run of the same source before it (zigzag), and the number of its chunks.
func appendRuns(b []byte, runs []chunkRun) []byte {
	ends := map[int]int{}
	for _, r := range runs {
		b = binary.AppendUvarint(b, uint64(r.source)) //nolint:gosec // not negative
		b = binary.AppendVarint(b, int64(r.first-ends[r.source]))
		b = binary.AppendUvarint(b, uint64(r.count)) //nolint:gosec // positive
		ends[r.source] = r.first + r.count
	}
	return b
}

// readRuns decodes runs, of which no source is greater than sources.
func readRuns(data []byte, sources int) ([]chunkRun, error) {
	r := bytes.NewReader(data)
	var runs []chunkRun
	ends := map[int]int{}
	var all uint64
	for r.Len() > 0 {
		source, err := varints{r}.number()
		if err != nil {
			return nil, err
		}
		distance, err := binary.ReadVarint(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, unexpected(err))
		}
		count, err := varints{r}.number()
		if err != nil {
			return nil, err
		}
		if source > uint64(sources) || distance > math.MaxInt32 || distance < math.MinInt32 || count == 0 || count > maxChunks { //nolint:gosec // not negative
			return nil, fmt.Errorf("%w: a recipe with a run of %d chunks of source %d", ErrCorrupt, count, source)
		}
		if all += count; all > maxChunks {
			return nil, fmt.Errorf("%w: a recipe of more than %d chunks", ErrCorrupt, maxChunks)
		}
		one := chunkRun{source: int(source), first: ends[int(source)] + int(distance), count: int(count)} //nolint:gosec // checked above
		if one.first < 0 || one.first+one.count > maxChunks {
			return nil, fmt.Errorf("%w: a recipe with chunk %d", ErrCorrupt, one.first)
		}
		ends[one.source] = one.first + one.count
		runs = append(runs, one)
	}
	return runs, nil
}

// addChunk adds a chunk to the end of runs.
func addChunk(runs []chunkRun, source, number int) []chunkRun {
	if n := len(runs) - 1; n >= 0 && runs[n].source == source && runs[n].first+runs[n].count == number {
		runs[n].count++
		return runs
	}
	return append(runs, chunkRun{source, number, 1})
}
