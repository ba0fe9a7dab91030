package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	gonar "github.com/nix-community/go-nix/pkg/nar"
	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/wire"

	"github.com/org/nix-matrix/internal/nar"
)

// mem is a pack in memory. It counts the bytes that are read.
type mem struct {
	data []byte
	read int64
	fail error // of reading, after the first half
}

func (m *mem) Size() int64 { return int64(len(m.data)) }

func (m *mem) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	m.read += length
	part := m.data[min(offset, m.Size()):min(offset+length, m.Size())]
	var r io.Reader = bytes.NewReader(part)
	if m.fail != nil {
		r = io.MultiReader(bytes.NewReader(part[:len(part)/2]), &failing{m.fail})
	}
	return io.NopCloser(r), nil
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// storePath returns a store path whose hash depends on the name.
func storePath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "/nix/store/" + nixbase32.EncodeToString(sum[:20]) + "-" + name
}

// record returns a record of an export stream, a store path with one file.
func record(t testing.TB, name string, content []byte, deriver string, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, wire.WriteUint64(&b, nar.RecordStart))
	w, err := gonar.NewWriter(&b)
	must(t, err)
	must(t, w.WriteHeader(&gonar.Header{Path: "/", Type: gonar.TypeDirectory}))
	must(t, w.WriteHeader(&gonar.Header{Path: "/file", Type: gonar.TypeRegular, Size: int64(len(content))}))
	_, err = w.Write(content)
	must(t, err)
	must(t, w.WriteHeader(&gonar.Header{Path: "/link", Type: gonar.TypeSymlink, LinkTarget: "file"}))
	must(t, w.Close())
	rec := Record{Path: storePath(name), Deriver: deriver}
	for _, ref := range refs {
		rec.References = append(rec.References, storePath(ref))
	}
	must(t, rec.writeTrailer(&b))
	return b.Bytes()
}

// writeTrailer writes the part of a record after the NAR.
func (rec *Record) writeTrailer(w io.Writer) error {
	var b bytes.Buffer // writing to it can't fail
	_ = wire.WriteUint64(&b, nar.RecordMagic)
	_ = wire.WriteString(&b, rec.Path)
	_ = wire.WriteUint64(&b, uint64(len(rec.References)))
	for _, ref := range rec.References {
		_ = wire.WriteString(&b, ref)
	}
	_ = wire.WriteString(&b, rec.Deriver)
	_ = wire.WriteUint64(&b, 0)
	_, err := w.Write(b.Bytes())
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func stream(records ...[]byte) []byte {
	return append(bytes.Join(records, nil), make([]byte, 8)...)
}

// sample returns small records that share frames, and large ones between them.
func sample(t testing.TB) []byte {
	t.Helper()
	records := [][]byte{record(t, "base", []byte("base"), "")}
	for i := range 40 {
		size := 1000 * i
		if i%13 == 7 {
			size = FrameSize + 100*i
		}
		records = append(records, record(t, fmt.Sprint("p", i), noise(size), storePath("x.drv"), "base", fmt.Sprint("p", i)))
	}
	records = append(records, record(t, "top", []byte("top"), "", "p3", "p7", "p30"))
	return stream(records...)
}

func write(t testing.TB, export []byte) (*mem, *Summary) {
	t.Helper()
	var b bytes.Buffer
	s, err := Write(&b, bytes.NewReader(export), nil, nil)
	must(t, err)
	if s.Size != int64(b.Len()) {
		t.Errorf("the summary says %d bytes, there are %d", s.Size, b.Len())
	}
	return &mem{data: b.Bytes()}, s
}

// extract writes records as an export stream again.
func extract(t testing.TB, ix *Index, dst io.Writer, src Source, numbers ...int) error {
	r, err := ix.NewReader(t.Context(), src, numbers)
	must(t, err)
	defer r.Close()
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return wire.WriteUint64(dst, nar.StreamEnd)
		} else if err != nil {
			return err
		}
		if err := wire.WriteUint64(dst, nar.RecordStart); err != nil {
			return err
		}
		if n, err := io.Copy(dst, r); err != nil {
			return err
		} else if n != rec.NarSize {
			t.Errorf("a NAR of %d bytes, want %d", n, rec.NarSize)
		}
		if err := rec.writeTrailer(dst); err != nil {
			return err
		}
	}
}

func all(ix *Index) []int {
	numbers := make([]int, len(ix.Records))
	for i := range numbers {
		numbers[i] = i
	}
	return numbers
}

func TestAPackIsAnExportStream(t *testing.T) {
	for name, export := range map[string][]byte{"sample": sample(t), "empty": stream()} {
		t.Run(name, func(t *testing.T) {
			m, _ := write(t, export)
			dec, err := zstd.NewReader(bytes.NewReader(m.data))
			must(t, err)
			defer dec.Close()
			got, err := io.ReadAll(dec)
			must(t, err)
			if !bytes.Equal(got, export) {
				t.Errorf("decompressed, it has %d bytes that differ from the stream's %d", len(got), len(export))
			}
		})
	}
}

