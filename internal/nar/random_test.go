package nar

import (
	"bufio"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// An accepted NAR is one that Dump would write, and nothing is left of others.
func check(t testing.TB, nar string) {
	t.Helper()
	root, err := unpack(t, strings.NewReader(nar), len(nar))
	var copied strings.Builder
	copyErr := Copy(&copied, bufio.NewReaderSize(strings.NewReader(nar), MinBuffer))
	if (err == nil) != (copyErr == nil && copied.Len() == len(nar)) {
		t.Errorf("unpack: %v, copy: %v", err, copyErr)
	}
	var recomposed strings.Builder
	if err := recompose(&recomposed, bufio.NewReaderSize(strings.NewReader(nar), MinBuffer)); (err == nil) != (copyErr == nil) {
		t.Errorf("recompose: %v, copy: %v", err, copyErr)
	} else if diff := differ(copied.String(), recomposed.String()); err == nil && diff != "" {
		t.Error("recomposed: ", diff)
	}
	if err == nil {
		if diff := differ(nar, dump(t, root)); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, nar := range good[1:] {
		f.Add([]byte(nar))
	}
	for _, nar := range bad {
		if len(nar) < 1<<12 {
			f.Add([]byte(nar))
		}
	}
	f.Fuzz(func(t *testing.T, nar []byte) { check(t, string(nar)) })
}

// Random words and changed bytes are rarely a NAR.
func TestRandom(t *testing.T) {
	r := testbench.Random(t)
	parts := []string{wNode, wRegular, wExecutable, wContents, wDirectory, wEntry, wNodeStart, wSymlink, wEnd, wMagic,
		words("a"), words("b"), words(".."), words("a/b"), words(""), file("x"), dir(), link("..")}
	for range 2000 {
		nar := []byte(good[1+r.IntN(len(good)-1)])
		for range 1 + r.IntN(3) {
			at := r.IntN(len(nar) + 1)
			switch r.IntN(4) {
			case 0:
				nar[at%len(nar)] ^= byte(1 << r.IntN(8))
			case 1:
				nar = append(nar[:at:at], append([]byte(parts[r.IntN(len(parts))]), nar[at:]...)...)
			case 2: // at a border of words
				at -= at % 8
				nar = append(nar[:at:at], append([]byte(parts[r.IntN(len(parts))]), nar[at:]...)...)
			case 3:
				at -= at % 8
				nar = append(nar[:at:at], nar[min(at+8*r.IntN(5), len(nar)):]...)
			}
			if len(nar) == 0 {
				break
			}
		}
		check(t, string(nar))
		if t.Failed() {
			t.Fatalf("%q", nar)
		}
	}
}
