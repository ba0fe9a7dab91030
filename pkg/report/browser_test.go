package report

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/verdict"
)

// findings opens a page that writes JSON into its element with the id "found", and returns it.
func findings(t *testing.T, address string, found any) {
	t.Helper()
	dom := testbench.DOM(t, address)
	match := regexp.MustCompile(`(?s)<pre id="found">(.*?)</pre>`).FindStringSubmatch(dom)
	if match == nil {
		t.Fatalf("the page says nothing: %.2000s", dom)
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(match[1])), found); err != nil {
		t.Fatalf("%v: %q", err, match[1])
	}
}

// diagrams draws diagrams with Mermaid and returns the contents of the pictures.
const diagrams = `<!doctype html><meta charset="utf-8"><pre id="found"></pre><div id="stage" style="width:800px"></div>
<script src="/mermaid.js"></script>
<script>
onload = async () => {
  const found = [];
  mermaid.initialize({startOnLoad: false, securityLevel: "strict"});
  for (const text of await (await fetch("/diagrams.json")).json()) {
    try {
      const {svg} = await mermaid.render("d" + found.length, text, stage);
      stage.innerHTML = svg;
      const picture = stage.querySelector("svg"), frame = picture.getBoundingClientRect();
      const texts = [...picture.querySelectorAll(".taskText, .taskTextOutsideRight, .taskTextOutsideLeft")];
      found.push({
        kind: picture.getAttribute("aria-roledescription"),
        bars: picture.querySelectorAll("rect.task").length,
        labels: texts.map(t => t.textContent),
        ticks: [...picture.querySelectorAll(".tick text")].map(t => t.textContent),
        cut: texts.filter(t => { const b = t.getBoundingClientRect(); return b.left < frame.left - 1 || b.right > frame.right + 1; }).length,
      });
    } catch (e) { found.push({error: String(e)}); }
  }
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>`

// Mermaid draws each entry, whatever its name.
func TestMermaidDrawsTheTimeLine(t *testing.T) {
	texts := append([]string{"gantt", "title a b", "section a", "click x href y", "done", "2026-01-01", "%%{init: {}}%%", "a:b:c", "a #quot; b; c", "---\ntitle: x\n---", "vert", "excludes weekends"}, hostileTexts...)
	var all []string
	var verdicts []*verdict.Verdict
	for _, v := range []*verdict.Verdict{fleet(), goldens["steps"](), hostileNames(texts), {Seconds: 5e5, Work: []verdict.Work{{Entry: "long", Seconds: 4e5}, {Entry: "late", Start: 4e5, Seconds: 1e5}}}} {
		_, text, found := strings.Cut(Summary(v, SummaryOptions{}), "```mermaid\n")
		text, _, _ = strings.Cut(text, "```")
		if !found {
			t.Fatal("there is no diagram")
		}
		all, verdicts = append(all, text), append(verdicts, v)
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	server := serve(t, map[string]string{"/": diagrams, "/diagrams.json": string(data)}, testbench.Path(t, "npm/node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js"))
	var found []struct {
		Kind, Error   string
		Bars, Cut     int
		Labels, Ticks []string
	}
	findings(t, server+"/", &found)
	if len(found) != len(all) {
		t.Fatalf("%d of %d diagrams are drawn", len(found), len(all))
	}
	for i, f := range found {
		bars, _ := view{verdicts[i]}.bars(30)
		if f.Error != "" || f.Kind != "gantt" || f.Bars != len(bars) || len(f.Labels) != len(bars) || f.Cut > 0 || len(f.Ticks) == 0 {
			t.Errorf("%+v, of\n%s", f, all[i])
			continue
		}
		for k, w := range bars {
			if want := strings.Join(strings.Fields(mark(w)+" "+mermaidLabel(w.Entry)), " "); !strings.HasPrefix(strings.Join(strings.Fields(f.Labels[k]), " "), want) {
				t.Errorf("the label is %q, not %q", f.Labels[k], want)
			}
		}
	}
	if got := found[len(found)-1].Ticks; !strings.HasPrefix(got[0], "day ") {
		t.Errorf("the axis of days has %q", got)
	}
}

// hostileNames returns a verdict on entries with these names.
func hostileNames(names []string) *verdict.Verdict {
	v := &verdict.Verdict{}
	for i, name := range names {
		v.Work = append(v.Work, verdict.Work{Entry: name, Start: float64(i), Seconds: float64(10 + i)})
		v.Seconds = v.Work[i].Start + v.Work[i].Seconds
	}
	return v
}

// serve serves pages, and a script if there is one.
func serve(t *testing.T, pages map[string]string, script string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mermaid.js" {
			http.ServeFile(w, r, script)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".json") {
			w.Header().Set("Content-Type", "application/json")
		}
		fmt.Fprint(w, pages[r.URL.Path])
	}))
	t.Cleanup(server.Close)
	return server.URL
}
