package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nearest"
)

// follow passes lines to a worker as an evaluator would that walks two roots, and returns the
// pool. Lines without a nonce get one.
func follow(t testing.TB, until *position, lines ...string) *pool {
	t.Helper()
	globs, err := readGlobs([]string{"**"}, []string{"a.*"})
	if err != nil {
		t.Fatal(err)
	}
	d := &evaluation{
		o: Options{Workers: 2, Systems: []string{"x86_64-linux"}, Progress: func(string) {}, Counted: func(done, total int) {
			if done < 0 || done > total {
				t.Errorf("%d of %d are done", done, total)
			}
		}},
		host: hostPath(""), globs: globs, hits: map[int]bool{}, seen: map[string]bool{}, lineCounts: map[string]int{},
	}
	p := newPool(d, source{name: ".", flake: ".", roots: []root{{Path: []string{"a"}}, {Path: []string{"b"}}}})
	p.cancel = func() {}
	w := &worker{pool: p, depth: -1, nonce: "NONCE", listing: true, cancel: func(error) {}, lineCounts: map[string]int{}, span: span{until: until}}
	p.workers = []*worker{w}
	for _, line := range lines {
		w.line(line)
	}
	if !slices.IsSortedFunc(p.items, position.compare) {
		t.Errorf("the items are not in order: %v", p.items)
	}
	w.result = errors.New("it died")
	p.workers = []*worker{w}
	p.handleExit(t.Context(), w)
	d.collect(p.source, p.records)
	return p
}

const storeX = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x"

// A short run of the walker.
var told = []string{
	"warning: something",
	`trace: NONCE root {"n":0,"path":["a"]}`,
	`trace: NONCE found {"alive":[],"hits":[0],"path":["a"],"wanted":true}`,
	`trace: NONCE names ["x"]`,
	`trace: NONCE names ["y"]`,
	`trace: NONCE omitted ["o"]`,
	`trace: NONCE others ["z"]`,
	`trace: NONCE unnameable [{"name":"�","problem":"its name is not valid UTF-8"}]`,
	`trace: NONCE entered {"hits":[1],"path":["a"]}`,
	`trace: NONCE listed null`,
	`trace: NONCE root {"n":0,"path":["a"]}`,
	`trace: NONCE found {"alive":[],"hits":[0],"path":["a"],"wanted":true}`,
	`trace: NONCE at {"alive":[],"path":["a","x"],"wanted":true}`,
	`trace: NONCE named {"name":"x-1","path":["a","x"],"system":"x86_64-linux"}`,
	`trace: NONCE target {"drvPath":"` + storeX + `.drv","outPaths":{"out":"` + storeX + `"},"outputs":["out"],"system":"x86_64-linux"}`,
	`trace: NONCE about {"description":["x"],"features":[],"runner":[]}`,
	`trace: NONCE at {"alive":[],"path":["a","y"],"wanted":true}`,
	`trace: NONCE named {"name":"y-1","path":["a","y"],"system":"x86_64-linux"}`,
	`trace: NONCE refused "is marked as broken"`,
	`trace: NONCE unavailable "x:1"`,
	`trace: NONCE root {"n":1,"path":["b"]}`,
	`trace: NONCE omit [0]`,
	`trace: NONCE left [0,1]`,
	"error: something",
}

func TestTrace(t *testing.T) {
	p := follow(t, nil, told...)
	got := fmt.Sprint(summary(&p.Evaluation), p.Omitted, p.items, p.err)
	want := `[other a.x build other a.y skip because it is marked as broken other a.� failed: its name is not valid UTF-8 other b failed: it died] [a.o b] [[0,"x"] [0,"y"] [1]] <nil>`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// One that goes beyond its part is not heard any more.
	p = follow(t, &position{0, []string{"y"}}, told...)
	if got, want := fmt.Sprint(summary(&p.Evaluation)), "[other a.x build other a.� failed: its name is not valid UTF-8]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, lines := range [][]string{
		{`NONCE root {"n":2,"path":[]}`},
		{`NONCE root {"n":-1,"path":[]}`},
		{`NONCE at {"path":["a"]}`}, // before a root
		{told[1], `NONCE at {"path":["a"]}`},
		{told[1], told[2], `NONCE at {"path":[]}`},
		{told[1], told[2], `NONCE entered {"path":[]}`},
		{`NONCE names {}`},
		{`NONCE unnameable [""]`},
		{`NONCE failed {}`},
		{`NONCE passed {}`},
		{`NONCE unavailable {}`},
		{`NONCE nonsense {}`},
		{`NONCE `},
		{`NONCE root`},
		{`NONCE needs []`},
		{`NONCE missing ["x"]`},
	} {
		if p := follow(t, nil, lines...); p.err == nil {
			t.Errorf("%q is no error", lines)
		}
	}
}

// The reader survives any output of an evaluator.
func FuzzTrace(f *testing.F) {
	f.Add(strings.Join(told, "\n"), 0, "x")
	for i := range told {
		f.Add(strings.Join(slices.Delete(slices.Clone(told), i, i+1), "\n"), 1, "")
	}
	f.Add(strings.Join(slices.Concat(told, told), "\n"), 0, "y")
	f.Add(`NONCE about {"description":["`+strings.Repeat("x", 500)+`"]}`, 0, "")
	for _, s := range hostile {
		data, _ := json.Marshal(s) // texts only
		f.Add(strings.ReplaceAll(strings.Join(told, "\n"), storeX, strings.Trim(string(data), `"`)), 0, s)
	}
	f.Fuzz(func(t *testing.T, text string, root int, name string) {
		p := follow(t, &position{root, []string{name}}, strings.Split(text, "\n")...)
		if _, err := json.Marshal(p.Targets); err != nil {
			t.Error(err)
		}
		checkPlan(t, &p.Evaluation)
	})
}

func FuzzGlob(f *testing.F) {
	for _, text := range []string{"a.b", "**.a", `a."b.*".c*`, "***", `""`, "a..b", `"`, ".", "ä*ö"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		globs, err := readGlobs([]string{text}, nil)
		if err != nil {
			return
		}
		if len(globs[0].Rest) == 0 {
			t.Errorf("%q has no segment", text)
		}
		for _, s := range globs[0].Rest {
			if pieces, ok := s.([]string); ok && len(pieces) == 0 {
				t.Errorf("%q has a segment without pieces", text)
			}
		}
		globs[0].mayBeIn("x")
		nearest.Hint(text, []string{"a", text, ""})
	})
}

// Values in the walker's source cannot become code.
func FuzzQuote(f *testing.F) {
	f.Add(`"; ${builtins.abort "x"} ''`)
	f.Add("\\${x}\\\"\n\r")
	f.Fuzz(func(t *testing.T, text string) {
		quoted := quote(text)
		inner := strings.NewReplacer(`\\`, "_", `\"`, "_", `\${`, "_").Replace(quoted[1 : len(quoted)-1])
		if strings.Contains(inner, `"`) || strings.Contains(inner, "${") {
			t.Errorf("%q becomes %s", text, quoted)
		}
	})
}
