package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
)

// A tree is a store path for tests: its files by their names. A value that begins with "-> " is a
// symlink.
type tree struct {
	path  string
	refs  []string
	files map[string]string
}

func fakePath(seed int, name string) string {
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	var hash strings.Builder
	for range hashSize {
		hash.WriteByte(alphabet[r.IntN(len(alphabet))])
	}
	return "/nix/store/" + hash.String() + "-" + name
}

func (tr *tree) nar(t testing.TB) []byte {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for name, text := range tr.files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, file)
		} else {
			mode := os.FileMode(0o600)
			if strings.HasPrefix(text, "#!") {
				mode = 0o700
			}
			err = os.WriteFile(file, []byte(text), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := nar.Dump(&b, root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// exported returns the export stream of trees, and their records.
func exported(t testing.TB, trees ...*tree) (stream []byte, records []Record, nars [][]byte) {
	t.Helper()
	var b bytes.Buffer
	for _, tr := range trees {
		data := tr.nar(t)
		err := nar.WriteRecord(&b, tr.path, tr.refs, "", func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, Record{Path: tr.path, References: tr.refs, NarHash: sha256.Sum256(data), NarSize: int64(len(data))})
		nars = append(nars, data)
	}
	if err := nar.WriteEnd(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), records, nars
}

// A shelf has packs of chunks by the hashes of their indexes.
type shelf map[string][]byte

// save makes packs of trees, of about size bytes each, and returns the bytes of all of them.
func (s shelf) save(t testing.TB, known *Known, key *Key, size int64, whole bool, trees ...*tree) (sums []string, bytesOf int64) {
	t.Helper()
	stream, records, _ := exported(t, trees...)
	p := NewPacker(FromExport(bytes.NewReader(stream)), records, func(string) bool { return whole }, known, key)
	defer p.Close()
	for {
		var b bytes.Buffer
		summary, err := p.Next(&b, size)
		if errors.Is(err, io.EOF) {
			return sums, bytesOf
		}
		if err != nil {
			t.Fatal(err)
		}
		if int64(b.Len()) != summary.Size {
			t.Errorf("%d bytes, and the summary says %d", b.Len(), summary.Size)
		}
		s[summary.SHA256] = b.Bytes()
		sums = append(sums, summary.SHA256)
		bytesOf += summary.Size
	}
}

// A memory is the source of a pack.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }
func (m memory) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(m), offset, length)), nil
}

// An openPack is a pack that is read.
type openPack struct {
	ix      *Index
	data    []byte
	lengths *Lengths
	decoded map[int][]byte
}

func (o *openPack) frame(dec *Frames, number int) (plain []byte, err error) {
	if plain, ok := o.decoded[number]; ok {
		return plain, nil
	}
	offset, size := o.ix.FrameRange(number)
	if plain, err = dec.Decode(o.ix, number, o.data[offset:offset+size], nil); err == nil {
		o.decoded[number] = plain
	}
	return plain, err
}

func (s shelf) open(t testing.TB, dec *Frames, key *Key, sum string) (*openPack, error) {
	t.Helper()
	ix, err := ReadIndex(t.Context(), memory(s[sum]), sum, key)
	if err != nil {
		return nil, err
	}
	o := &openPack{ix: ix, data: s[sum], decoded: map[int][]byte{}}
	table, err := o.frame(dec, ix.LengthsFrame())
	if err != nil {
		return nil, err
	}
	o.lengths, err = ix.DecodeLengths(table)
	return o, err
}

// play returns the NAR of a record.
func (s shelf) play(t testing.TB, key *Key, sum string, record int) ([]byte, error) {
	t.Helper()
	dec, err := NewFrames(1)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	own, err := s.open(t, dec, key, sum)
	if err != nil {
		return nil, err
	}
	open := []*openPack{own}
	lengths := []*Lengths{own.lengths}
	for _, lean := range own.ix.Leans() {
		o, err := s.open(t, dec, key, lean)
		if err != nil {
			return nil, err
		}
		open, lengths = append(open, o), append(lengths, o.lengths)
	}
	needs, err := own.ix.Needs(record, lengths, 1<<20)
	if err != nil {
		return nil, err
	}
	type chunkAt struct {
		Need
		start uint32
	}
	uses := map[chunkAt]int{}
	err = own.ix.EachChunk(record, lengths, func(in Need, start, _ uint32) bool {
		uses[chunkAt{in, start}]++
		return true
	})
	if err != nil {
		return nil, err
	}
	last := Need{Source: -1}
	p := own.ix.NewPlayer(record, lengths, func(_, source, number int) ([]byte, error) {
		if last == (Need{source, number}) && open[source].ix.chunked[number].area == contents {
			t.Errorf("frame %d of source %d is read twice in a row", number, source)
		}
		last = Need{source, number}
		if !slices.Contains(needs, Need{source, number}) {
			t.Errorf("frame %d of source %d is read, and not needed", number, source)
		}
		return open[source].frame(dec, number)
	}, func(source, number int, start uint32) []byte {
		at := chunkAt{Need{source, number}, start}
		if uses[at]--; uses[at] < 0 {
			t.Errorf("the chunk at byte %d of frame %d of source %d is read more often than expected", start, number, source)
		}
		return nil
	})
	data, err := io.ReadAll(p)
	for at, n := range uses {
		if n > 0 && err == nil {
			t.Errorf("%v is not read", at)
		}
	}
	return data, err
}

