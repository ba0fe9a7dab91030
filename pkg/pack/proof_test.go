package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

const (
	signature = "cache.example.org-1:" + "q/9+" + "AAAA=="
	textCA    = "text:sha256:1c166dmjkpimr7fdfvinz11015vpig9ajbf83sdqk4007nb91m5v"
	fixedCA   = "fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw"
)

// Proofs are in the index, not in the stream.
func TestProofs(t *testing.T) {
	export := stream(record(t, "a", []byte("a"), ""), record(t, "b", []byte("b"), "", "a"), record(t, "c", []byte("c"), ""))
	bare, sum := write(t, export)
	var many []string
	for i := range maxSignatures + 5 {
		many = append(many, fmt.Sprintf("key-%d:AAAA", i))
	}
	var b bytes.Buffer
	proven, err := Write(&b, bytes.NewReader(export), map[string]Proof{
		storePath("a"): {CA: textCA, Signatures: []string{"no signature", signature, "two words:AAAA", "line\n:AAAA"}},
		storePath("b"): {CA: "fixed:\nnew form", Signatures: many},
		storePath("z"): {CA: textCA},
	}, nil)
	must(t, err)
	m := &mem{data: b.Bytes()}
	if proven.SHA256 == sum.SHA256 {
		t.Error("the index's hash does not cover the proofs")
	}
	ix, err := ReadIndex(t.Context(), m, proven.SHA256, nil)
	must(t, err)
	want := []Proof{{Signatures: []string{signature}, CA: textCA}, {Signatures: many[:maxSignatures]}, {}}
	for i, rec := range ix.Records {
		if diff := cmp.Diff(want[i], rec.Proof); diff != "" {
			t.Errorf("%s: %s", rec.Path, diff)
		}
	}
	dec, err := zstd.NewReader(bytes.NewReader(m.data))
	must(t, err)
	defer dec.Close()
	got, err := io.ReadAll(dec)
	must(t, err)
	if !bytes.Equal(got, export) {
		t.Error("the stream has changed")
	}

	// An index without proofs, as older versions wrote.
	ix, err = ReadIndex(t.Context(), bare, sum.SHA256, nil)
	must(t, err)
	for _, rec := range ix.Records {
		if diff := cmp.Diff(Proof{}, rec.Proof); diff != "" {
			t.Error(diff)
		}
	}
}

func TestHostileProofs(t *testing.T) {
	m, _ := write(t, stream(record(t, "a", []byte("a"), "")))
	for _, test := range []struct {
		proof Proof
		fine  bool
	}{
		{Proof{}, true},
		{Proof{CA: textCA}, true},
		{Proof{CA: fixedCA}, true},
		{Proof{CA: "fixed:sha1:0a1b"}, true},
		{Proof{CA: "fixed:git:blake3:0a1b"}, true},
		{Proof{CA: textCA + "\n"}, false},
		{Proof{CA: "text:sha256:0a1b\nSig: x"}, false},
		{Proof{CA: "source:sha256:0a1b"}, false},
		{Proof{CA: "fixed:"}, false},
		{Proof{CA: "text:sha256:" + strings.Repeat("a", 300)}, false},
		{Proof{Signatures: []string{signature, "schlüssel:AAAA"}}, true},
		{Proof{Signatures: []string{signature, ""}}, false},
		{Proof{Signatures: []string{"AAAA"}}, false},
		{Proof{Signatures: []string{":AAAA"}}, false},
		{Proof{Signatures: []string{"a:b:AAAA"}}, false},
		{Proof{Signatures: []string{"a:AAAA\n"}}, false},
		{Proof{Signatures: []string{"a b:AAAA"}}, false},
		{Proof{Signatures: []string{"a\u2028b:AAAA"}}, false},
		{Proof{Signatures: []string{"a\x1b[31m:AAAA"}}, false},
		{Proof{Signatures: []string{strings.Repeat("a", 300) + ":AAAA"}}, false},
		{Proof{Signatures: []string{"a:" + strings.Repeat("A", 600)}}, false},
		{Proof{Signatures: slices.Repeat([]string{signature}, maxSignatures+1)}, false},
	} {
		ix, err := ReadIndex(t.Context(), m, "", nil)
		must(t, err)
		ix.Records[0].Proof = test.proof
		data, err := CompressJSON(ix.document())
		must(t, err)
		if _, err := parseIndex(data, m.Size()); test.fine && err != nil || !test.fine && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%.100q: %v", test.proof, err)
		}
	}
}

// A reader never returns the last bytes of a NAR with a wrong hash, in whatever pieces it is
// read.
func TestWrongNAR(t *testing.T) {
	for _, size := range []int{10, 3 * FrameSize / 2} {
		m, s := write(t, stream(record(t, "a", noise(size), "")))
		for _, piece := range []int{7, 1000, 1 << 20, 1 << 24} {
			ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
			must(t, err)
			ix.Records[0].NarHash[3]++
			r, err := ix.NewReader(t.Context(), m, []int{0})
			must(t, err)
			rec, err := r.Next()
			must(t, err)
			got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, piece))
			if !errors.Is(err, ErrCorrupt) || got >= rec.NarSize {
				t.Errorf("%d bytes of %d in pieces of %d: %v", got, rec.NarSize, piece, err)
			}
			if _, again := r.Next(); !errors.Is(again, ErrCorrupt) {
				t.Errorf("after the error: %v", again)
			}
			r.Close()
		}
	}
}

// The unread rest of a NAR is skipped.
func TestSkip(t *testing.T) {
	m, s := write(t, sample(t))
	ix, err := ReadIndex(t.Context(), m, s.SHA256, nil)
	must(t, err)
	m.read = 0
	r, err := ix.NewReader(t.Context(), m, all(ix))
	must(t, err)
	for i := range ix.Records {
		rec, err := r.Next()
		must(t, err)
		if rec != &ix.Records[i] {
			t.Fatalf("record %d is %s", i, rec.Path)
		}
		part := []int64{0, 1, rec.NarSize / 2, rec.NarSize}[i%4]
		got, err := io.Copy(io.Discard, io.LimitReader(r, part))
		must(t, err)
		if got != part {
			t.Errorf("%d bytes, want %d", got, part)
		}
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last: %v", err)
		}
	}
	if r.BytesRead != m.read {
		t.Errorf("says that it has read %d bytes, has read %d", r.BytesRead, m.read)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
}

// A reader refuses an index with a name that leads out of the store.
func TestHostileNames(t *testing.T) {
	m, _ := write(t, stream(record(t, "a", []byte("a"), "")))
	for _, name := range []string{
		"", "/etc/passwd", storePath("a") + "/../../../etc/passwd", storePath("a") + "\n", storePath("a") + "\x1b[31m", storePath("a") + "\x00",
		"/nix/store/../../etc/passwd", "/nix/store/" + strings.Repeat("0", 32) + "-" + strings.Repeat("a", 300),
	} {
		for what, change := range map[string]func(*Record){
			"path":      func(r *Record) { r.Path = name },
			"reference": func(r *Record) { r.References = []string{name} },
			"deriver":   func(r *Record) { r.Deriver = name },
		} {
			ix, err := ReadIndex(t.Context(), m, "", nil)
			must(t, err)
			change(&ix.Records[0])
			data, err := CompressJSON(ix.document())
			must(t, err)
			if _, err := parseIndex(data, m.Size()); !errors.Is(err, ErrCorrupt) && (what != "deriver" || name != "") {
				t.Errorf("the %s %q: %v", what, name, err)
			}
		}
	}
}
