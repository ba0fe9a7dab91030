package documents

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

func randomBytes(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return data
}

// A pack behind a document is found there, whatever the size of the document.
func TestPacked(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		for _, size := range []int{0, 40_000, 60_000, 300_000} {
			s := newStore(newCache(t), seal)
			done := newDone(job.OutcomeBuilt)
			done.Index, done.Inline, done.Packed = randomBytes(size), "a pack", randomBytes(5000)
			if err := s.SaveDone(t.Context(), 0, done); err != nil {
				t.Fatal(err)
			}
			seen, err := s.Unit(t.Context(), unit)
			if err != nil || seen.Done == nil || !bytes.Equal(seen.Done.Index, done.Index) || seen.Done.Inline != "a pack" || seen.Done.Packed != nil {
				t.Fatalf("%d: %+v, %v", size, seen, err)
			}
			place := seen.Done.Place
			blob, err := s.Cache.Open(t.Context(), place.Key)
			if err != nil {
				t.Fatal(err)
			}
			body, err := blob.Range(t.Context(), place.Offset, place.Size)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, done.Packed) {
				t.Errorf("%d: %d bytes are behind it, %v", size, len(got), err)
			}
			_ = body.Close()
		}
	})
}

// A blob that is cut within the document is broken; what is left of the pack behind it has the size that it has.
func TestPackedIsCut(t *testing.T) {
	s := newStore(newCache(t), nil)
	done := newDone(job.OutcomeBuilt)
	done.Index, done.Packed = randomBytes(1000), randomBytes(500)
	if err := s.SaveDone(t.Context(), 0, done); err != nil {
		t.Fatal(err)
	}
	blob, err := s.Cache.Open(t.Context(), "nix-matrix-done-7-"+unit+"-1-0")
	if err != nil {
		t.Fatal(err)
	}
	all, err := cache.ReadAll(t.Context(), blob, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	document := len(all) - len(done.Packed)
	for _, size := range []int{1, 3, 4, 5, document - 1, document, document + 1, len(all) - 1, len(all)} {
		cut := newStore(newCache(t), nil)
		if err := cut.Cache.Save(t.Context(), blob.Key(), bytes.NewReader(all), int64(size)); err != nil {
			t.Fatal(err)
		}
		switch seen, err := cut.Unit(t.Context(), unit); {
		case err != nil:
			t.Errorf("%d: %v", size, err)
		case size < document && (seen.Done != nil || seen.Broken == nil):
			t.Errorf("%d of %d bytes of the document: %+v", size, document, seen)
		case size >= document && (seen.Done == nil || seen.Done.Place.Size != int64(size-document)):
			t.Errorf("%d of %d bytes: %+v", size, len(all), seen)
		}
	}
}

// A hand-over that is too large is neither stored nor read.
func TestPackedTooLarge(t *testing.T) {
	s := newStore(newCache(t), nil)
	done := newDone(job.OutcomeBuilt)
	done.Packed = make([]byte, MaxPacked+1)
	if err := s.SaveDone(t.Context(), 0, done); err == nil {
		t.Error("it was stored")
	}
	done.Packed = done.Packed[1:]
	if err := s.SaveDone(t.Context(), 0, done); err != nil {
		t.Fatal(err)
	}
	blob, err := s.Cache.Open(t.Context(), "nix-matrix-done-7-"+unit+"-1-0")
	if err != nil {
		t.Fatal(err)
	}
	all, err := cache.ReadAll(t.Context(), blob, 1<<26)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, 0)
	if err := s.Cache.Save(t.Context(), "nix-matrix-done-7-"+unit+"-1-1", bytes.NewReader(all), int64(len(all))); err != nil {
		t.Fatal(err)
	}
	if seen, err := s.Unit(t.Context(), unit); err != nil || seen.Broken == nil {
		t.Errorf("%+v, %v", seen, err)
	}
}

// A stranger may write anything: it is a document of the unit, or broken.
func FuzzDone(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Add([]byte("\x00\x00\x00\x66" + `{"version":1,"unit":"00000000000000aa","attempt":1,"outcome":"built","entry":"host","seconds":1,"inline":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		done, err := newStore(nil, nil).readDone(t.Context(), bytesBlob(data), unit)
		if (done == nil) == (err == nil) || err != nil && !errors.Is(err, errBroken) {
			t.Fatalf("%+v, %v", done, err)
		}
		if done != nil && done.Place.Offset+done.Place.Size != int64(len(data)) {
			t.Fatalf("%+v", done)
		}
	})
}

// bytesBlob is a blob in memory.
type bytesBlob []byte

func (bytesBlob) Key() string   { return "blob" }
func (b bytesBlob) Size() int64 { return int64(len(b)) }

func (b bytesBlob) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	if err := cache.CheckRange(offset, length, b.Size()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b[offset : offset+length])), nil
}
