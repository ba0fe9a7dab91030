package store

import (
	"container/heap"

	"github.com/org/nix-matrix/pkg/pack"
)

// segmentSize is about how many bytes of a pack are read at a time, so that those who
// read them side by side have the same work. A larger frame is a segment of its own.
const segmentSize = 32 << 20

// A segment is a part of a pack that is read from its beginning to its end: records, in
// ascending order, in one range of bytes.
type segment struct {
	pack         *Pack
	records      []int
	offset, size int64
}

// segments cuts what is wanted into segments, of which each refers only to what is in
// itself and those before it. Whoever takes them in this order never waits for what
// nobody has taken yet. Frames of packs that refer to each other to and fro are read
// more than once, which is rare: packs are written in reference order.
func segments(wanted map[string]place) []segment {
	o := newOrder(wanted)
	var all []segment
	var current *segment
	for at, ok := o.next(); ok; at, ok = o.next() {
		number, offset, size := at.pack.Index.Frame(at.record)
		end := offset + size
		if current != nil && current.takes(at, number, offset, end) {
			current.records = append(current.records, at.record)
			current.size = end - current.offset
			continue
		}
		all = append(all, segment{at.pack, []int{at.record}, offset, size})
		current = &all[len(all)-1]
	}
	return all
}

// takes says whether a record can be read behind those of the segment.
func (s *segment) takes(at place, frame int, offset, end int64) bool {
	last := s.records[len(s.records)-1]
	if at.pack != s.pack || at.record < last {
		return false
	}
	if number, _, _ := s.pack.Index.Frame(last); number == frame {
		return true
	}
	return offset-(s.offset+s.size) <= pack.Gap && end-s.offset <= segmentSize
}

// order goes through places in reference order, and through each pack from its
// beginning to its end as far as that goes.
type order struct {
	wanted  map[string]place
	waiting map[string]int      // how many references are still to come
	by      map[string][]string // who waits for a path
	ready   map[*Pack]*records
	packs   []*Pack // those with anything wanted
	current *Pack
}

// records are numbers of a pack's, the smallest first.
type records []int

func (r records) Len() int           { return len(r) }
func (r records) Less(i, j int) bool { return r[i] < r[j] }
func (r records) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *records) Push(n any)        { *r = append(*r, n.(int)) }
func (r *records) Pop() any {
	last := len(*r) - 1
	n := (*r)[last]
	*r = (*r)[:last]
	return n
}

func newOrder(wanted map[string]place) *order {
	o := &order{wanted: wanted, waiting: make(map[string]int, len(wanted)), by: map[string][]string{}, ready: map[*Pack]*records{}}
	seen := map[*Pack]bool{}
	for path, at := range wanted {
		if o.ready[at.pack] == nil {
			o.ready[at.pack] = &records{}
		}
		for _, ref := range at.references() {
			if _, ok := wanted[ref]; ok && ref != path {
				o.waiting[path]++
				o.by[ref] = append(o.by[ref], path)
			}
		}
		seen[at.pack] = true
	}
	for path, at := range wanted {
		if o.waiting[path] == 0 {
			heap.Push(o.ready[at.pack], at.record)
		}
	}
	for p := range seen {
		o.packs = append(o.packs, p)
	}
	return o
}

func (at place) info() *pack.Record   { return &at.pack.Index.Records[at.record] }
func (at place) references() []string { return at.info().References }

// next gives the next place. References that go in circles, which no store has, are
// left out with what needs them.
func (o *order) next() (place, bool) {
	if o.current == nil || o.ready[o.current].Len() == 0 {
		o.current = nil
		for _, p := range o.packs {
			if o.ready[p].Len() > 0 {
				o.current = p
				break
			}
		}
		if o.current == nil {
			return place{}, false
		}
	}
	at := place{o.current, heap.Pop(o.ready[o.current]).(int)}
	path := at.info().Path
	for _, waits := range o.by[path] {
		if o.waiting[waits]--; o.waiting[waits] == 0 {
			to := o.wanted[waits]
			heap.Push(o.ready[to.pack], to.record)
		}
	}
	return at, true
}
