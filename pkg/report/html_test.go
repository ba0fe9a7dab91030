package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/verdict"
)

// measure opens a page in a frame of a width and returns its measurements.
const measure = `<!doctype html><meta charset="utf-8"><pre id="found"></pre>
<iframe id="frame" src="/page" width="%d" height="800" style="border:0"></iframe>
<script>
onload = () => {
  const page = frame.contentDocument, root = page.documentElement, found = {wide: [], cut: []};
  found.width = root.clientWidth;
  found.scroll = root.scrollWidth;
  for (const e of page.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > root.clientWidth + 1 || box.left < -1)) found.wide.push(e.tagName + " " + e.textContent.slice(0, 40));
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) found.cut.push(e.tagName + " " + e.textContent.slice(0, 40));
  }
  found.bars = page.querySelectorAll("svg rect").length;
  found.rows = page.querySelectorAll("tbody tr").length;
  found.styled = getComputedStyle(page.querySelector("header")).borderLeftWidth !== "0px";
  const script = page.createElement("script");
  script.textContent = "document.title = 'ran'";
  page.body.append(script);
  found.scripts = page.title === "ran";
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>`

// The page of fifty hosts on a desktop and on a phone: it is complete, nothing is wider than the
// window, and no script runs.
func TestPageInABrowser(t *testing.T) {
	v := fleet()
	page := HTML(v, SummaryOptions{RunURL: runURL})
	server := serve(t, map[string]string{"/page": string(page), "/readme": readmePage(t), "/1280": fmt.Sprintf(measure, 1280), "/390": fmt.Sprintf(measure, 390)}, "")
	for _, width := range []int{1280, 390} {
		var found struct {
			Width, Scroll, Bars, Rows int
			Wide, Cut                 []string
			Styled, Scripts           bool
		}
		findings(t, fmt.Sprintf("%s/%d", server, width), &found)
		if found.Scroll > found.Width || found.Width < width-20 || len(found.Wide)+len(found.Cut) > 0 {
			t.Errorf("a window of %d pixels: %+v", width, found)
		}
		if found.Rows != len(v.Targets)+1 || found.Bars != len(v.Work) {
			t.Errorf("%d rows of %d targets and a binary cache, %d bars of %d entries", found.Rows, len(v.Targets), found.Bars, len(v.Work))
		}
		if !found.Styled || found.Scripts {
			t.Errorf("its policy is wrong: style %v, script %v", found.Styled, found.Scripts)
		}
		shot := testbench.Screenshot(t, server+"/page", width, 1000)
		if got := shot.Bounds().Dx(); got != width {
			t.Errorf("the window is %d pixels wide, not %d", got, width)
		}
		if red, ink := share(shot); red < 0.002 || ink < 0.02 {
			t.Errorf("%d: %.4f of the window is red, in %.4f of it is something", width, red, ink)
		}
		if *update && width == 1280 {
			keep(t, testbench.Screenshot(t, server+"/readme", width, 1050))
		}
	}
}

// share returns the part of a picture that is red, and the part that differs from its corner.
func share(shot image.Image) (red, ink float64) {
	b := shot.Bounds()
	corner := shot.At(b.Max.X-1, b.Max.Y-1)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := color.NRGBAModel.Convert(shot.At(x, y)).(color.NRGBA)
			if c.R > 150 && c.G < 80 && c.B < 80 {
				red++
			}
			if shot.At(x, y) != corner {
				ink++
			}
		}
	}
	all := float64(b.Dx() * b.Dy())
	return red / all, ink / all
}

// readmePage returns the page in the picture of the README: that of a pull request that makes one
// derivation fail, with its changes.
func readmePage(t *testing.T) string {
	t.Helper()
	v := fleet()
	v.Change = &verdict.Change{
		Commit: "0123456789abcdef0123456789abcdef01234567", Branch: "main", URL: runURL, Rebuild: 61, Unchanged: 49,
		Changed: []verdict.ChangedTarget{
			{Name: "nixosConfigurations.berlin-web", Before: 1610 << 20, After: 1684 << 20, Growths: []verdict.Growth{
				{Package: "linux", Before: 201 << 20, After: 262 << 20}, {Package: "go", After: 29 << 20}, {Package: "perl", Before: 77 << 20, After: 61 << 20},
			}},
			{Name: "nixosConfigurations.lisbon-web", Before: 1583 << 20},
			{Name: "nixosConfigurations.oslo-proxy", Before: 1402 << 20},
		},
		Added: []string{"packages.x86_64-linux.website"},
	}
	page := HTML(v, SummaryOptions{RunURL: runURL})
	return string(page)
}

// keep writes the picture for the README.
func keep(t *testing.T, shot image.Image) {
	t.Helper()
	f, err := os.Create(filepath.Join("..", "..", ".github", "report.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(f, shot); err != nil {
		t.Fatal(err)
	}
}

// checkPage refuses markup that foreign text must never become on the page.
func checkPage(t *testing.T, s string, v *verdict.Verdict) {
	t.Helper()
	data := HTML(v, SummaryOptions{RunURL: runURL})
	if i := bytes.IndexFunc(data, invisible); i >= 0 {
		t.Errorf("%q: %q is in the page", s, data[i:min(i+9, len(data))])
	}
	for _, e := range elements(t, v) {
		if strings.Contains(e, "href") && !strings.Contains(e, `href="`+runURL+`"`) && !strings.Contains(e, `href="`+runURL+"/job/40") || strings.HasPrefix(e, "script") || strings.Contains(e, ` on`) {
			t.Errorf("%q makes %s", s, e)
		}
	}
}

// elements returns the elements of the page in order, with their attributes.
func elements(t *testing.T, v *verdict.Verdict) []string {
	t.Helper()
	data := HTML(v, SummaryOptions{RunURL: runURL})
	var all []string
	for z := html.NewTokenizer(bytes.NewReader(data)); ; {
		switch z.Next() {
		case html.ErrorToken:
			return all
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			e := token.Data
			for _, a := range token.Attr {
				e += fmt.Sprintf(" %s=%q", a.Key, a.Val)
			}
			all = append(all, e)
		}
	}
}
