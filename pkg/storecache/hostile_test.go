package storecache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/org/nix-matrix/pkg/pack"

	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

// narWords returns strings as they are encoded in a NAR.
func narWords(all ...string) string {
	var b []byte
	for _, s := range all {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(append(b, s...), make([]byte, (8-len(s)%8)%8)...)
	}
	return string(b)
}

func narFile(content string) string {
	return narWords("(", "type", "regular", "contents", content, ")")
}
func narLink(target string) string {
	return narWords("(", "type", "symlink", "target", target, ")")
}

// narDir returns a directory of names and nodes, given in turn.
func narDir(entries ...string) string {
	all := narWords("(", "type", "directory")
	for i := 0; i < len(entries); i += 2 {
		all += narWords("entry", "(", "name", entries[i], "node") + entries[i+1] + narWords(")")
	}
	return all + narWords(")")
}

// hostileNARs are NARs that must not be unpacked.
func hostileNARs() map[string]string {
	deep := ""
	for range 20_000 {
		deep += narWords("(", "type", "directory", "entry", "(", "name", "d", "node")
	}
	lying := []byte(narFile("four"))
	binary.LittleEndian.PutUint64(lying[bytes.Index(lying, []byte("four"))-8:], 1<<62)
	return map[string]string{
		"parent":         narDir("..", narFile("evil")),
		"itself":         narDir(".", narFile("evil")),
		"slash":          narDir("../../../evil", narFile("evil")),
		"absolute":       narDir("/evil", narFile("evil")),
		"NUL":            narDir("a\x00b", narFile("evil")),
		"empty name":     narDir("", narFile("evil")),
		"unsorted":       narDir("b", narFile("evil"), "a", narFile("evil")),
		"repeated":       narDir("a", narFile("evil"), "a", narFile("evil")),
		"through a link": narDir("a", narLink("/tmp"), "a", narDir("evil", narFile("evil"))),
		"lying length":   string(lying),
		"cut off":        narFile("evil")[:40],
		"deep":           deep,
		"nothing":        "",
		"unknown type":   narWords("(", "type", "device", ")"),
	}
}

// packOfNARs returns a pack of any NARs, with a matching index.
func packOfNARs(t *testing.T, key string, paths []string, nars []string) (*Pack, []byte) {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	type record struct {
		H string `json:"h"`
		N int    `json:"n"`
		F int    `json:"f"`
		O int    `json:"o"`
	}
	var packed []byte
	var records []record
	var frames [][3]int
	for i, nar := range nars {
		nar = narWords("nix-archive-1") + nar
		plain := binary.LittleEndian.AppendUint64(nil, 1)
		plain = append(plain, nar...)
		frame := enc.EncodeAll(plain, nil)
		frames = append(frames, [3]int{len(packed), len(frame), len(plain)})
		packed = append(packed, frame...)
		records = append(records, record{H: fmt.Sprintf("%x", sha256.Sum256([]byte(nar))), N: len(nar), F: i})
	}
	doc, err := json.Marshal(map[string]any{"version": 1, "paths": paths, "records": records, "frames": frames})
	must(t, err)
	var ix pack.Index
	must(t, json.Unmarshal(doc, &ix))
	return newPack(key, int64(len(packed)), &ix), packed
}

// An attacker who may write to the cache can put any bytes into a pack: no engine restores
// malformed NARs, and no other path is affected.
func TestHostilePacks(t *testing.T) {
	n := nixtest.Newest(t)
	for name, nar := range hostileNARs() {
		for engine, e := range engines(t, n) {
			outside := filepath.Join(os.TempDir(), "evil")
			nixtest.UseMemory(t, "")
			evil, good := pathOf("evil"), pathOf("good")
			p, data := packOfNARs(t, "pack", []string{good, evil}, []string{narFile("good"), nar})
			c := open(t)
			must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
			r := &Restorer{Nix: n, Engine: e, Cache: c, Index: NewIndex(p)}
			if _, err := r.Restore(t.Context(), good, evil); err == nil {
				t.Errorf("%s, %s: it was restored", name, engine)
			}
			valid, err := n.Valid(t.Context(), good, evil)
			must(t, err)
			if valid[evil] {
				t.Errorf("%s, %s: it is valid", name, engine)
			}
			if _, err := os.Lstat(outside); err == nil {
				t.Errorf("%s, %s: it got out", name, engine)
			}
			nixtest.Verify(t)
			if _, err := r.Restore(t.Context(), good); err != nil {
				t.Errorf("%s, %s: a good path: %v", name, engine, err)
			}
			if names := nixtest.InStore(t); engine == "direct" && strings.Join(names, " ") != filepath.Base(good) {
				t.Errorf("%s, %s: the store has %q", name, engine, names)
			}
		}
	}
}
