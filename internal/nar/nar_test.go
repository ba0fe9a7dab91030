package nar

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive returns a NAR whose root is node.
func archive(node string) string { return wMagic + node }

func file(content string) string {
	return words("(", "type", "regular", "contents", content, ")")
}

func program(content string) string {
	return words("(", "type", "regular", "executable", "", "contents", content, ")")
}

func link(target string) string { return words("(", "type", "symlink", "target", target, ")") }

func entry(name, node string) string {
	return words("entry", "(", "name", name, "node") + node + words(")")
}

func dir(entries ...string) string {
	return words("(", "type", "directory") + strings.Join(entries, "") + words(")")
}

func nested(depth int, name, inner string) string {
	start := words("(", "type", "directory", "entry", "(", "name", name, "node")
	return strings.Repeat(start, depth) + inner + strings.Repeat(words(")", ")"), depth)
}

// odd has nodes that Nix allows and that are rare.
var odd = archive(dir(
	entry("\x01\xff not UTF-8", file("x")),
	entry("A", file("upper")),
	entry("a", file("lower")),
	entry("a\n", link("/nowhere\n\xff")),
	entry("a ", dir()),
	entry("a.b", nested(60, "d", file(strings.Repeat("deep", 100_000)))),
	entry("b", program("#!/bin/sh\n")),
	entry("c", program("")),
	entry("e", file("")),
	entry("f", file(strings.Repeat("12345678", 100_000))),
	entry("l", link(strings.Repeat("l", maxTarget))),
	entry(strings.Repeat("n", maxName), dir(entry("...", link("..")))),
))

// good are valid NARs.
var good = []string{
	odd, archive(file("")), archive(file("1234567")), archive(program("12345678")), archive(link("t")), archive(dir()),
	archive(dir(entry("a", dir(entry("a", file("x")))), entry("b", link("a/../../..")))),
}

// bad are malformed NARs by their fault.
var bad = map[string]string{
	"nothing":               "",
	"magic":                 words("nix-archive-2") + file(""),
	"no root":               wMagic,
	"two roots":             archive(file("") + file("")),
	"trailing zeros":        archive(file("")) + "\x00\x00\x00\x00\x00\x00\x00\x00",
	"trailing byte":         archive(file("")) + "x",
	"unknown type":          archive(words("(", "type", "fifo", ")")),
	"no type":               archive(words("(", ")")),
	"type twice":            archive(words("(", "type", "regular", "type", "regular", "contents", "", ")")),
	"no contents":           archive(words("(", "type", "regular", ")")),
	"contents twice":        archive(words("(", "type", "regular", "contents", "a", "contents", "b", ")")),
	"executable after":      archive(words("(", "type", "regular", "contents", "a", "executable", "", ")")),
	"executable with value": archive(words("(", "type", "regular", "executable", "1", "contents", "a", ")")),
	"executable twice":      archive(words("(", "type", "regular", "executable", "", "executable", "", "contents", "a", ")")),
	"unknown field":         archive(words("(", "type", "regular", "mtime", "1", "contents", "a", ")")),
	"target of a file":      archive(words("(", "type", "regular", "target", "a", ")")),
	"contents of a link":    archive(words("(", "type", "symlink", "contents", "a", ")")),
	"contents of a dir":     archive(words("(", "type", "directory", "contents", "a", ")")),
	"link without target":   archive(words("(", "type", "symlink", ")")),
	"link to nothing":       archive(link("")),
	"link with NUL":         archive(link("a\x00b")),
	"long link":             archive(link(strings.Repeat("l", maxTarget+1))),
	"empty name":            archive(dir(entry("", file("")))),
	"dot":                   archive(dir(entry(".", file("")))),
	"dots":                  archive(dir(entry("..", file("")))),
	"dots as a dir":         archive(dir(entry("..", dir(entry("outside", file("")))))),
	"slash":                 archive(dir(entry("a/b", file("")))),
	"absolute":              archive(dir(entry("/tmp/outside", file("")))),
	"slash behind a link":   archive(dir(entry("a", link("..")), entry("a/outside", file("")))),
	"link as a parent":      archive(dir(entry("a", link("..")), entry("a", dir(entry("outside", file("")))))),
	"NUL":                   archive(dir(entry("a\x00", file("")))),
	"long name":             archive(dir(entry(strings.Repeat("n", maxName+1), file("")))),
	"unsorted":              archive(dir(entry("b", file("")), entry("a", file("")))),
	"unsorted case":         archive(dir(entry("a", file("")), entry("B", file("")))),
	"repeated":              archive(dir(entry("a", file("")), entry("a", file("")))),
	"repeated link":         archive(dir(entry("a", link("../outside")), entry("a", file("")))),
	"no name":               archive(dir(words("entry", "(", "node") + file("") + words(")"))),
	"node before name":      archive(dir(words("entry", "(", "node") + file("") + words("name", "a", ")"))),
	"no node":               archive(dir(words("entry", "(", "name", "a", ")"))),
	"two nodes":             archive(dir(words("entry", "(", "name", "a", "node") + file("") + words("node") + file("") + words(")"))),
	"padding of a name":     strings.Replace(archive(dir(entry("abc", file("")))), "abc\x00", "abc\x01", 1),
	"padding of contents":   strings.Replace(archive(file("abc")), "abc\x00", "abc\x01", 1),
	"padding of a target":   strings.Replace(archive(link("abc")), "abc\x00", "abc\x01", 1),
	"padding of a word":     strings.Replace(archive(file("")), "type\x00", "type\x01", 1),
	"endless depth":         wMagic + strings.Repeat(words("(", "type", "directory", "entry", "(", "name", "d", "node"), 1<<16),
	"too deep":              archive(nested(maxDepth+1, "d", file(""))),
	"too long a path":       archive(nested(maxPath/(maxName+1)+1, strings.Repeat("n", maxName), file(""))),
	"a file beyond the end": wMagic + words("(", "type", "regular", "contents") + "\x00\x00\x00\x00\x00\x00\x00\x01" + "contents",
	"a negative length":     wMagic + words("(", "type", "regular", "contents") + "\x00\x00\x00\x00\x00\x00\x00\xff" + "contents",
	"the largest length":    wMagic + words("(", "type", "regular", "contents") + "\xff\xff\xff\xff\xff\xff\xff\xff" + "contents",
	"a name without end":    wMagic + words("(", "type", "directory", "entry", "(", "name") + "\xf8\xff\xff\xff\xff\xff\xff\xff",
	"a short length":        strings.Replace(archive(file("12345678")), "\x08\x00\x00\x00\x00\x00\x00\x00"+"12345678", "\x00\x00\x00\x00\x00\x00\x00\x00"+"12345678", 1),
	"a long length":         strings.Replace(archive(file("12345678")), "\x08\x00\x00\x00\x00\x00\x00\x00"+"12345678", "\x10\x00\x00\x00\x00\x00\x00\x00"+"12345678", 1),
}

