package reuse

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
)

// kernelPack returns a cache with a pack.
func kernelPack(t *testing.T) (cache.Cache, job.Pack, *storecache.Pack) {
	t.Helper()
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	saved := savePack(t, c, "kernel")
	found, err := storecache.FindPack(t.Context(), c, saved.Key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, saved, found
}

// The document of a hand-over may name no path that the Plan does not, must be whole, and must be
// sealed with the key of the run. Nothing of it is read otherwise.
func TestHandoverDocument(t *testing.T) {
	c, _, found := kernelPack(t)
	document := func(key *pack.Key) []byte {
		data, err := storecache.NewIndex(found).Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := pack.NewKey("one key, which is as long as it has to be")
	if err != nil {
		t.Fatal(err)
	}
	outputs, err := storecache.NewIndex(found).Paths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	everything := func(string) bool { return true }
	nothing := func(string) bool { return false }
	for want, test := range map[string]struct {
		seal     *pack.Key
		document []byte
		named    func(string) bool
	}{
		"":                                {nil, document(nil), everything},
		"which no derivation of the plan": {nil, document(nil), nothing},
		"not an index, or a changed one":  {nil, document(nil)[:40], everything},
		"the index is not sealed":         {key, document(nil), everything},
		"the index is sealed with":        {nil, document(key), everything},
	} {
		e := &EntryCache{cache: &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix", Seal: test.seal}, Log: quiet{}}, index: storecache.NewIndex()}
		got, err := e.read(t.Context(), &Handover{Done: &job.Done{Index: test.document}, Outputs: outputs}, c, test.named)
		switch {
		case want == "" && (err != nil || !got.Has(outputs[0])):
			t.Errorf("%v, %v", got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The pack behind a document is read there, if the document names it and it is as long as it says.
func TestInlinePack(t *testing.T) {
	c, saved, found := kernelPack(t)
	blob, err := c.Open(t.Context(), saved.Key)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := cache.ReadAll(t.Context(), blob, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const before = "a document"
	handover := append([]byte(before), packed...)
	if err := c.Save(t.Context(), "done", bytes.NewReader(handover), int64(len(handover))); err != nil {
		t.Fatal(err)
	}
	outputs, err := storecache.NewIndex(found).Paths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	document, err := storecache.NewIndex(found.At("nowhere")).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	place := job.Place{Key: "done", Offset: int64(len(before)), Size: saved.Size}
	e := &EntryCache{cache: &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix"}, Log: quiet{}}, index: storecache.NewIndex(), others: map[string]bool{}}
	read := func(inline string, place job.Place) (*storecache.Index, error) {
		return e.read(t.Context(), &Handover{Done: &job.Done{Index: document, Inline: inline, Place: place}, Outputs: outputs}, c, func(string) bool { return true })
	}
	ix, err := read("nowhere", place)
	if err != nil || len(ix.Packs) != 1 || ix.Packs[0].Key != "done" {
		t.Fatalf("%+v, %v", ix, err)
	}
	from := inlined{c, map[string]job.Place{"done": place}}
	if got, err := storecache.FindPack(t.Context(), from, "done", nil); err != nil || len(got.Index.Records) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, size := range []int64{saved.Size, saved.Size + 1} {
		opened, err := cache.OpenTail(t.Context(), from, "done", size, 1)
		if size == saved.Size && (err != nil || opened.Size() != size) || size != saved.Size && !errors.Is(err, cache.ErrMiss) {
			t.Errorf("the last byte of %d: %v", size, err)
		}
	}
	if other, err := cache.OpenTail(t.Context(), from, saved.Key, saved.Size, 1); err != nil || other.Size() != saved.Size {
		t.Errorf("another pack: %v", err)
	}
	opened, err := from.Open(t.Context(), "done")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Range(t.Context(), 1, saved.Size); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("beyond its end: %v", err)
	}
	if _, err := from.Open(t.Context(), saved.Key); err != nil {
		t.Errorf("another pack: %v", err)
	}
	// It is in no cache under a key of its own, so that the next hand-over has to have it.
	e.took(ix.Packs, place)
	if len(e.exchanged) > 0 || !e.others[found.Index.Records[0].Path] {
		t.Errorf("%v, %v", e.exchanged, e.others)
	}
	own := &EntryCache{small: map[string]bool{found.Index.Records[0].Path: true}, others: map[string]bool{}}
	if own.took(ix.Packs, place); len(own.others) > 0 {
		t.Errorf("it has given it itself, so that others do not save it: %v", own.others)
	}
	if _, err := read("another", place); err == nil || !strings.Contains(err.Error(), "does not name the pack") {
		t.Errorf("a pack that is not named: %v", err)
	}
	short := place
	short.Size--
	if _, err := read("nowhere", short); err == nil || !strings.Contains(err.Error(), "the pack that comes with it has") {
		t.Errorf("truncated: %v", err)
	}
	from.places["done"] = short
	if _, err := from.Open(t.Context(), "done"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("replaced since: %v", err)
	}
}

// saveChunks puts a pack of chunks with one path, a file with a content, into a cache.
func saveChunks(t *testing.T, c cache.Cache, known *pack.Known, name, content string) *storecache.Pack {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var dumped, export, packed bytes.Buffer
	if err := nar.Dump(&dumped, file); err != nil {
		t.Fatal(err)
	}
	rec := pack.Record{Path: "/nix/store/0123456789abcdfghijklmnpqrsvwx" + name + "-" + name, NarHash: sha256.Sum256(dumped.Bytes()), NarSize: int64(dumped.Len())}
	err := errors.Join(nar.WriteRecord(&export, rec.Path, nil, "", func(w io.Writer) error {
		_, err := w.Write(dumped.Bytes())
		return err
	}), nar.WriteEnd(&export))
	if err != nil {
		t.Fatal(err)
	}
	packer := pack.NewPacker(pack.FromExport(&export), []pack.Record{rec}, func(string) bool { return false }, known, nil)
	defer packer.Close()
	summary, err := packer.Next(&packed, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(t.Context(), name, bytes.NewReader(packed.Bytes()), summary.Size); err != nil {
		t.Fatal(err)
	}
	found, err := storecache.FindPack(t.Context(), c, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The document of a hand-over names its packs, and those of earlier runs that these lean on.
func TestHandoverLeans(t *testing.T) {
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("a content that is in two paths ", 1000)
	known := pack.NewKnown()
	base := saveChunks(t, c, known, "ba", content)
	fresh := saveChunks(t, c, known, "fr", content)
	e := &EntryCache{cache: &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix"}, Log: quiet{}}}
	outputs := []string{fresh.Index.Records[0].Path}
	document, err := e.document(t.Context(), storecache.NewIndex(base).In(c, nil), outputs, []*storecache.Pack{fresh})
	if err != nil {
		t.Fatal(err)
	}
	ix, err := e.read(t.Context(), &Handover{Done: &job.Done{Index: document}, Outputs: outputs}, c, func(path string) bool { return path == outputs[0] })
	if err != nil || len(ix.Packs) != 2 || !ix.Has(outputs[0]) || ix.Has(base.Index.Records[0].Path) {
		t.Errorf("%+v, %v", ix, err)
	}
}