// known loads the chunks of packs.
func (s shelf) known(t testing.TB, key *Key, sums ...string) *Known {
	t.Helper()
	dec, err := NewFrames(1)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	k := NewKnown()
	for _, sum := range sums {
		o, err := s.open(t, dec, key, sum)
		if err != nil {
			t.Fatal(err)
		}
		table, err := o.frame(dec, o.ix.SumsFrame())
		if err != nil {
			t.Fatal(err)
		}
		chunks, err := o.ix.DecodeSums(table)
		if err != nil {
			t.Fatal(err)
		}
		k.Add(sum, chunks)
	}
	return k
}

// randomTree returns a tree of files of many sizes, in which references are everywhere.
func randomTree(r *rand.Rand, seed int, others []string) *tree {
	tr := &tree{path: fakePath(seed, fmt.Sprint("tree-", seed%100)), files: map[string]string{}}
	for _, p := range others {
		if r.IntN(3) == 0 {
			tr.refs = append(tr.refs, p)
		}
	}
	all := append(slices.Clone(tr.refs), tr.path)
	for n := range 1 + r.IntN(20) {
		size := 1 << r.IntN(16)
		if n == 1 {
			size = 1 << 20 // of several chunks
		}
		if n > 0 && r.IntN(8) == 0 {
			size = 0
		}
		data := make([]byte, size)
		for i := range data {
			if data[i] = byte('a' + r.IntN(3)); n%3 == 0 {
				data[i] = byte(r.Uint32())
			}
		}
		for range r.IntN(4) {
			ref := all[r.IntN(len(all))][len("/nix/store/"):]
			if at := r.IntN(size + 1); at+len(ref) < size {
				copy(data[at:], ref)
			}
		}
		name := fmt.Sprintf("d%d/f%d", r.IntN(3), n)
		switch r.IntN(5) {
		case 0:
			tr.files[name] = "-> " + all[r.IntN(len(all))] + "/bin"
		case 1:
			tr.files["with-"+all[r.IntN(len(all))][len("/nix/store/"):]+"/x"] = "#!" + string(data)
		default:
			tr.files[name] = string(data)
		}
	}
	return tr
}

// bump returns the tree with another hash for each path, and some files changed.
func (tr *tree) bump(r *rand.Rand, renamed map[string]string, share float64) *tree {
	var pairs []string
	for _, from := range slices.Sorted(maps.Keys(renamed)) {
		pairs = append(pairs, from[len("/nix/store/"):len("/nix/store/")+hashSize], renamed[from][len("/nix/store/"):len("/nix/store/")+hashSize])
	}
	replace := strings.NewReplacer(pairs...)
	next := &tree{path: renamed[tr.path], files: map[string]string{}}
	for _, ref := range tr.refs {
		next.refs = append(next.refs, renamed[ref])
	}
	for _, name := range slices.Sorted(maps.Keys(tr.files)) {
		text := replace.Replace(tr.files[name])
		if !strings.HasPrefix(text, "-> ") && r.Float64() < share {
			text = "edited" + text
		}
		next.files[replace.Replace(name)] = text
	}
	return next
}

// Whatever is in a path, it comes back, from one pack or from those of several generations, sealed or
// not.
func TestChunks(t *testing.T) {
	key, err := NewKey("a key that is long enough for anyone")
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*Key{"clear": nil, "sealed": key} {
		t.Run(name, func(t *testing.T) {
			r := testbench.Random(t)
			var trees []*tree
			var paths []string
			for n := range 5 {
				trees = append(trees, randomTree(r, n, paths))
				paths = append(paths, trees[n].path)
			}
			s := shelf{}
			var all []string
			var first int64
			for generation := range 4 {
				known := s.known(t, key, all...)
				sums, size := s.save(t, known, key, 1<<20, generation == 2, trees...)
				all = append(all, sums...)
				switch {
				case generation == 0:
					first = size
				case generation != 2 && size > first/2:
					t.Errorf("generation %d has %d bytes, the first one %d", generation, size, first)
				}
				_, records, nars := exported(t, trees...)
				n := 0
				for _, sum := range sums {
					ix, err := ReadIndex(t.Context(), memory(s[sum]), sum, key)
					if err != nil {
						t.Fatal(err)
					}
					for record := range ix.Records {
						if ix.Records[record].Path != records[n].Path {
							t.Fatalf("%s instead of %s", ix.Records[record].Path, records[n].Path)
						}
						got, err := s.play(t, key, sum, record)
						if err != nil || !bytes.Equal(got, nars[n]) {
							t.Fatalf("generation %d, %s: %d bytes of %d, %v", generation, records[n].Path, len(got), len(nars[n]), err)
						}
						n++
					}
				}
				if n != len(records) {
					t.Errorf("%d of %d paths", n, len(records))
				}
				renamed := map[string]string{}
				for i, tr := range trees {
					_, name := splitPath(tr.path)
					renamed[tr.path] = fakePath(100*(generation+1)+i, name)
				}
				for i, tr := range trees {
					trees[i] = tr.bump(r, renamed, 0.05)
				}
			}
		})
	}
}
