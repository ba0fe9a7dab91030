package storecache

import (
	"cmp"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/pack"
)

// segmentSize is about how many bytes of a pack are read at a time: the response size at which
// the Actions cache is fastest. A larger frame is a segment of its own.
const segmentSize = 16 << 20

// ramp is how many segments at the start are smaller than that, each larger than the one
// before. Otherwise segments that are requested together would all arrive at the same time, the
// first as late as the last.
const ramp = 8

// A segment is a range of bytes of a pack with records in ascending order, which are read one
// after the other.
type segment struct {
	pack         *Pack
	records      []int
	offset, size int64

	// Of a path of a pack of chunks:
	*bases // as in pack.NewPlayer
	frames []frameID
	err    error // why these are not known
}

// chunked reports whether the segment is one path of a pack of chunks.
func (s *segment) chunked() bool { return s.pack.Index.Chunked() }

// segments cuts the wanted paths into segments. References lead only to the same or an earlier
// segment, so that workers that take segments in this order never wait for one that is not
// taken. Frames of packs that refer to each other in both directions are read more than once,
// which is rare, because packs are written in reference order.
func segments(wanted map[string]location) []segment {
	o := newOrder(wanted)
	var all []segment
	var current *segment
	for at, ok := o.next(); ok; at, ok = o.next() {
		if at.pack.Index.Chunked() {
			all = append(all, segment{pack: at.pack, records: []int{at.record}})
			current = nil
			continue
		}
		number, offset, size := at.pack.Index.Frame(at.record)
		end := offset + size
		limit := int64(segmentSize) * int64(min(len(all), ramp)) / ramp
		if current != nil && current.takes(at, number, offset, end, limit) {
			current.records = append(current.records, at.record)
			current.size = end - current.offset
			continue
		}
		all = append(all, segment{pack: at.pack, records: []int{at.record}, offset: offset, size: size})
		current = &all[len(all)-1]
	}
	return all
}

// largestFirst puts the largest segments first, so that the last ones end at about the same time. Those that have little
// of the whole stay in their order, in which they share frames.
func largestFirst(all []segment) {
	var whole int64
	for i := range all {
		whole += all[i].bytes()
	}
	large := func(s *segment) int64 {
		if n := s.bytes(); n >= whole/32 {
			return n
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b segment) int { return cmp.Compare(large(&b), large(&a)) })
}

// bytes returns about how much work a segment is.
func (s *segment) bytes() int64 {
	if s.chunked() {
		return s.pack.Index.Records[s.records[0]].NarSize
	}
	return s.size
}

// takes reports whether a record can be added to the segment, which should not have more than
// limit bytes.
func (s *segment) takes(at location, frame int, offset, end, limit int64) bool {
	last := s.records[len(s.records)-1]
	if at.pack != s.pack || at.record < last {
		return false
	}
	if number, _, _ := s.pack.Index.Frame(last); number == frame {
		return true
	}
	return offset-(s.offset+s.size) <= pack.Gap && end-s.offset <= limit
}

// order iterates over locations in reference order, and as far as possible over each pack from
// its beginning to its end.
type order struct {
	wanted    map[string]location
	missing   map[string]int      // how many references of a path are still to come
	referrers map[string][]string // paths that refer to a path
	packs     []*queue            // packs that others refer to come first
	current   *queue
}

// A queue has the remaining wanted locations of a pack, in their order in the pack.
type queue struct{ locations []location }

func (at location) info() *pack.Record   { return &at.pack.Index.Records[at.record] }
func (at location) references() []string { return at.info().References }

func newOrder(wanted map[string]location) *order {
	o := &order{wanted: wanted, missing: make(map[string]int, len(wanted)), referrers: map[string][]string{}}
	queues := map[*Pack]*queue{}
	needs := map[*Pack]map[*Pack]bool{}
	var packs []*Pack
	for path, at := range wanted {
		if queues[at.pack] == nil {
			queues[at.pack], needs[at.pack] = &queue{}, map[*Pack]bool{}
			packs = append(packs, at.pack)
		}
		queues[at.pack].locations = append(queues[at.pack].locations, at)
		for _, ref := range at.references() {
			if to, ok := wanted[ref]; ok && ref != path {
				o.missing[path]++
				o.referrers[ref] = append(o.referrers[ref], path)
				needs[at.pack][to.pack] = true
			}
		}
	}
	byKey := func(a, b *Pack) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(packs, byKey) // so that the order is always the same
	visited := map[*Pack]bool{}
	var visit func(p *Pack)
	visit = func(p *Pack) {
		if visited[p] {
			return
		}
		visited[p] = true
		for _, other := range slices.SortedFunc(maps.Keys(needs[p]), byKey) {
			visit(other)
		}
		q := queues[p]
		slices.SortStableFunc(q.locations, func(a, b location) int { return cmp.Compare(a.record, b.record) })
		o.packs = append(o.packs, q)
	}
	for _, p := range packs {
		visit(p)
	}
	return o
}

// next returns the next location. Paths with circular references, which no store has, are left
// out, and so are their referrers.
func (o *order) next() (location, bool) {
	if o.current == nil || !o.ready(o.current, 0) {
		o.current = nil
		for _, q := range o.packs {
			if o.ready(q, 0) {
				o.current = q
				break
			}
		}
	}
	if o.current != nil {
		return o.take(o.current, 0), true
	}
	// Each pack waits for another one, so a location has to be taken out of order.
	for _, q := range o.packs {
		for n := range q.locations {
			if o.ready(q, n) {
				return o.take(q, n), true
			}
		}
	}
	return location{}, false
}

// ready reports whether all references of a location in a queue were taken.
func (o *order) ready(q *queue, n int) bool {
	return n < len(q.locations) && o.missing[q.locations[n].info().Path] == 0
}

func (o *order) take(q *queue, n int) location {
	at := q.locations[n]
	if n == 0 {
		q.locations = q.locations[1:]
	} else {
		q.locations = slices.Delete(q.locations, n, n+1)
	}
	for _, referrer := range o.referrers[at.info().Path] {
		o.missing[referrer]--
	}
	return at
}