func TestReader(t *testing.T) {
	export := sample(t)
	m, s := write(t, export)
	ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
	must(t, err)

	t.Run("all", func(t *testing.T) {
		var b bytes.Buffer
		must(t, extract(t, ix, &b, m, all(ix)...))
		if !bytes.Equal(b.Bytes(), export) {
			t.Error("the stream is not the one that was packed")
		}
	})
	t.Run("closure", func(t *testing.T) {
		numbers, err := ix.Closure(storePath("top"))
		must(t, err)
		m.read = 0
		var b bytes.Buffer
		must(t, extract(t, ix, &b, m, numbers...))
		if m.read > m.Size()*2/3 {
			t.Errorf("has read %d bytes of %d", m.read, m.Size())
		}
		again, err := Write(io.Discard, &b, nil, nil)
		must(t, err)
		var got []string
		for _, n := range numbers {
			got = append(got, ix.Records[n].Path)
		}
		want := []string{storePath("base"), storePath("p3"), storePath("p7"), storePath("p30"), storePath("top")}
		if diff := cmp.Diff(want, got); diff != "" || again.Paths != len(want) {
			t.Errorf("%d paths: %s", again.Paths, diff)
		}
	})
	t.Run("not there", func(t *testing.T) {
		if _, err := ix.Closure(storePath("nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("got %v", err)
		}
	})
}

func TestIndexHash(t *testing.T) {
	m, s := write(t, sample(t))
	if _, err := ReadIndex(t.Context(), m, strings.Repeat("0", len(s.SHA256)), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an index with another hash: %v", err)
	}
}

// With any bit flipped, a reader returns no other records than the packed ones.
func TestFlippedBits(t *testing.T) {
	export := stream(record(t, "a", noise(5000), ""), record(t, "b", noise(FrameSize+1), "", "a"), record(t, "c", noise(300), "", "b"))
	m, s := write(t, export)
	r := rand.New(rand.NewPCG(2, 3))
	refused := 0
	for range 300 {
		at, bit := r.IntN(len(m.data)), byte(1)<<r.IntN(8)
		m.data[at] ^= bit
		var b bytes.Buffer
		ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
		if err == nil {
			err = extract(t, ix, &b, m, 0, 1, 2)
		}
		if verified := Verify(t.Context(), m, s.SHA256, nil); errors.Is(verified, ErrCorrupt) != errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d of byte %d: to verify it says %v, to read it %v", bit, at, verified, err)
		}
		m.data[at] ^= bit
		switch {
		case errors.Is(err, ErrCorrupt):
			refused++
		case err != nil:
			t.Fatalf("bit %d of byte %d: %v", bit, at, err)
		case !bytes.Equal(b.Bytes(), export):
			t.Fatalf("bit %d of byte %d brings another stream", bit, at)
		}
	}
	// A bit of an unused part, such as a frame's checksum, may go unnoticed; most bits are
	// used.
	if refused < 250 {
		t.Errorf("only %d of 300 flipped bits were refused", refused)
	}
}

func TestTruncated(t *testing.T) {
	m, s := write(t, sample(t))
	for _, n := range []int{0, 1, 7, 8, 15, 16, 100, len(m.data) / 2, len(m.data) - 1} {
		if _, err := ReadIndex(t.Context(), &mem{data: m.data[:n]}, s.SHA256, nil); err == nil {
			t.Errorf("the first %d bytes have an index", n)
		}
	}
}

func TestLostConnection(t *testing.T) {
	m, s := write(t, sample(t))
	ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
	must(t, err)
	m.fail = errors.New("connection reset")
	err = extract(t, ix, io.Discard, m, 0, 1)
	if !errors.Is(err, ErrRead) || !errors.Is(err, m.fail) || errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

// A reader never returns bytes of frames that the index does not describe.
func TestForeignTrailer(t *testing.T) {
	good := record(t, "a", []byte("content"), "")
	evil := bytes.Clone(good)
	path := []byte(storePath("a"))
	copy(evil[bytes.Index(evil, path):], storePath("z"))
	m, _ := write(t, stream(evil))
	ix, err := ReadIndex(t.Context(), m, "", nil)
	must(t, err)
	ix.Records[0].Path = storePath("a") // as in a trusted index
	var b bytes.Buffer
	must(t, extract(t, ix, &b, m, 0))
	if !bytes.Equal(b.Bytes(), stream(good)) {
		t.Error("the trailer in the frame was handed on")
	}
}

func TestMalformedStreams(t *testing.T) {
	good := record(t, "a", []byte("content"), "")
	cut := func(n int) []byte { return good[:n] }
	replace := func(part, with string) []byte { return stream(bytes.Replace(good, []byte(part), []byte(with), 1)) }
	for name, export := range map[string][]byte{
		"nothing":        {},
		"no end":         good,
		"cut in the NAR": cut(100),
		"cut in trailer": cut(len(good) - 20),
		"no record":      append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, good...),
		"no NAR":         replace("nix-archive-1", "nix-archive-2"),
		"entry a/b":      replace("\x04\x00\x00\x00\x00\x00\x00\x00file", "\x04\x00\x00\x00\x00\x00\x00\x00fi/e"),
		"unsorted":       replace("\x04\x00\x00\x00\x00\x00\x00\x00file", "\x04\x00\x00\x00\x00\x00\x00\x00zile"),
		"not a path":     replace("/nix/store/", "/etc/store/"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Write(io.Discard, bytes.NewReader(export), nil, nil); err == nil {
				t.Error("it was packed")
			}
		})
	}
}

