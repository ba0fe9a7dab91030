package nix

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
)

// place unpacks NARs into the directory of a store.
func place(t *testing.T, dir string, nars map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for path, data := range nars {
		if err := new(nar.Unpacker).Unpack(bytes.NewReader(data), int64(len(data)), int(d.Fd()), filepath.Base(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// A registered path has the same metadata as before, except the content address.
func TestLoadDB(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		infos, nars, _ := closure(t, n)
		testbench.UseStore(t, t.TempDir())
		local, dir, err := n.Local()
		if err != nil || dir != "/nix/store" {
			t.Fatal(dir, err)
		}
		place(t, dir, nars)
		if err := local.LoadDB(t.Context(), slices.Clone(infos[1:])); err == nil || !strings.Contains(err.Error(), "is not valid") {
			t.Errorf("a reference that is missing: %v", err)
		}
		if isValid(t, n, infos[1].Path) {
			t.Error("some were registered, though not all could be")
		}
		if err := local.LoadDB(t.Context(), infos); err != nil {
			t.Fatal(err)
		}
		d, err := local.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddSignatures(infos); err != nil {
			t.Fatal(err)
		}
		if err := d.AddSignatures(nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		want := slices.Clone(infos)
		for i := range want {
			want[i].CA, want[i].Ultimate = "", false
		}
		got, err := n.FullInfo(t.Context(), paths(infos)...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		verify(t, n)
	})
}

// The first refusal ends the connection with the store's message.
func TestAddSignaturesRefused(t *testing.T) {
	d := talk(t, func(r io.Reader, w io.Writer) {
		var q request
		q.numbers(messageLast, 1)
		_, _ = q.WriteTo(w)
		_, _ = errorMessage("signature is corrupt").WriteTo(w)
		_, _ = io.Copy(io.Discard, r)
	})
	signed := slices.Repeat([]PathInfo{{Path: aPath, Signatures: []string{aKey}}}, 100_000)
	if err := d.AddSignatures(signed); err == nil || err.Error() != "cannot add signatures: signature is corrupt" {
		t.Errorf("got %v", err)
	}
	if err := d.AddSignatures(signed); err == nil {
		t.Error("the connection is still there")
	}
}

// A store below a directory is writable for the owner of the directory.
func TestLocalChroot(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		infos, nars, _ := closure(t, n)
		root := t.TempDir()
		there, err := Find(t.Context(), nil, Config{Conf: "store = " + root})
		if err != nil {
			t.Fatal(err)
		}
		local, dir, err := there.Local()
		if err != nil || dir != filepath.Join(root, "nix/store") {
			t.Fatal(dir, err)
		}
		place(t, dir, nars)
		if err := local.LoadDB(t.Context(), infos); err != nil {
			t.Fatal(err)
		}
		verify(t, local)
		var dumped bytes.Buffer
		if err := there.dump(t.Context(), &dumped, infos[0].Path); err != nil || !bytes.Equal(dumped.Bytes(), nars[infos[0].Path]) {
			t.Errorf("%d bytes, %v", dumped.Len(), err)
		}
		testbench.UseStore(t, t.TempDir()) // which is empty
		if err := there.Export(t.Context(), io.Discard, infos[:1]); err != nil {
			t.Error(err)
		}
	})
}

func TestLocal(t *testing.T) {
	at := func(store string) *Nix {
		value, err := json.Marshal(store)
		if err != nil {
			t.Fatal(err)
		}
		return &Nix{config: map[string]setting{"store": {value}}}
	}
	for store, want := range map[string]string{
		"auto": "local", "daemon": "local", "unix:///socket": "local", "": "local",
		"local": "", "/root": "", "local?root=/root": "", "local:///root": "",
		"auto?root=/root&max-connections=3": "local?root=%2Froot",
	} {
		local, _, err := at(store).Local()
		if err != nil {
			t.Errorf("%s: %v", store, err)
			continue
		}
		got := ""
		if local.options != nil {
			got = local.options[0].value()
		}
		if got != want {
			t.Errorf("%s: the store is %q, want %q", store, got, want)
		}
	}
	for _, store := range []string{"https://cache.example.org", "ssh-ng://host", "dummy://"} {
		if _, _, err := at(store).Local(); err == nil {
			t.Errorf("%s is local", store)
		}
	}
	if _, _, err := at("auto").WithStore("/root").Local(); err == nil {
		t.Error("another machine's store is local")
	}
	for _, store := range []string{"auto", "daemon", "/elsewhere", "local?real=/elsewhere", "ssh-ng://host"} {
		local, dir, err := at(store).WithRoot("/a root+&?").Local()
		if err != nil || dir != "/a root+&?/nix/store" || local.options[0].value() != "local?root=%2Fa%20root%2B%26%3F" {
			t.Errorf("%s with a root: %q, %v", store, dir, err)
		}
	}
	for _, root := range []string{"relative", "-x", "/a\nb"} {
		if _, _, err := at("auto").WithRoot(root).Local(); err == nil {
			t.Errorf("%q is a root", root)
		}
	}
}