// unpacker writes files in other goroutines than the test's, if it can.
var unpacker = &Unpacker{Parallel: 4}

// descriptors returns how many are open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(entries)
}

// unpack unpacks into an empty directory, lists that, and checks that nothing outside has
// changed.
func unpack(t testing.TB, r io.Reader, size int) (root string, err error) {
	t.Helper()
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "witness"), nil, 0o600))
	inside := filepath.Join(outside, "inside")
	must(t, os.Mkdir(inside, 0o700))
	t.Cleanup(func() {
		d, err := os.Open(inside)
		must(t, err)
		defer d.Close()
		must(t, Remove(int(d.Fd()), "root"))
	})
	d, err := os.Open(inside)
	must(t, err)
	defer d.Close()
	err = unpacker.Unpack(r, int64(size), int(d.Fd()), "root")
	if left := list(t, outside); left != "inside witness" {
		t.Errorf("outside there is %s", left)
	}
	left := list(t, inside)
	if err != nil && left != "" || err == nil && left != "root" {
		t.Errorf("there is %q after %v", left, err)
	}
	return filepath.Join(inside, "root"), err
}

func list(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return strings.Join(names, " ")
}

func dump(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	must(t, Dump(&b, path))
	return b.String()
}

func differ(a, b string) string {
	if a == b {
		return ""
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("byte %d: %q, %q", i, a[i:min(i+40, len(a))], b[i:min(i+40, len(b))])
		}
	}
	return fmt.Sprintf("%d and %d bytes", len(a), len(b))
}

// In whatever pieces a NAR is read, the unpacked files have the same NAR.
func TestUnpack(t *testing.T) {
	for _, nar := range good {
		for name, read := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "data with EOF": iotest.DataErrReader, "halves": iotest.HalfReader,
		} {
			root, err := unpack(t, read(strings.NewReader(nar)), len(nar))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := differ(nar, dump(t, root)); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// Modes and times are those of store paths with any umask.
func TestMetadata(t *testing.T) {
	for _, umask := range []int{0o022, 0o077, 0} {
		old := unix.Umask(umask)
		root, err := unpack(t, strings.NewReader(odd), len(odd))
		unix.Umask(old)
		must(t, err)
		seen := map[fs.FileMode]int{}
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if !info.ModTime().Equal(time.Unix(1, 0)) {
				t.Errorf("%s is of %v", path, info.ModTime())
			}
			mode := info.Mode()
			if mode&fs.ModeSymlink != 0 {
				mode = fs.ModeSymlink
			}
			seen[mode]++
			return nil
		}))
		if len(seen) != 4 || seen[0o444] != 6 || seen[0o555] != 2 || seen[0o555|fs.ModeDir] != 63 || seen[fs.ModeSymlink] != 3 {
			t.Errorf("umask %03o: %v", umask, seen)
		}
	}
}

