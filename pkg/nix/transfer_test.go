package nix

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
)

// After Export and Import, another store has the same paths.
func TestExportImport(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		paths, err := n.Requisites(ctx, drvs["needsBoth"], outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		infos, err := n.FullInfo(ctx, paths...)
		if err != nil {
			t.Fatal(err)
		}
		stream := export(t, n, paths)

		testbench.UseStore(t, t.TempDir())
		importStream(t, n, stream)
		again, err := n.FullInfo(ctx, paths...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(infos, again, cmpopts.IgnoreFields(PathInfo{}, "CA", "Signatures", "Ultimate")); diff != "" {
			t.Error(diff)
		}
		if !bytes.Equal(stream, export(t, n, paths)) {
			t.Error("the other store exports another stream")
		}
		if err := n.Export(ctx, io.Discard, []PathInfo{{Path: outs["talks"]}}); err == nil {
			t.Error("an invalid path was exported")
		}
	})
}

func export(t *testing.T, n *Nix, paths []string) []byte {
	t.Helper()
	infos, err := n.FullInfo(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	var ours, theirs bytes.Buffer
	if err := errors.Join(n.Export(t.Context(), &ours, infos), n.export(t.Context(), &theirs, infos)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.Bytes(), theirs.Bytes()) {
		t.Errorf("we export %d bytes, nix-store --export others, %d", ours.Len(), theirs.Len())
	}
	return ours.Bytes()
}

// A composer composes the NAR that it visits, until there is an error.
type composer struct {
	*nar.Composer
	all  []byte
	room []byte
	fail map[nar.Kind]error
}

func (c *composer) Node(n nar.Node) (err error) {
	if err := c.fail[n.Kind]; err != nil {
		return err
	}
	c.all, err = c.Append(c.all, n)
	return err
}

func (c *composer) Room(most int64) ([]byte, error) {
	c.room = make([]byte, most)
	return c.room, nil
}

func (c *composer) Filled(n int) error {
	c.all = append(c.all, c.room[:n]...)
	return nil
}

// A walk has the bytes of the NAR. Its error is the visitor's, the context's or a *PathError.
func TestWalk(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		for _, path := range []string{drvs["needsBoth"], outs["second"]} {
			c := &composer{Composer: nar.NewComposer()}
			if err := n.Walk(t.Context(), path, c); err != nil {
				t.Fatal(err)
			}
			got, err := c.Finish(c.all)
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := n.dump(t.Context(), &want, path); err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s: %d bytes instead of %d, %v", path, len(got), want.Len(), err)
			}
		}
		boom := errors.New("boom")
		var bad *PathError
		failing := &composer{Composer: nar.NewComposer(), fail: map[nar.Kind]error{nar.File: boom}}
		if err := n.Walk(t.Context(), drvs["second"], failing); !errors.Is(err, boom) || errors.As(err, &bad) {
			t.Errorf("the visitor fails: %v", err)
		}
		if err := n.Walk(t.Context(), outs["talks"], &composer{Composer: nar.NewComposer()}); !errors.As(err, &bad) || bad.Path != outs["talks"] {
			t.Errorf("a path that is not there: %v", err)
		}
		ended, end := context.WithCancelCause(t.Context())
		end(boom)
		if err := n.Walk(ended, drvs["second"], &composer{Composer: nar.NewComposer()}); !errors.Is(err, boom) || errors.As(err, &bad) {
			t.Errorf("the context has ended: %v", err)
		}
	})
}

// importStream imports the output of Export with Nix itself.
func importStream(t *testing.T, n *Nix, stream []byte) {
	t.Helper()
	cmd := n.command(t.Context(), "nix-store", raw("--import"))
	cmd.Stdin = bytes.NewReader(stream)
	if err := n.run(cmd); err != nil {
		t.Fatal(err)
	}
}

// More paths than fit on one command line make one stream.
func TestExportImportMany(t *testing.T) {
	var stream []byte
	var paths []string
	for i := range 2100 {
		path := fmt.Sprintf("/nix/store/%032d-x", i)
		paths = append(paths, path)
		stream = append(stream, exported(path, fmt.Sprint(i))...)
	}
	stream = binary.LittleEndian.AppendUint64(stream, 0)
	eachNix(t, func(t *testing.T, n *Nix) {
		importStream(t, n, stream)
		if !bytes.Equal(stream, export(t, n, paths)) {
			t.Error("the exported stream differs from the imported one")
		}
		valid, err := n.Valid(t.Context(), slices.Concat(paths, []string{"/nix/store/" + strings.Repeat("1", 32) + "-x"})...)
		if err != nil {
			t.Fatal(err)
		}
		infos, err := n.FullInfo(t.Context(), paths...)
		if err != nil {
			t.Fatal(err)
		}
		closure, err := n.Requisites(t.Context(), append(slices.Clip(paths), paths[0])...)
		if err != nil {
			t.Fatal(err)
		}
		if len(valid) != len(paths) || len(infos) != len(paths) || len(closure) != len(paths) || infos[2099].Path != paths[2099] {
			t.Errorf("%d are valid, %d infos, a closure of %d", len(valid), len(infos), len(closure))
		}
	})
}

// exported returns the record of a file in an export stream.
func exported(path, content string) []byte {
	var b []byte
	number := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	text := func(all ...string) {
		for _, s := range all {
			number(uint64(len(s)))
			b = append(b, s...)
			b = append(b, make([]byte, -len(s)&7)...)
		}
	}
	number(1)
	text("nix-archive-1", "(", "type", "regular", "contents", content, ")")
	number(0x4558494e)
	text(path)
	number(0) // references
	text("")  // deriver
	number(0) // signature
	return b
}

func TestCopy(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		dir := t.TempDir()
		for _, want := range []Traffic{{2, 288}, {}} { // the second time, nothing is missing
			if sent, err := n.Copy(t.Context(), "file://"+dir, []string{outs["second"]}); err != nil || sent != want {
				t.Errorf("sent %+v, want %+v: %v", sent, want, err)
			}
		}
		store := t.TempDir() // for which nix copy prints no sizes
		if sent, err := n.WithOptions(Set("require-sigs", "false")).Copy(t.Context(), "local?root="+store, []string{outs["second"]}); sent != (Traffic{Paths: 2}) {
			t.Errorf("sent %+v to another store: %v", sent, err)
		}
		for _, path := range []string{outs["second"], outs["fetched"]} {
			name, _, _ := strings.Cut(filepath.Base(path), "-")
			if _, err := os.Stat(filepath.Join(dir, name+".narinfo")); err != nil {
				t.Error(err)
			}
		}
		_, err := n.Copy(t.Context(), "http://user:s3%20cr3t@127.0.0.1:1?compression=none", []string{outs["second"]})
		if err == nil || strings.Contains(err.Error(), "cr3t") || !strings.Contains(err.Error(), "cannot copy to http://user:xxxxx@127.0.0.1:1") {
			t.Errorf("got %v", err)
		}
	})
}