// Reading a hostile index ends with an error or with an index that is safe to use.
func FuzzIndex(f *testing.F) {
	m, _ := write(f, stream(record(f, "a", []byte("content"), ""), record(f, "b", noise(300), "", "a")))
	ix, err := ReadIndex(f.Context(), m, "", nil)
	must(f, err)
	packed, err := CompressJSON(ix.document())
	must(f, err)
	dec, err := zstd.NewReader(bytes.NewReader(packed))
	must(f, err)
	plain, err := io.ReadAll(dec)
	must(f, err)
	f.Add(plain)
	f.Add(bytes.Replace(plain, []byte(`"o":0`), []byte(`"o":-9`), 1))
	f.Add(bytes.Replace(plain, []byte(`"r":[0]`), []byte(`"r":[99]`), 1))
	f.Add(bytes.Replace(plain, []byte(`"h":"`), []byte(`"h":"00`), 1))
	f.Add(bytes.Replace(plain, []byte(`"f":0`), []byte(`"f":7`), 1))
	f.Add([]byte(`{"version":2,"paths":["` + fakePath(1, "a") + `","` + fakePath(2, "b") + `"],"records":[{"h":"` + strings.Repeat("0a", 32) + `","n":120,"r":[1],"x":["AAAB","AQAC"]}],` +
		`"frames":[[0,50,40],[50,9,30],[59,9,48],[68,9,3]],"chunks":[2,-1],"leans":["` + strings.Repeat("0b", 32) + `"],"leaned":[7]}`))
	enc, err := zstd.NewWriter(nil)
	must(f, err)
	f.Fuzz(func(t *testing.T, doc []byte) {
		ix, err := parseIndex(enc.EncodeAll(doc, nil), m.Size())
		if err != nil {
			return
		}
		if ix.Chunked() {
			useChunked(t, ix, doc)
			return
		}
		_ = extract(t, ix, io.Discard, m, all(ix)...)
		for _, r := range ix.Records {
			_, _ = ix.Closure(r.Path)
		}
	})
}

// useChunked reads tables and recipes of an index of chunks with bytes that do not belong to it.
func useChunked(t *testing.T, ix *Index, data []byte) {
	t.Helper()
	if read, err := readIndex(ix.document(), math.MaxInt64); err != nil || len(read.Records) != len(ix.Records) {
		t.Fatalf("what was read cannot be read again: %v", err)
	}
	lengths, err := ix.DecodeLengths(data)
	if err != nil {
		lengths = &Lengths{}
		for a := range lengths.of {
			lengths.of[a].first = []int{0}
		}
	}
	all := make([]*Lengths, 1+len(ix.Leans()))
	for i := range all {
		all[i] = lengths
	}
	for n := range ix.Records {
		_ = ix.Sources(n)
		if _, err := ix.Needs(n, all, 1<<20); err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, ix.NewPlayer(n, all, func(int, int, int) ([]byte, error) { return data, nil }, nil))
	}
}

func FuzzWrite(f *testing.F) {
	f.Add(stream(record(f, "a", []byte("content"), "")))
	f.Add(sample(f)[:5000])
	f.Fuzz(func(t *testing.T, export []byte) {
		var b bytes.Buffer
		s, err := Write(&b, bytes.NewReader(export), nil, nil)
		if err != nil {
			return
		}
		m := &mem{data: b.Bytes()}
		ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
		if err != nil {
			// Two records of one path, or one before its reference, are
			// refused here.
			return
		}
		var out bytes.Buffer
		must(t, extract(t, ix, &out, m, all(ix)...))
		if !bytes.HasPrefix(export, out.Bytes()) {
			t.Errorf("packed %s, got %s", hex.EncodeToString(export), hex.EncodeToString(out.Bytes()))
		}
	})
}
