package reuse

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
)

// The document of a hand-over may name no path that the Plan does not, must be whole, and must be
// sealed with the key of the run. Nothing of it is read otherwise.
func TestHandoverDocument(t *testing.T) {
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	saved := savePack(t, c, "kernel")
	found, err := storecache.FindPack(t.Context(), c, saved.Key, nil)
	if err != nil {
		t.Fatal(err)
	}
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
		got, err := e.read(&Handover{Document: test.document, Outputs: storecache.NewIndex(found).Paths()}, test.named)
		switch {
		case want == "" && (err != nil || len(got.Paths()) != 1):
			t.Errorf("%v, %v", got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %q", err, want)
		}
	}
}
