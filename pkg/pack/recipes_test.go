package pack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
)

// scanSlowly finds hashes like Nix: it tries every position.
func scanSlowly(p []byte, hashes []string) (all []position) {
	for at := 0; at+hashSize <= len(p); {
		n := slices.Index(hashes, string(p[at:at+hashSize]))
		if n < 0 {
			at++
			continue
		}
		all = append(all, position{int64(at), n})
		at += hashSize
	}
	return all
}

func TestScan(t *testing.T) {
	r := testbench.Random(t)
	var paths []string
	for n := range 5 {
		paths = append(paths, fakePath(n, fmt.Sprint("name", n)))
	}
	hashes := references(paths[0], paths[1:])
	for range 300 {
		data := make([]byte, r.IntN(2000))
		for i := range data {
			switch r.IntN(3) {
			case 0: // much of the alphabet, as in text
				data[i] = hashes[0][r.IntN(hashSize)]
			case 1:
				data[i] = 'e'
			default:
				data[i] = byte(r.Uint32())
			}
		}
		if r.IntN(2) == 0 {
			for i := range data {
				data[i] = hashes[0][r.IntN(hashSize)]
			}
		}
		for range r.IntN(6) {
			hash := hashes[r.IntN(len(hashes))]
			if at := r.IntN(len(data) + 1); at+hashSize <= len(data) {
				copy(data[at:], hash) // perhaps over another one
			}
		}
		var got []position
		newScanner(hashes).scan(data, func(at, n int) { got = append(got, position{int64(at), n}) })
		if want := scanSlowly(data, hashes); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v in %q", got, want, data)
		}
	}
}

// The numbers of hashes do not change when all hashes do.
func TestReferencesKeepTheirOrder(t *testing.T) {
	of := func(seed int) string {
		var names []string
		path := fakePath(seed, "self")
		refs := []string{fakePath(seed+1, "zlib-1"), fakePath(seed+2, "bash"), fakePath(seed+3, "glibc"), path}
		for _, hash := range references(path, refs) {
			for _, p := range refs {
				if h, name := splitPath(p); h == hash {
					names = append(names, name)
				}
			}
		}
		return strings.Join(names, " ")
	}
	for seed := range 20 {
		if got := of(10 * seed); got != "bash glibc self zlib-1" {
			t.Fatal(got)
		}
	}
}

// Wherever references lie, also over the ends of chunks and of what is read at a time, they are
// replaced: with other hashes, no content is new.
func TestReferencesEverywhere(t *testing.T) {
	r := testbench.Random(t)
	one := &tree{path: fakePath(1, "big"), refs: []string{fakePath(2, "dep"), fakePath(3, "other")}, files: map[string]string{}}
	data := make([]byte, 9<<20)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	all := append(slices.Clone(one.refs), one.path)
	for at := 0; at+hashSize < len(data); at += hashSize + r.IntN(1<<r.IntN(14)) {
		hash, _ := splitPath(all[r.IntN(len(all))])
		copy(data[at:], hash)
	}
	one.files["data"] = string(data)
	dense := data[:3<<20]
	for at := 0; at+hashSize < len(dense); at += hashSize + r.IntN(4) { // so that one lies over each end
		hash, _ := splitPath(all[r.IntN(len(all))])
		copy(dense[at:], hash)
	}
	one.files["dense"] = string(dense)
	one.files["small"] = string(data[:100])
	renamed := map[string]string{}
	for i, p := range all {
		_, name := splitPath(p)
		renamed[p] = fakePath(100+i, name)
	}
	two := one.bump(r, renamed, 0)
	s := shelf{}
	first, size := s.save(t, NewKnown(), nil, 1<<40, false, one)
	second, more := s.save(t, s.known(t, nil, first...), nil, 1<<40, false, two)
	if size < 8<<20 || more > 2000 {
		t.Errorf("%d bytes, then %d", size, more)
	}
	for i, tr := range []*tree{one, two} {
		got, err := s.play(t, nil, [][]string{first, second}[i][0], 0)
		if err != nil || !bytes.Equal(got, tr.nar(t)) {
			t.Errorf("%d: %d bytes, %v", i, len(got), err)
		}
	}
}

// The same records make the same pack, so that two jobs store it once.
func TestPackIsDeterministic(t *testing.T) {
	r := testbench.Random(t)
	tr := randomTree(r, 1, []string{fakePath(7, "dep")})
	one, two := shelf{}, shelf{}
	first, _ := one.save(t, NewKnown(), nil, 1<<40, false, tr)
	second, _ := two.save(t, NewKnown(), nil, 1<<40, false, tr)
	if !slices.Equal(first, second) || !bytes.Equal(one[first[0]], two[second[0]]) {
		t.Errorf("%v, %v", first, second)
	}
}

