package pack

// Known has the chunks of other packs, so that a [Packer] does not store them again. It is not safe
// for concurrent use.
type Known struct {
	packs  []string // hashes of their indexes
	chunks [areas]map[Sum]place
}

// A place is that of a chunk.
type place struct {
	pack   int32 // number in Known
	number int32 // of the chunk
}

// NewKnown returns a Known without chunks.
func NewKnown() *Known {
	k := &Known{}
	for a := range k.chunks {
		k.chunks[a] = map[Sum]place{}
	}
	return k
}

// Add adds the chunks of a pack whose index has the hash sum. Where several packs have a chunk, the
// first counts.
func (k *Known) Add(sum string, chunks *Sums) {
	number := int32(len(k.packs)) //nolint:gosec // packs are few
	k.packs = append(k.packs, sum)
	for a := range k.chunks {
		for n, s := range chunks.of[a] {
			if _, ok := k.chunks[a][s]; !ok {
				k.chunks[a][s] = place{number, int32(n)}
			}
		}
	}
}

// Sums are the hashes of the chunks of a pack.
type Sums struct{ of [areas][]Sum }
