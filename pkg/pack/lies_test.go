package pack

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/org/nix-matrix/pkg/pack/packtest"
)

// forLies returns a pack for [packtest.Lies], and the NARs of its paths.
func forLies(t *testing.T) (*packtest.Pack, [][]byte) {
	t.Helper()
	bystander := &tree{path: fakePath(1, "bystander"), files: map[string]string{"a": string(noise(20 << 10))}}
	victim := &tree{path: fakePath(2, "victim"), refs: []string{bystander.path}, files: map[string]string{
		"a":    string(noise(700 << 10)[100:]),
		"link": "-> " + bystander.path,
		"y":    "it needs " + bystander.path + " and " + fakePath(2, "victim") + ".",
		"z":    "and " + bystander.path,
	}}
	s := shelf{}
	sums, _ := s.save(t, NewKnown(), nil, 1<<40, false, bystander, victim)
	p, err := packtest.Parse(s[sums[0]])
	must(t, err)
	return p, [][]byte{bystander.nar(t), victim.nar(t)}
}

// A pack that was only taken apart and put together is as good as before.
func TestNoLie(t *testing.T) {
	p, nars := forLies(t)
	for _, stream := range []int{packtest.Files, packtest.Skeleton, packtest.NodePositions, packtest.FilePositions} {
		data := p.Stream(packtest.Victim, stream)
		if len(data) == 0 {
			t.Errorf("stream %d is empty", stream)
		}
		if stream != packtest.Files { // of which the skeleton counts the chunks
			p.SetStream(packtest.Victim, stream, data)
		}
	}
	data, sum, err := p.Bytes()
	must(t, err)
	for n, want := range nars {
		if got, err := (shelf{sum: data}).play(t, nil, sum, n); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: %d bytes, %v", n, len(got), err)
		}
	}
}

// A lie of a pack costs only the path that the lie is about, unless the tables of the pack are wrong.
func TestLies(t *testing.T) {
	for _, lie := range packtest.Lies() {
		t.Run(lie.Name, func(t *testing.T) {
			p, nars := forLies(t)
			lie.Tell(p)
			data, sum, err := p.Bytes()
			must(t, err)
			s := shelf{sum: data}
			if _, err := s.play(t, nil, sum, packtest.Victim); !errors.Is(err, ErrCorrupt) {
				t.Errorf("the path of the lie: %v", err)
			}
			got, err := s.play(t, nil, sum, packtest.Bystander)
			if lie.All && !errors.Is(err, ErrCorrupt) || !lie.All && (err != nil || !bytes.Equal(got, nars[packtest.Bystander])) {
				t.Errorf("the other path: %d bytes, %v", len(got), err)
			}
		})
	}
}

// A frame in the place of another one of the same size, of the same pack or of another one, is noticed: in a sealed pack
// when it is decoded, in clear by the NAR.
func TestFrameReplaced(t *testing.T) {
	key, err := NewKey("a key that is long enough for anyone")
	must(t, err)
	full := func(seed int) *tree {
		tr := &tree{path: fakePath(seed, "full"), files: map[string]string{}}
		data := noise(contentsFrame)
		for n := range contentsFrame / minChunk {
			data := slices.Clone(data[n*minChunk:][:minChunk])
			data[0], data[1] = byte(seed), 'x'
			tr.files[fmt.Sprintf("f%03d", n)] = string(data)
		}
		return tr
	}
	small := &tree{path: fakePath(9, "small"), files: map[string]string{"a": "small"}}
	for name, key := range map[string]*Key{"clear": nil, "sealed": key} {
		s := shelf{}
		one, _ := s.save(t, NewKnown(), key, 1<<40, false, full(1), full(2), small)
		two, _ := s.save(t, NewKnown(), key, 1<<40, false, full(3), small)
		for _, test := range []struct {
			name string
			from string
			// number is that of the frame in the place of the first.
			number int
		}{{"same pack", one[0], 1}, {"another pack", two[0], 0}} {
			t.Run(name+", "+test.name, func(t *testing.T) {
				dec, err := NewFrames(1)
				must(t, err)
				defer dec.Close()
				other, err := s.open(t, dec, key, test.from)
				must(t, err)
				own, err := s.open(t, dec, key, one[0])
				must(t, err)
				from, size := other.ix.FrameRange(test.number)
				to, room := own.ix.FrameRange(0)
				if size != room || own.ix.FrameLength(0) != other.ix.FrameLength(test.number) {
					t.Fatalf("frames of %d and %d bytes", size, room)
				}
				data := slices.Clone(s[one[0]])
				copy(data[to:], s[test.from][from:from+size])
				bad := shelf{one[0]: data}
				_, err = dec.Decode(own.ix, 0, data[to:to+size], nil)
				if key != nil && !errors.Is(err, ErrSeal) || key == nil && err != nil {
					t.Errorf("decoded: %v", err)
				}
				for record, lost := range []bool{true, false, false} {
					want := own.ix.Records[record].Path
					if got, err := bad.play(t, key, one[0], record); lost && !errors.Is(err, ErrCorrupt) || !lost && (err != nil || len(got) == 0) {
						t.Errorf("%s: %d bytes, %v", want, len(got), err)
					}
				}
			})
		}
	}
}
