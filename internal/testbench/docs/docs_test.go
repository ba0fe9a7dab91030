package docs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const source = "# It's a `--flag`, as of 1.2\n\nA [link](to.md#there) with `code\nin it`.\n\n| a |\n|---|\n| ![image](x.png) `cell` |\n\n- in a list:\n\n  ```yaml\n  a: b\n  ```\n"
	got := Parse([]byte(source))
	want := &Page{
		Blocks: []Block{{"yaml", "a: b\n"}}, Spans: []string{"--flag", "code in it", "cell"},
		Links: []string{"to.md#there", "x.png"}, Titles: []string{"It's a --flag, as of 1.2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"its-a---flag-as-of-12"}, got.Anchors()); diff != "" {
		t.Error(diff)
	}
}
