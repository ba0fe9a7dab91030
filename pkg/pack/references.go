package pack

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// hashSize is the length of the hash of a store path as text.
const hashSize = 32

// A hash of a store path is in the alphabet of Nix's base 32.
var isBase32 = func() (is [256]bool) {
	for _, c := range "0123456789abcdfghijklmnpqrsvwxyz" {
		is[c] = true
	}
	return is
}()

// references returns the hashes that may occur in the contents of a path: its own and those of its
// references. They are in the order of the names of these paths, which a change of all
// hashes leaves as it is.
func references(path string, refs []string) []string {
	var hashes []string
	all := append(slices.Clone(refs), path)
	slices.SortFunc(all, func(a, b string) int {
		hashA, nameA := splitPath(a)
		hashB, nameB := splitPath(b)
		return cmp.Or(strings.Compare(nameA, nameB), strings.Compare(hashA, hashB))
	})
	for _, p := range slices.Compact(all) {
		hash, _ := splitPath(p)
		hashes = append(hashes, hash)
	}
	return hashes
}

// splitPath returns the hash and the name of a valid store path.
func splitPath(path string) (hash, name string) {
	base := path[strings.LastIndexByte(path, '/')+1:]
	return base[:hashSize], base[hashSize+1:]
}

// A scanner finds hashes as Nix does (src/libstore/path-references.cc and
// src/libutil/references.cc).
type scanner struct {
	number map[[hashSize]byte]int
	begins [1 << 16]bool // with these two bytes
}

func newScanner(hashes []string) *scanner {
	s := &scanner{number: make(map[[hashSize]byte]int, len(hashes))}
	for n, hash := range hashes {
		s.number[[hashSize]byte([]byte(hash))] = n
		s.begins[binary.LittleEndian.Uint16([]byte(hash))] = true
	}
	return s
}

// scan calls found with the position of each hash in p, and its number.
func (s *scanner) scan(p []byte, found func(at, number int)) {
	good := 0 // so many bytes from at on are known to be of the alphabet
	for at := 0; at+hashSize <= len(p); {
		last := hashSize - 1
		for last >= good && isBase32[p[at+last]] {
			last--
		}
		if last >= good {
			at += last + 1
			good = 0
			continue
		}
		if s.begins[binary.LittleEndian.Uint16(p[at:])] {
			if n, ok := s.number[[hashSize]byte(p[at:at+hashSize])]; ok {
				found(at, n)
				at += hashSize
				good = 0
				continue
			}
		}
		at++
		good = hashSize - 1
	}
}

// A position is where a hash was replaced by zeros in a file.
type position struct {
	at     int64 // in the file
	number int   // of the hash
}

var zeroHash [hashSize]byte

// A patcher puts hashes back into consecutive pieces of a file.
type patcher struct {
	hashes []string
	todo   []position // in ascending order
	at     int64      // in the file
}

// patch puts the hashes into the next piece of the file.
func (p *patcher) patch(piece []byte) {
	end := p.at + int64(len(piece))
	for len(p.todo) > 0 && p.todo[0].at < end {
		next := p.todo[0]
		hash := p.hashes[next.number]
		if start := next.at - p.at; start >= 0 {
			copy(piece[start:], hash)
		} else { // it began in an earlier piece
			copy(piece, hash[-start:])
		}
		if next.at+hashSize > end {
			break
		}
		p.todo = p.todo[1:]
	}
	p.at = end
}

// done returns an error unless all hashes are back.
func (p *patcher) done() error {
	if len(p.todo) > 0 {
		return fmt.Errorf("%w: a reference at byte %d of a file of %d", ErrCorrupt, p.todo[0].at, p.at)
	}
	return nil
}

// appendPositions appends the positions in a file: their number, then for each the distance from the
// end of the one before, and the number of the hash.
func appendPositions(b []byte, all []position) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	var end int64
	for _, p := range all {
		b = binary.AppendUvarint(b, uint64(p.at-end)) //nolint:gosec // ascending
		b = binary.AppendUvarint(b, uint64(p.number)) //nolint:gosec // not negative
		end = p.at + hashSize
	}
	return b
}

// maxPositions is the most references in a file, all of which are in memory. A path that has a file with more is
// stored whole.
var maxPositions = 1 << 22

// readPositions reads the result of appendPositions, which stem from a pack, one after the other.
func readPositions(r varints, hashes int) ([]position, error) {
	n, err := r.number()
	if err != nil {
		return nil, err
	}
	if n > uint64(maxPositions) { //nolint:gosec // not negative
		return nil, fmt.Errorf("%w: a file with %d references", ErrCorrupt, n)
	}
	all := make([]position, 0, min(n, 1<<10))
	var end int64
	for range n {
		distance, err := r.number()
		if err != nil {
			return nil, err
		}
		number, err := r.number()
		if err != nil {
			return nil, err
		}
		if distance > 1<<60 || end > 1<<60 || number >= uint64(hashes) { //nolint:gosec // not negative
			return nil, fmt.Errorf("%w: there is no reference %d at distance %d", ErrCorrupt, number, distance)
		}
		at := end + int64(distance)
		all = append(all, position{at, int(number)}) //nolint:gosec // below hashes
		end = at + hashSize
	}
	return all, nil
}

// varints reads numbers from a stream.
type varints struct {
	r interface {
		ReadByte() (byte, error)
	}
}

func (v varints) number() (uint64, error) {
	n, err := binary.ReadUvarint(v.r)
	if err != nil {
		if errors.Is(err, ErrRead) || errors.Is(err, ErrCorrupt) {
			return 0, err
		}
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, unexpected(err))
	}
	return n, nil
}
