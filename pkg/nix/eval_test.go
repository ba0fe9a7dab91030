package nix

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEval(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		flake := `{ outputs = _: { a.b = "x\ny"; packages = throw "tried a prefix"; }; }`
		if !n.EvaluatesWholeFlakes() {
			flake = `{ outputs = _: { a.b = "x\ny"; }; }`
		}
		if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(flake), 0o600); err != nil {
			t.Fatal(err)
		}
		const apply = "v: builtins.trace (builtins.toJSON v) null"
		for what, test := range map[string]struct {
			eval Evaluation
			want string
		}{
			"an expression":       {Evaluation{Expr: "{ a = 1; } # comment", Apply: apply}, `trace: {"a":1}`},
			"an impure one":       {Evaluation{Expr: `builtins.getEnv "HOME" != ""`, Apply: apply}, "trace: true"},
			"a flake's attribute": {Evaluation{Flake: dir, Attr: "a.b", Apply: apply}, `trace: "x\ny"`},
		} {
			lines, err := eval(t, n, test.eval)
			if err != nil || !slices.Contains(lines, test.want) {
				t.Errorf("%s: %q, %v", what, lines, err)
			}
		}
		if n.EvaluatesWholeFlakes() {
			lines, err := eval(t, n, Evaluation{Flake: dir, Apply: "v: builtins.trace (builtins.attrNames v.a) null"})
			if err != nil || !slices.Contains(lines, `trace: [ "b" ]`) {
				t.Errorf("a whole flake: %q, %v", lines, err)
			}
		}
		lines, err := eval(t, n, Evaluation{Expr: `builtins.trace "before" (throw "boom")`, Apply: apply})
		if err == nil || !strings.Contains(err.Error(), "boom") || !slices.Contains(lines, "trace: before") {
			t.Errorf("a failure: %q, %v", lines, err)
		}
	})
}

func eval(t *testing.T, n *Nix, e Evaluation) (lines []string, err error) {
	t.Helper()
	err = n.Eval(t.Context(), e, func(line string) bool { lines = append(lines, line); return false })
	return lines, err
}

func TestLineWriter(t *testing.T) {
	const text = "a\n\nbc\r\n::d\n"
	for size := 1; size <= len(text); size++ {
		var got []string
		w := &lineWriter{line: func(line string) { got = append(got, line) }}
		for piece := range slices.Chunk([]byte(text+"unfinished"), size) {
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if diff := cmp.Diff([]string{"a", "", "bc\r", "::d"}, got); diff != "" {
			t.Errorf("in pieces of %d:\n%s", size, diff)
		}
	}
}

// A long line keeps its beginning and its end, which another program may have written.
func TestLineWriterLongLines(t *testing.T) {
	for _, size := range []int{0, headOfLine, maxLine, headOfLine + maxLine, headOfLine + maxLine + 1, 3 * maxLine, 10<<20 + 7} {
		text := "begin" + strings.Repeat("x", size) + "end"
		for _, piece := range []int{1 << 10, 64 << 10, len(text)} {
			var got []string
			most := 0
			w := &lineWriter{line: func(line string) { got = append(got, line) }}
			for piece := range slices.Chunk([]byte(text+"\nafter\n"), piece) {
				_, _ = w.Write(piece)
				most = max(most, len(w.partly))
			}
			switch {
			case len(got) != 2 || got[1] != "after":
				t.Fatalf("%d bytes in pieces of %d: %d lines", len(text), piece, len(got))
			case len(text) <= maxLine && got[0] != text:
				t.Errorf("%d bytes in pieces of %d are %d", len(text), piece, len(got[0]))
			case len(got[0]) < min(len(text), maxLine), len(got[0]) > headOfLine+maxLine:
				t.Errorf("%d bytes in pieces of %d are %d", len(text), piece, len(got[0]))
			case len(got[0]) < len(text) != strings.Contains(got[0], "\x00"):
				t.Errorf("%d bytes in pieces of %d: it does not show that it lacks something", len(text), piece)
			case !strings.HasPrefix(got[0], text[:min(headOfLine, len(text))]) || !strings.HasSuffix(got[0], text[max(0, len(text)-maxLine+1):]):
				t.Errorf("%d bytes in pieces of %d: an end is not kept", len(text), piece)
			}
			if most > headOfLine+2*maxLine {
				t.Errorf("%d bytes in pieces of %d: %d are held", len(text), piece, most)
			}
		}
	}
}
