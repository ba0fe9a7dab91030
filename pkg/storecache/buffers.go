package storecache

import "slices"

// Buffers are memory that is used again. The zero value has none.
type buffers struct{ all [][]byte }

const (
	// maxBuffers is the most buffers that wait for their next use.
	maxBuffers = 16
	// bufferSize divides the sizes of buffers for what is in packs, so that they fit again.
	bufferSize = 512 << 10
)

// take returns an empty buffer of at least size bytes, or nil.
func (b *buffers) take(size int64) []byte {
	n := slices.IndexFunc(b.all, func(one []byte) bool { return int64(cap(one)) >= size })
	if n < 0 {
		return nil
	}
	one := b.all[n]
	b.all = slices.Delete(b.all, n, n+1)
	return one[:0]
}

// put takes a buffer that nobody uses any more.
func (b *buffers) put(one []byte) {
	if b.all = append(b.all, one); len(b.all) > maxBuffers {
		b.all = slices.Delete(b.all, 0, 1)
	}
}