// A path that does not have its registered hash is named, whether it went through a recipe or not.
func TestRecipeError(t *testing.T) {
	r := testbench.Random(t)
	stream, records, _ := exported(t, randomTree(r, 1, nil), randomTree(r, 2, nil))
	for _, whole := range []bool{false, true} {
		for name, change := range map[string]func(*Record){
			"hash": func(rec *Record) { rec.NarHash[3] ^= 1 },
			"size": func(rec *Record) { rec.NarSize++ },
		} {
			wrong := slices.Clone(records)
			change(&wrong[1])
			p := NewPacker(FromExport(bytes.NewReader(stream)), wrong, func(string) bool { return whole }, NewKnown(), nil)
			_, err := p.Next(io.Discard, 1<<40)
			p.Close()
			var recipe *RecipeError
			if !errors.As(err, &recipe) || recipe.Path != records[1].Path {
				t.Errorf("%s, whole %v: %v", name, whole, err)
			}
		}
	}
}

// A path whose skeleton is too large is named, and can be stored whole.
func TestTooLargeForARecipe(t *testing.T) {
	before := maxSkeleton
	maxSkeleton = 50
	defer func() { maxSkeleton = before }()
	tr := randomTree(testbench.Random(t), 1, []string{fakePath(7, "dep")})
	tr.files["d0/"+strings.Repeat("x", maxSkeleton)] = "a file whose name alone is too large"
	stream, records, nars := exported(t, tr)
	p := NewPacker(FromExport(bytes.NewReader(stream)), records, func(string) bool { return false }, NewKnown(), nil)
	defer p.Close()
	_, err := p.Next(io.Discard, 1<<40)
	var recipe *RecipeError
	if !errors.As(err, &recipe) || recipe.Path != tr.path {
		t.Fatal(err)
	}
	s := shelf{}
	sums, _ := s.save(t, NewKnown(), nil, 1<<40, true, tr)
	if got, err := s.play(t, nil, sums[0], 0); err != nil || !bytes.Equal(got, nars[0]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A path with more references in a file, or in its nodes, than a reader accepts is named, and can be stored whole.
func TestTooManyReferences(t *testing.T) {
	before := maxPositions
	maxPositions = 100
	defer func() { maxPositions = before }()
	dep := fakePath(7, "dep")
	many := func(n int) string { return strings.Repeat(dep+" ", n) }
	nodes := map[string]string{}
	for n := range maxPositions + 1 {
		nodes[fmt.Sprint(n)] = "-> " + dep
	}
	for name, files := range map[string]map[string]string{
		"most":        {"a": many(maxPositions), "b": many(maxPositions), "c": "-> " + dep},
		"one more":    {"a": many(maxPositions + 1), "b": "b"},
		"in the last": {"a": "a", "b": many(maxPositions + 1)},
		"large":       {"a": many(3 * batchSize / len(dep))},
		"nodes":       nodes,
	} {
		tr := &tree{path: fakePath(1, "path"), refs: []string{dep}, files: files}
		stream, records, nars := exported(t, tr)
		p := NewPacker(FromExport(bytes.NewReader(stream)), records, func(string) bool { return false }, NewKnown(), nil)
		_, err := p.Next(io.Discard, 1<<40)
		p.Close()
		var recipe *RecipeError
		if refused := errors.As(err, &recipe) && recipe.Path == tr.path; refused != (name != "most") {
			t.Fatalf("%s: %v", name, err)
		}
		s := shelf{}
		sums, _ := s.save(t, NewKnown(), nil, 1<<40, name != "most", tr)
		if got, err := s.play(t, nil, sums[0], 0); err != nil || !bytes.Equal(got, nars[0]) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A pack leans on no more others than a reader accepts.
func TestManyLeans(t *testing.T) {
	one := &tree{path: fakePath(1, "path"), files: map[string]string{}}
	known := NewKnown()
	for n := range maxLeans + 100 {
		content := strings.Repeat(fmt.Sprint("content ", n, " "), 20)
		one.files[fmt.Sprintf("f%05d", n)] = content
		known.Add(fmt.Sprintf("%064x", n), &Sums{of: [areas][]Sum{{sumChunk([]byte(content))}, nil}})
	}
	s := shelf{}
	sums, _ := s.save(t, known, nil, 1<<40, false, one)
	ix, err := ReadIndex(t.Context(), memory(s[sums[0]]), sums[0], nil)
	if err != nil || len(ix.Leans()) != maxLeans {
		t.Fatal(err)
	}
}

// A recipe of more chunks than a pack can have is refused before somebody walks over them.
func TestEndlessRecipe(t *testing.T) {
	var runs []chunkRun
	for range 50 {
		runs = append(runs, chunkRun{0, 0, maxChunks})
	}
	if _, err := readRuns(appendRuns(nil, runs), 0); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if got, err := readRuns(appendRuns(nil, runs[:1]), 0); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
}

// A stream that is cut, has another path or too many of them is an error, and Close ends everything.
func TestPackerStream(t *testing.T) {
	r := testbench.Random(t)
	stream, records, _ := exported(t, randomTree(r, 1, nil), randomTree(r, 2, nil))
	for name, test := range map[string]struct {
		stream  []byte
		records []Record
	}{
		"cut":           {stream[:len(stream)-9], records},
		"cut in a NAR":  {stream[:len(stream)/2], records},
		"in the middle": {stream[:100], records},
		"empty":         {nil, records},
		"more":          {stream, records[:1]},
		"fewer":         {stream, append(slices.Clone(records), records[1])},
		"another":       {stream, []Record{records[1], records[0]}},
	} {
		p := NewPacker(FromExport(bytes.NewReader(test.stream)), test.records, func(string) bool { return false }, NewKnown(), nil)
		var err error
		for err == nil {
			_, err = p.Next(io.Discard, 1<<10)
		}
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		p.Close()
	}
	r2, w := io.Pipe() // a reader that hangs until its other end is closed
	p := NewPacker(FromExport(r2), records, func(string) bool { return false }, NewKnown(), nil)
	context.AfterFunc(t.Context(), func() { _ = w.Close() })
	_ = r2.Close()
	p.Close()
}

// played returns what a player makes of the streams of a path.
func played(rec Record, parts [streams][]byte) ([]byte, error) {
	ix := &Index{Records: []Record{rec}, chunked: []chunkedFrame{}}
	all := &Lengths{}
	var frames [][]byte
	for _, kind := range []streamKind{skeleton, nodePositions, filePositions, files} {
		data := parts[kind]
		of := &all.of[kind.area()]
		if len(data) == 0 {
			continue
		}
		number := len(of.ends)
		of.frames, of.first = append(of.frames, len(frames)), append(of.first, number)
		frames = append(frames, data)
		const size = 100
		for at := size; at < len(data); at += size {
			of.ends = append(of.ends, uint32(at))
		}
		of.ends = append(of.ends, uint32(len(data)))
		ix.Records[0].runs[kind] = []chunkRun{{0, number, len(of.ends) - number}}
	}
	for a := range all.of {
		all.of[a].first = append(all.of[a].first, len(all.of[a].ends))
	}
	return io.ReadAll(ix.NewPlayer(0, []*Lengths{all}, func(_, _, number int) ([]byte, error) { return frames[number], nil }, nil))
}

// A packer takes no new memory for each batch of a large path.
func TestPackerMemory(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the batches that are under way depend on it
	const size = 128 << 20
	data := strings.Repeat(string(noise(1<<20)), size>>20)
	stream, records, _ := exported(t, &tree{path: fakePath(1, "large"), files: map[string]string{"a": data}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p := NewPacker(FromExport(bytes.NewReader(stream)), records, func(string) bool { return false }, NewKnown(), nil)
	defer p.Close()
	_, err := p.Next(io.Discard, 1<<40)
	must(t, err)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > size/2 {
		t.Errorf("%d MB of memory for a path of %d MB", took>>20, size>>20)
	}
}

// FuzzPlayer plays hostile recipes: a player ends, with the NAR of the index or an error.
func FuzzPlayer(f *testing.F) {
	path := fakePath(1, "self")
	node := func(kind nar.Kind, name string, root bool, chunks int) []byte {
		return appendNode(nil, nar.Node{Kind: kind, Name: name, Target: "t"}, root, chunks)
	}
	simple := slices.Concat(node(nar.Directory, "", true, 0), node(nar.File, "a", false, 1), node(nar.Symlink, "b", false, 0), node(nar.End, "", false, 0))
	positions := append([]byte{0}, appendPositions(nil, []position{{at: 3}})...)
	content := append(append([]byte("abc"), make([]byte, hashSize)...), "def"...)
	f.Add(simple, []byte{}, positions, content, int64(500), true)
	f.Add(node(nar.File, "", true, 1), []byte{}, []byte{}, []byte("x"), int64(120), false)
	f.Add([]byte("dee"), []byte{}, []byte{}, []byte{}, int64(96), false)
	f.Add([]byte(""), []byte{}, []byte{}, []byte("whole"), int64(5), true)
	f.Fuzz(func(t *testing.T, skeletonBytes, nodes, filesAt, data []byte, size int64, honest bool) {
		if size < 0 || size > 1<<20 {
			return
		}
		parts := [streams][]byte{files: data, skeleton: skeletonBytes, nodePositions: nodes, filePositions: filesAt}
		rec := Record{Path: path, NarSize: size}
		got, err := played(rec, parts)
		if err == nil && sha256.Sum256(got) != rec.NarHash {
			t.Fatal("a NAR with another hash")
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if !honest {
			return
		}
		// With the right hash, it is a NAR that Nix accepts, unless it is stored whole.
		rec.NarSize = 1 << 40
		all, err := played(rec, parts)
		if !strings.Contains(err.Error(), "ends before its last") {
			return
		}
		rec.NarSize, rec.NarHash = int64(len(all)), sha256.Sum256(all)
		if got, err = played(rec, parts); err != nil || !bytes.Equal(got, all) {
			t.Fatalf("%q instead of %q, %v", got, all, err)
		}
		if len(skeletonBytes) > 0 {
			if err := nar.Copy(io.Discard, bufio.NewReaderSize(bytes.NewReader(got), nar.MinBuffer)); err != nil {
				t.Fatalf("%q: %v", got, err)
			}
		}
	})
}
