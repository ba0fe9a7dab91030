package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// Two keys, made once because that is expensive.
var testKeys = sync.OnceValue(func() [2]*Key {
	var keys [2]*Key
	for i := range keys {
		var err error
		if keys[i], err = NewKey(fmt.Sprint("a secret for the tests ", i)); err != nil {
			panic(err)
		}
	}
	return keys
})

func TestNewKey(t *testing.T) {
	if _, err := NewKey(" 0123456789abcde\n"); err == nil || !strings.Contains(err.Error(), "openssl rand -base64 32") {
		t.Errorf("a short secret: %v", err)
	}
	key, other := testKeys()[0], testKeys()[1]
	again, err := NewKey("\ta secret for the tests 0\n")
	must(t, err)
	if key.Fingerprint() != again.Fingerprint() || len(key.Fingerprint()) != 16 {
		t.Errorf("the same secret makes %q and %q", key.Fingerprint(), again.Fingerprint())
	}
	if key.Fingerprint() == other.Fingerprint() {
		t.Error("two secrets make the same key")
	}
	if none := (*Key)(nil); none.Fingerprint() != "" {
		t.Error("no key has a fingerprint")
	}
}

func TestSeal(t *testing.T) {
	key := testKeys()[0]
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 3 * pieceSize} {
		plain := noise(size)
		sealed := key.Seal("plan", plain)
		if size > 16 && bytes.Contains(sealed, plain[:16]) {
			t.Errorf("%d bytes: the clear text is there", size)
		}
		if bytes.Equal(sealed, key.Seal("plan", plain)) {
			t.Errorf("%d bytes: sealed twice, it is the same", size)
		}
		got, err := key.Open("plan", sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d bytes came back, %v", size, len(got), err)
		}
		// NewReader returns the same.
		r, err := key.NewReader(iotest.OneByteReader(bytes.NewReader(sealed)), "plan")
		must(t, err)
		if got, err = io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, read by and by: %d bytes came back, %v", size, len(got), err)
		}
	}
}

func TestOpenWhatDoesNotFit(t *testing.T) {
	key, other := testKeys()[0], testKeys()[1]
	var none *Key
	plain, sealed := []byte(`{"version": 1}`), key.Seal("plan", []byte(`{"version": 1}`))
	for name, test := range map[string]struct {
		key    *Key
		what   string
		data   []byte
		err    error
		saying string
	}{
		"no key, clear":    {none, "plan", plain, nil, ""},
		"no key, sealed":   {none, "plan", sealed, ErrKey, "Set encryption_key"},
		"a key, clear":     {key, "plan", plain, ErrKey, "not sealed"},
		"a key, nothing":   {key, "plan", nil, ErrKey, "not sealed"},
		"another key":      {other, "plan", sealed, ErrKey, key.Fingerprint()},
		"something else":   {key, "result x", sealed, ErrSeal, "the result x"},
		"cut in its head":  {key, "plan", sealed[:documentHead-1], ErrSeal, "cut off"},
		"cut after it":     {key, "plan", sealed[:documentHead], ErrSeal, "cut off"},
		"cut at its end":   {key, "plan", sealed[:len(sealed)-1], ErrSeal, "cut off"},
		"longer than that": {key, "plan", append(bytes.Clone(sealed), 0), ErrSeal, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.key.Open(test.what, test.data)
			switch {
			case !errors.Is(err, test.err):
				t.Errorf("%v, want %v", err, test.err)
			case err == nil && !bytes.Equal(got, test.data):
				t.Errorf("got %q", got)
			case err != nil && !strings.Contains(err.Error(), test.saying):
				t.Errorf("%q does not say %q", err, test.saying)
			}
		})
	}
	if got := none.Seal("plan", plain); !bytes.Equal(got, plain) {
		t.Errorf("without a key, %q became %q", plain, got)
	}
}

