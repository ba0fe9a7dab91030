package realise

import (
	"io/fs"
	"strings"
	"testing"
)

func TestPosition(t *testing.T) {
	const source = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-source/"
	for _, test := range []struct {
		log  string
		file string
		line int
	}{
		{"", "", 0},
		{"make: *** [Makefile:12: all] Error 2", "", 0},

		// compilers
		{"src/a.c:12:5: error: expected ';'", "src/a.c", 12},
		{"src/a.c:12: error: expected ';'", "src/a.c", 12},
		{"  src/a.c:12:5: fatal error: b.h: No such file or directory", "src/a.c", 12},
		{"src/Main.hs:10:5: error: [GHC-88464]", "src/Main.hs", 10},
		{"Foo.java:3: error: cannot find symbol", "Foo.java", 3},
		{"tests/test_a.py:12: AssertionError", "tests/test_a.py", 12},
		{"[3/7] src/a.cc:12:5: error: no", "src/a.cc", 12},
		{"./cmd/main.go:12:5: undefined: x", "cmd/main.go", 12},
		{`  File "x.py", line 12, in <module>`, "x.py", 12},
		{`  File "/build/source/a b/x.py", line 12`, "a b/x.py", 12},
		{"error[E0425]: cannot find value\n  --> src/main.rs:10:5\n   |", "src/main.rs", 10},
		{"error: undefined variable 'x'\n       at " + source + "hosts/foo.nix:3:1:", "hosts/foo.nix", 3},
		{"at " + source + "foo.nix:3:1", "foo.nix", 3},

		// no errors
		{"src/a.c:12:5: warning: unused", "", 0},
		{"src/a.c:12:5: note: expanded here", "", 0},
		{"src/a.c:12:5: errors are fine", "", 0},
		{"error[E1]: a\n  --> src/a.rs:1:1\nwarning: unused\n  --> src/b.rs:2:2", "src/a.rs", 1},
		{"https://example.org/a.c:12: error", "", 0},
		{"<stdin>:12:5: error: x", "", 0},
		{"Makefile:12: error", "", 0},

		// the last counts
		{"a.c:1:1: error: x\nb.c:2:2: error: y\nmake: *** [all] Error 1", "b.c", 2},
		{"a.c:1:1: error: x\n/usr/include/b.h:2:2: error: y", "a.c", 1},

		// directories of sources
		{"/build/source/src/a.c:12:5: error: x", "src/a.c", 12},
		{"/build/nginx-1.26/src/a.c:12:5: error: x", "src/a.c", 12},
		{"/private/tmp/nix-build-a-1.0.drv-0/source/src/a.c:12:5: error: x", "src/a.c", 12},
		{"/tmp/nix-build-a-1.0.drv-0/a-1.0/src/a.c:12:5: error: x", "src/a.c", 12},
		{"/nix/var/nix/builds/nix-build-a.drv-0/a/src/a.c:12:5: error: x", "src/a.c", 12},
		{source + "src/a.c:12:5: error: x", "src/a.c", 12},
		{"source/src/a.c:12:5: error: x", "src/a.c", 12},
		{"./source/src/./a.c:12:5: error: x", "src/a.c", 12},

		// outside of them
		{"/build/a.c:12:5: error: x", "", 0},
		{"/etc/a.conf:12:5: error: x", "", 0},
		{"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-glibc/include/a.h:1:1: error: x", "", 0},
		{"../a.c:12:5: error: x", "", 0},
		{"a/../../b.c:12:5: error: x", "", 0},
		{"/build/source/../../etc/b.c:12:5: error: x", "", 0},
		{"/build/source//etc/b.c:12:5: error: x", "", 0},
		{"a\x1b[2J.c:12:5: error: x", "", 0},
		{"\u202egnp.c:12:5: error: x", "", 0},
		{`  File "a` + "\r" + `b.py", line 12`, "", 0},
		{"a.c:0:5: error: x", "", 0},
		{"a.c:99999999999999999999: error: x", "", 0},
		{strings.Repeat("a", 2000) + ".c:1: error: x", "", 0},
	} {
		file, line := position(strings.Split(test.log, "\n"))
		if file != test.file || line != test.line {
			t.Errorf("%q is at %q, %d; want %q, %d", test.log, file, line, test.file, test.line)
		}
	}
}

func FuzzPosition(f *testing.F) {
	for _, line := range []string{"src/a.c:12:5: error: x", "/build/source/../a.go:1:1: x", `File "/etc/a.b", line 1`, " --> /a.rs:1:1"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		file, n := position([]string{line})
		if file == "" && n == 0 {
			return
		}
		if n < 1 || file == "." || !fs.ValidPath(file) || strings.ContainsAny(file, "\n\r\x00\x1b") {
			t.Errorf("%q is at %q, %d", line, file, n)
		}
	})
}