func TestBad(t *testing.T) {
	for name, nar := range bad {
		_, err := unpack(t, strings.NewReader(nar), len(nar))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		// The same without a known size: a stream in which other bytes follow.
		err = Copy(io.Discard, bufio.NewReader(strings.NewReader(nar+"more")))
		wrong := err != nil
		if trailing := strings.HasPrefix(nar, archive(file(""))); wrong == trailing {
			t.Errorf("copy %s: %v", name, err)
		}
	}
}

// It is an error if a NAR is cut anywhere, or its reader fails.
func TestCut(t *testing.T) {
	nar := good[len(good)-1]
	boom := errors.New("boom")
	for n := 0; n < len(nar); n += 7 {
		if _, err := unpack(t, strings.NewReader(nar[:n]), len(nar)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := unpack(t, strings.NewReader(nar[:n]), n); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of a smaller NAR: %v", n, err)
		}
		if _, err := unpack(t, io.MultiReader(strings.NewReader(nar[:n]), iotest.ErrReader(boom)), len(nar)); !errors.Is(err, boom) {
			t.Errorf("an error after %d bytes: %v", n, err)
		}
	}
	if _, err := unpack(t, io.MultiReader(strings.NewReader(nar), iotest.ErrReader(boom)), len(nar)); !errors.Is(err, boom) {
		t.Errorf("an error at the end: %v", err)
	}
	if _, err := unpack(t, strings.NewReader(nar), len(nar)+1); !errors.Is(err, ErrMalformed) {
		t.Errorf("a NAR that is too short: %v", err)
	}
}

// Existing files stay, above all symlinks.
func TestUnpackReplacesNothing(t *testing.T) {
	for name, before := range map[string]func(string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte("before"), 0o600) },
		"dir":     func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink": func(path string) error { return os.Symlink("../outside", path) },
	} {
		for _, nar := range good {
			dir := t.TempDir()
			must(t, before(filepath.Join(dir, "root")))
			was := dump(t, dir)
			d, err := os.Open(dir)
			must(t, err)
			if err := unpacker.Unpack(strings.NewReader(nar), int64(len(nar)), int(d.Fd()), "root"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v", name, err)
			}
			_ = d.Close()
			if diff := differ(was, dump(t, dir)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}
}

// No descriptor is left open, and deep nesting needs little memory.
func TestUnpackLeavesNothingOpen(t *testing.T) {
	_, _ = unpack(t, strings.NewReader(odd), len(odd))
	before := descriptors(t)
	for range 3 {
		for _, nar := range []string{odd, odd[:len(odd)/2], bad["endless depth"]} {
			_, _ = unpack(t, strings.NewReader(nar), len(nar))
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	endless := io.MultiReader(strings.NewReader(wMagic), &repeated{text: words("(", "type", "directory", "entry", "(", "name", "d", "node")})
	if _, err := unpack(t, endless, 1<<40); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	runtime.ReadMemStats(&end)
	if used := end.TotalAlloc - start.TotalAlloc; used > 8<<20 {
		t.Errorf("it took %d bytes", used)
	}
}

// repeated is a reader that repeats a text forever.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

// Copy copies the NAR's bytes and reads nothing after them.
func TestCopy(t *testing.T) {
	for _, nar := range good {
		r := bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(nar+"more")), MinBuffer)
		var to bytes.Buffer
		must(t, Copy(&to, r))
		if diff := differ(nar, to.String()); diff != "" {
			t.Error(diff)
		}
		if rest, err := io.ReadAll(r); string(rest) != "more" || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}
	boom := errors.New("boom")
	r := bufio.NewReader(strings.NewReader(odd))
	if err := Copy(broken{boom}, r); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if err := Copy(io.Discard, bufio.NewReaderSize(strings.NewReader(odd), MinBuffer-1)); err == nil {
		t.Error("a small buffer is taken")
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestContent(t *testing.T) {
	for nar, want := range map[string]string{
		archive(file("")): "", archive(file("a")): "a", archive(program(strings.Repeat("x", 1<<20))): strings.Repeat("x", 1<<20),
	} {
		if got, err := Content([]byte(nar)); string(got) != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, nar := range []string{archive(dir(entry("a", file("x")))), archive(link("x")), archive(file("x")) + "x", ""} {
		if got, err := Content([]byte(nar)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// Dump's error names the file that it can't write.
func TestDumpFails(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if err := Dump(io.Discard, dir); err == nil || !strings.Contains(err.Error(), "fifo: neither a file") {
		t.Error(err)
	}
	if err := Dump(io.Discard, filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	boom := errors.New("boom")
	if err := Dump(broken{boom}, "/proc/self/exe"); err != nil { // a symlink, and small
		if !errors.Is(err, boom) {
			t.Error(err)
		}
	} else {
		t.Error("the writer's error was lost")
	}
}