// Pieces can't be left out, repeated or reordered.
func TestPieces(t *testing.T) {
	key := testKeys()[0]
	sealed := key.Seal("log", noise(3*pieceSize+100))
	head, body := sealed[:documentHead], sealed[documentHead:]
	piece := func(n int) []byte { return body[n*sealedSize : min((n+1)*sealedSize, len(body))] }
	for name, order := range map[string][]int{
		"the last is missing": {0, 1, 2},
		"one is missing":      {0, 2, 3},
		"one is there twice":  {0, 0, 1, 2, 3},
		"two are swapped":     {1, 0, 2, 3},
		"more after the last": {0, 1, 2, 3, 3},
	} {
		data := bytes.Clone(head)
		for _, n := range order {
			data = append(data, piece(n)...)
		}
		if _, err := key.Open("log", data); !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := 0; at < len(sealed); at += 997 {
		sealed[at] ^= 4
		if _, err := key.Open("log", sealed); !errors.Is(err, ErrSeal) && !errors.Is(err, ErrKey) {
			t.Errorf("byte %d is another one: %v", at, err)
		}
		sealed[at] ^= 4
	}
}

func FuzzOpen(f *testing.F) {
	key := testKeys()[0]
	sealed := key.Seal("plan", []byte("text"))
	f.Add(sealed)
	f.Add(sealed[:documentHead])
	f.Add([]byte(documentMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := key.Open("plan", data); err == nil && string(got) != "text" {
			t.Errorf("%q opens as %q", data, got)
		} else if err != nil && !errors.Is(err, ErrSeal) && !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", data, err)
		}
		if _, err := (*Key)(nil).Open("plan", data); err != nil && !IsSealed(data) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

// sealed returns a sealed pack.
func sealed(t testing.TB, export []byte) (*mem, *Summary) {
	t.Helper()
	var b bytes.Buffer
	s, err := Write(&b, bytes.NewReader(export), nil, testKeys()[0])
	must(t, err)
	if s.Size != int64(b.Len()) {
		t.Errorf("the summary says %d bytes, there are %d", s.Size, b.Len())
	}
	return &mem{data: b.Bytes()}, s
}

func TestSealedPack(t *testing.T) {
	key := testKeys()[0]
	export := sample(t)
	m, s := sealed(t, export)
	ix, err := ReadIndex(t.Context(), m, s.SHA256, key)
	must(t, err)
	var b bytes.Buffer
	must(t, extract(t, ix, &b, m, all(ix)...))
	if !bytes.Equal(b.Bytes(), export) {
		t.Error("the stream is not the one that was packed")
	}
	if bytes.Contains(m.data, noise(FrameSize + 700)[:16]) || bytes.Contains(m.data, []byte("/nix/store")) {
		t.Error("there is clear text in it")
	}

	// A part of it is read by ranges as with any pack.
	numbers, err := ix.Closure(storePath("top"))
	must(t, err)
	m.read = 0
	b.Reset()
	must(t, extract(t, ix, &b, m, numbers...))
	if again, err := Write(io.Discard, &b, nil, nil); err != nil || again.Paths != len(numbers) || m.read > m.Size()*2/3 {
		t.Errorf("%d bytes of %d read for %v, %v", m.read, m.Size(), again, err)
	}

	// The same paths with the same key have the same index hash.
	other, again := sealed(t, export)
	if s.SHA256 != again.SHA256 || bytes.Equal(m.data, other.data) {
		t.Error("sealed twice, it is the same file, or another pack")
	}
}

func TestSealedPackAndKeys(t *testing.T) {
	keys := testKeys()
	export := stream(record(t, "a", []byte("content"), ""))
	private, s := sealed(t, export)
	bare, c := write(t, export)
	for name, test := range map[string]struct {
		src    *mem
		sum    string
		key    *Key
		saying string
	}{
		"no key":      {private, s.SHA256, nil, "Set encryption_key"},
		"another key": {private, s.SHA256, keys[1], keys[0].Fingerprint()},
		"in clear":    {bare, c.SHA256, keys[0], "not sealed"},
	} {
		if _, err := ReadIndex(t.Context(), test.src, test.sum, test.key); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), test.saying) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Frames of a sealed pack are bound to their pack and their position in it.
func TestSwappedFrames(t *testing.T) {
	key := testKeys()[0]
	export := stream(record(t, "a", noise(FrameSize+1), ""), record(t, "b", noise(FrameSize+2), ""))
	m, s := sealed(t, export)
	twin, _ := sealed(t, export)
	ix, err := ReadIndex(t.Context(), m, s.SHA256, key)
	must(t, err)
	from, to := ix.frames[0], ix.frames[1]
	frameOf := func(pack *mem, f frame) []byte { return pack.data[f.offset : f.offset+f.size] }
	for name, foreign := range map[string][]byte{
		"of another pack":      frameOf(twin, from),
		"of the same pack":     frameOf(m, to)[:from.size],
		"cut at a piece's end": append(bytes.Clone(frameOf(m, from)[:sealedSize]), make([]byte, from.size-int64(sealedSize))...),
	} {
		changed := &mem{data: bytes.Clone(m.data)}
		copy(frameOf(changed, from), foreign)
		if err := extract(t, ix, io.Discard, changed, 0); !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrSeal) {
			t.Errorf("a frame %s: %v", name, err)
		}
	}
	// A source that ends too early, at the end of a piece.
	short := &mem{data: m.data[:from.offset+int64(sealedSize)]}
	if err := extract(t, ix, io.Discard, short, 0); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrRead) {
		t.Errorf("a frame that is cut off: %v", err)
	}
	// An index that swaps the frames of records.
	ix.frames[0], ix.frames[1] = to, from
	if err := extract(t, ix, io.Discard, m, 0); !errors.Is(err, ErrCorrupt) || !errors.Is(err, ErrSeal) {
		t.Errorf("a frame in another's place: %v", err)
	}
}

func TestFlippedBitsOfASealedPack(t *testing.T) {
	key := testKeys()[0]
	export := stream(record(t, "a", noise(5000), ""), record(t, "b", noise(2*pieceSize), "", "a"))
	m, _ := sealed(t, export)
	for at := 0; at < len(m.data); at += 1 + len(m.data)/200 {
		m.data[at] ^= 8
		var b bytes.Buffer
		ix, err := ReadIndex(t.Context(), m, "", key) // without a hash, only the seal protects it
		if err == nil {
			err = extract(t, ix, &b, m, all(ix)...)
		}
		m.data[at] ^= 8
		if err == nil && !bytes.Equal(b.Bytes(), export) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrKey) && !errors.Is(err, ErrRead) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

func FuzzSealedPack(f *testing.F) {
	key := testKeys()[0]
	export := stream(record(f, "a", []byte("content"), ""))
	m, _ := sealed(f, export)
	f.Add(m.data)
	f.Add(m.data[:len(m.data)-1])
	f.Add([]byte(sealedMagic))
	f.Add(append(make([]byte, 64), "\x10\x00\x00\x00\x00\x00\x00\x00nixmseal"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &mem{data: data}
		ix, err := ReadIndex(t.Context(), m, "", key)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := extract(t, ix, &b, m, all(ix)...); err == nil && !bytes.Equal(b.Bytes(), export) {
			t.Errorf("%x brings another stream", data)
		}
	})
}
