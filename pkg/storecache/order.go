package storecache

import (
	"cmp"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/pack"
)

// segmentSize is about how many bytes of a pack are read at a time: what the Actions cache
// gives best in one answer. A larger frame is a segment of its own.
const segmentSize = 16 << 20

// ramp is how many segments are smaller than that at the start, each more than the one
// before: else all that travel together would arrive at the same time, the first of them
// as late as the last.
const ramp = 8

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
		limit := int64(segmentSize) * int64(min(len(all), ramp)) / ramp
		if current != nil && current.takes(at, number, offset, end, limit) {
			current.records = append(current.records, at.record)
			current.size = end - current.offset
			continue
		}
		all = append(all, segment{at.pack, []int{at.record}, offset, size})
		current = &all[len(all)-1]
	}
	return all
}

// takes says whether a record can be read behind those of the segment, which shall not
// have more than limit bytes.
func (s *segment) takes(at place, frame int, offset, end, limit int64) bool {
	last := s.records[len(s.records)-1]
	if at.pack != s.pack || at.record < last {
		return false
	}
	if number, _, _ := s.pack.Index.Frame(last); number == frame {
		return true
	}
	return offset-(s.offset+s.size) <= pack.Gap && end-s.offset <= limit
}

// order goes through places in reference order, and through each pack from its
// beginning to its end as far as that goes.
type order struct {
	wanted  map[string]place
	missing map[string]int      // how many references of a path are still to come
	users   map[string][]string // who refers to a path
	packs   []*queue            // those first that others refer to
	current *queue
}

// A queue has what is wanted of a pack, and still to come, in the order in which it lies
// there.
type queue struct{ places []place }

func (at place) info() *pack.Record   { return &at.pack.Index.Records[at.record] }
func (at place) references() []string { return at.info().References }

func newOrder(wanted map[string]place) *order {
	o := &order{wanted: wanted, missing: make(map[string]int, len(wanted)), users: map[string][]string{}}
	queues := map[*Pack]*queue{}
	needs := map[*Pack]map[*Pack]bool{}
	var packs []*Pack
	for path, at := range wanted {
		if queues[at.pack] == nil {
			queues[at.pack], needs[at.pack] = &queue{}, map[*Pack]bool{}
			packs = append(packs, at.pack)
		}
		queues[at.pack].places = append(queues[at.pack].places, at)
		for _, ref := range at.references() {
			if to, ok := wanted[ref]; ok && ref != path {
				o.missing[path]++
				o.users[ref] = append(o.users[ref], path)
				needs[at.pack][to.pack] = true
			}
		}
	}
	byKey := func(a, b *Pack) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(packs, byKey) // the same every time
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
		slices.SortFunc(q.places, func(a, b place) int { return cmp.Compare(a.record, b.record) })
		o.packs = append(o.packs, q)
	}
	for _, p := range packs {
		visit(p)
	}
	return o
}

// next gives the next place. References that go in circles, which no store has, are
// left out with what needs them.
func (o *order) next() (place, bool) {
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
	// Each pack waits for another one: something has to come out of turn.
	for _, q := range o.packs {
		for n := range q.places {
			if o.ready(q, n) {
				return o.take(q, n), true
			}
		}
	}
	return place{}, false
}

// ready says whether all that a place of a queue refers to has come.
func (o *order) ready(q *queue, n int) bool {
	return n < len(q.places) && o.missing[q.places[n].info().Path] == 0
}

func (o *order) take(q *queue, n int) place {
	at := q.places[n]
	if n == 0 {
		q.places = q.places[1:]
	} else {
		q.places = slices.Delete(q.places, n, n+1)
	}
	for _, user := range o.users[at.info().Path] {
		o.missing[user]--
	}
	return at
}
