package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// processors sets the number of processors for a test.
func processors(t testing.TB, n int) {
	t.Helper()
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// text returns bytes that compress well, unlike noise.
func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d %x\n", i, i%1000*7919)
	}
	return b.Bytes()[:n]
}

// mixed returns text in small records and in a large one.
func mixed(t testing.TB) []byte {
	t.Helper()
	var records [][]byte
	for i := range 12 {
		size := 300_000 * i
		if i == 7 {
			size = 3 * FrameSize
		}
		records = append(records, record(t, fmt.Sprint("m", i), text(size), ""))
	}
	return stream(records...)
}

func TestSameBytesOnAnyMachine(t *testing.T) {
	export := mixed(t)
	processors(t, 1)
	want, _ := write(t, export)
	for _, n := range []int{2, 3, 20} {
		runtime.GOMAXPROCS(n)
		var got bytes.Buffer
		_, err := Write(&got, iotest.HalfReader(bytes.NewReader(export)), nil, nil)
		must(t, err)
		if !bytes.Equal(got.Bytes(), want.data) {
			t.Errorf("%d processors make another pack than one", n)
		}
	}
}

// Records that just fill a frame or a part of one, and records that just don't.
func TestFrames(t *testing.T) {
	empty := len(record(t, "a", nil, ""))
	for _, test := range []struct {
		sizes  []int // of the records, bytes
		frames []int // of the records
	}{
		{[]int{FrameSize}, []int{0}},
		{[]int{FrameSize + 8}, []int{0}},
		{[]int{2 * FrameSize}, []int{0}},
		{[]int{2*FrameSize + 8}, []int{0}},
		{[]int{1000, FrameSize - 1000, 1000}, []int{0, 0, 1}},
		{[]int{1000, FrameSize - 992, 1000}, []int{0, 1, 2}},
		{[]int{1000, FrameSize, 1000, 1000}, []int{0, 1, 2, 2}},
		{[]int{1000, 1000, FrameSize + 8, 1000}, []int{0, 0, 1, 2}},
		{[]int{FrameSize + 8, 2 * FrameSize, 1000}, []int{0, 1, 2}},
	} {
		var records [][]byte
		for i, size := range test.sizes {
			rec := record(t, string(rune('a'+i)), noise(size-empty), "")
			if len(rec) != size {
				t.Fatalf("a record of %d bytes has %d", size, len(rec))
			}
			records = append(records, rec)
		}
		for name, pack := range map[string]func(testing.TB, []byte) (*mem, *Summary){"clear": write, "sealed": sealed} {
			m, s := pack(t, stream(records...))
			var key *Key
			if name == "sealed" {
				key = testKeys()[0]
			}
			ix, err := ReadIndex(t.Context(), m, s.SHA256, key)
			must(t, err)
			for i, rec := range ix.Records {
				if rec.frame != test.frames[i] {
					t.Errorf("%s: of %d bytes, record %d is in frame %d, want %d", name, test.sizes, i, rec.frame, test.frames[i])
				}
				var b bytes.Buffer
				must(t, extract(t, ix, &b, m, i))
				if !bytes.Equal(b.Bytes(), stream(records[i])) {
					t.Errorf("%s: of %d bytes, record %d is another one", name, test.sizes, i)
				}
			}
		}
	}
}

// limited reads or writes so many bytes, then fails.
type limited struct {
	io.Reader
	left int
	err  error
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(l.left, len(b))
	if l.left -= n; n < len(b) {
		return n, l.err
	}
	return n, nil
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, l.err
	}
	n, err := l.Reader.Read(b[:min(l.left, len(b))])
	l.left -= n
	return n, err
}

// If the reader or the writer fails, its error is returned and no goroutine is left, which
// would fail the test in a bubble.
func TestWriteFails(t *testing.T) {
	export := mixed(t)
	whole, _ := write(t, export)
	size := len(whole.data)
	broken := errors.New("broken")
	keys := testKeys()
	for _, n := range []int{0, 1, 100, size / 3, size / 2, size - 1} {
		for _, key := range []*Key{nil, keys[0]} {
			synctest.Test(t, func(t *testing.T) {
				_, err := Write(&limited{left: n, err: broken}, bytes.NewReader(export), nil, key)
				if !errors.Is(err, broken) || strings.Contains(err.Error(), "read") {
					t.Errorf("after %d bytes were written: %v", n, err)
				}
			})
		}
	}
	for _, n := range []int{0, 1, 100, len(export) / 3, len(export) / 2, len(export) - 1} {
		synctest.Test(t, func(t *testing.T) {
			_, err := Write(io.Discard, &limited{Reader: bytes.NewReader(export), left: n, err: broken}, nil, nil)
			if !errors.Is(err, broken) || !strings.Contains(err.Error(), "cannot read the export stream") {
				t.Errorf("after %d bytes were read: %v", n, err)
			}
		})
	}
}

// stalled blocks until it is told to fail.
type stalled struct{ until chan error }

func (s *stalled) Write([]byte) (int, error) { return 0, <-s.until }

// While writing is blocked, only as much is read as keeps all processors busy. When writing
// fails, reading ends too.
func TestReadsNoMoreThanItCompresses(t *testing.T) {
	export := stream(record(t, "small", text(1000), ""), record(t, "large", make([]byte, 40*FrameSize), ""))
	for _, n := range []int{1, 4, 20} {
		processors(t, n)
		synctest.Test(t, func(t *testing.T) {
			src := bytes.NewReader(export)
			dst := &stalled{make(chan error)}
			done := make(chan error)
			go func() {
				_, err := Write(dst, src, nil, nil)
				done <- err
			}()
			synctest.Wait()
			read := len(export) - src.Len()
			n := min(n, maxCompressors)
			if least, most := n*FrameSize, (n+3)*FrameSize+1<<20; read < least || read > most {
				t.Errorf("%d processors: %d bytes are read, want %d to %d", n, read, least, most)
			}
			broken := errors.New("broken")
			dst.until <- broken
			if err := <-done; !errors.Is(err, broken) {
				t.Error(err)
			}
			if left := src.Len(); left < len(export)-read-2*FrameSize {
				t.Errorf("%d processors: %d more bytes are read than needed", n, len(export)-read-left)
			}
		})
	}
}
