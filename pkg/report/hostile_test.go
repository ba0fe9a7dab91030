package report

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	gmtext "github.com/yuin/goldmark/text"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// hostile returns a verdict in which every foreign text is s.
func hostile(s string) *verdict.Verdict {
	bad := func(t job.Target) job.Target {
		t.Name, t.Attr, t.System, t.Host, t.Reason, t.Error, t.Reproduce = s, s, s, s, s, s, s
		if t.OutPaths != nil {
			t.Outputs, t.OutPaths = []string{s}, map[string]string{s: s}
		}
		return t
	}
	p := planOf(
		bad(host("a", "")), bad(host("b", "")), bad(host("c", "")), bad(unevaluated(host("d", ""), s)),
		bad(skipped(pkg("e"), s)), bad(pkg("f")), bad(pkg("g")),
	)
	p.Notices, p.Emulated = []string{s}, []string{s}
	for i := range p.Entries {
		p.Entries[i].Name, p.Entries[i].ID = s, fmt.Sprintf("entry%d", i)
	}
	results := resultsOf(p)
	for _, r := range results {
		r.Name = s
		for i := range r.Targets {
			r.Targets[i].Outputs = []job.Output{{Name: s, Path: s, Closure: 1 << 40}}
		}
	}
	results[0].Error, results[0].URL = s, s
	results[0].Pushes = []job.Push{{Destination: s, Error: s}}
	fail(results[3], 0, s, s, s)
	results[3].Targets[0].Error, results[3].Targets[0].Reproduce, results[3].Targets[0].File = s, s, s
	results[3].Targets[0].Causes = []string{s, "/nix/store/x-" + s}
	results[3].Failures = []job.Failure{{DrvPath: "/nix/store/x-" + s, Error: s, Log: []string{s, s}, File: s, LogFile: s, LogArtifact: s, NixLog: true}}
	emulate(results[2])
	results[2].Targets[0].PostBuild = &job.Step{Outcome: job.StepSkipped, Error: s}
	results[3].Targets[1].PostBuild = &job.Step{Outcome: job.StepFailed, Error: s, Log: []string{s, s}}
	results[2].Pushes = []job.Push{{Destination: s, Error: s, Optional: true}}
	results[1].Plan = s
	v := judged(p, planKey, results, verdict.Needs{
		"a " + s: {Result: verdict.Failure, Outputs: map[string]string{"plan": s, "matrix": s, "count": s}}, "build": {Result: verdict.Status(s)},
		"discover": needsOf(verdict.Success, verdict.Success)["discover"],
	})
	v.Change = &verdict.Change{Commit: s, Branch: s, URL: s, Added: []string{s}, Removed: []string{s}, Changed: []verdict.ChangedTarget{
		{Name: s, Before: 1, After: 2, Growths: []verdict.Growth{{Package: s, Before: 1, After: 2}, {Package: s, Before: 2, After: 1}}}, {Name: s, Broken: true},
	}}
	v.Origin = &verdict.Origin{Repository: s, Commit: s, Source: s, Machine: s, Nix: s}
	return v
}

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

// structure returns the result of a Markdown renderer without the text in code: kinds of blocks
// and spans, texts, raw HTML.
func structure(md string) string {
	source := []byte(md)
	var b strings.Builder
	depth := 0
	_ = ast.Walk(markdown.Parser().Parse(gmtext.NewReader(source)), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			depth--
			return ast.WalkContinue, nil
		}
		fmt.Fprintf(&b, "%*s%s", depth, "", n.Kind())
		depth++
		switch n := n.(type) {
		case *ast.Text:
			fmt.Fprintf(&b, " %q", n.Segment.Value(source))
		case *ast.HTMLBlock:
			for i := range n.Lines().Len() {
				at := n.Lines().At(i)
				fmt.Fprintf(&b, " %q", at.Value(source))
			}
		case *ast.Link:
			fmt.Fprintf(&b, " %q", n.Destination)
		case *ast.RawHTML:
			fmt.Fprintf(&b, " %q", n.Segments.Value(source))
		case *ast.CodeSpan, *ast.FencedCodeBlock:
			b.WriteString("\n")
			depth--
			return ast.WalkSkipChildren, nil
		}
		b.WriteString("\n")
		return ast.WalkContinue, nil
	})
	return b.String()
}

var hostileTexts = []string{
	"plain",
	"`", "``", "a`b``c```d", "```\n# out\n```", "````````", "~~~\nx\n~~~", "` `", "`a", "a`",
	"|", `\|`, `\\|`, "a|b|c|d|e|f|g|h", "`|`", "||||||||||\n|---|---|",
	"<b>x</b>", "<br>", "</details>", "<!--", "<script>alert(1)</script>", "</code></pre></details>", "<details open><summary>x", "]]>", "<?x", "<a href=x>y</a>",
	"@octocat", "#1", "GH-1", "org/repo#1", "https://evil.example", "www.evil.example", "a@evil.example", "[x](https://evil.example)", "![x](https://evil.example/x.png)", "<https://evil.example>", "[x]: https://evil.example",
	"# heading", "- item", "1. item", "> quote", "    code", "***", "---", "===", "\\", "\\`", "**bold**", "_x_", "~~x~~", "- [ ] x", "$`x`$", "$$x$$", ":+1:", "&lt;&#60;&copy;",
	"a\r\nb", "a\rb", "a\u0085b\u2028c\u2029d", "a\vb\fc", "\x00", "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07", "\x9b31m", "\u202egnp.exe", "\u200b", "\ufeff", "\xff\xfe", "a\tb",
	"::error::x", "##[error]x", "::set-output name=a::b",
	"Last 10 log lines:", "> x", "error: \n\n\n x", strings.Repeat("`", 300), strings.Repeat("x", 100000), strings.Repeat("a\n", 3000), strings.Repeat("é", 3000), "\n\n\n", "   ",
}

func TestHostileTextStaysCode(t *testing.T) {
	t.Parallel()
	for _, s := range hostileTexts {
		checkHostile(t, s)
	}
}

// checkHostile checks all reports of a verdict in which every foreign text is s.
func checkHostile(t *testing.T, s string) {
	t.Helper()
	v := hostile(s)
	md := Summary(v, SummaryOptions{RunURL: runURL})
	// The structure may only depend on whether a text is empty without invisible characters, has
	// several lines, or is shortened.
	if len(text.Lines(s)) == 1 && len(s) < 200 && !strings.ContainsAny(s, "\r\n") && !logExcerpt().MatchString(text.Lines(s)[0]) {
		if diff := cmp.Diff(structure(Summary(hostile("x"), SummaryOptions{RunURL: runURL})), structure(md)); diff != "" {
			t.Errorf("%q gets out of its code (-harmless +hostile):\n%s\n%s", s, diff, md)
		}
		if diff := cmp.Diff(elements(t, hostile("x")), elements(t, v)); diff != "" {
			t.Errorf("%q gets out of its element (-harmless +hostile):\n%s", s, diff)
		}
	}
	checkMarkdown(t, s, md)
	checkPage(t, s, v)
	const limit = 8 << 10
	short := Summary(v, SummaryOptions{RunURL: runURL, MaxBytes: limit})
	checkMarkdown(t, s, short)
	if len(short) >= limit {
		t.Errorf("%q: %d bytes of %d", s, len(short), limit)
	}
	for line := range strings.Lines(Text(v)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##[") {
			t.Errorf("%q: a workflow command in the text: %q", s, line)
		}
		if strings.ContainsFunc(strings.ReplaceAll(line, "##\u2060[", ""), invisible) {
			t.Errorf("%q: invisible text: %q", s, line)
		}
	}
	for _, a := range Annotations(v) {
		if strings.ContainsFunc(a.Title+a.Message+a.File, invisible) || strings.Contains(a.Title+a.File, "\n") {
			t.Errorf("%q: invisible text: %+v", s, a)
		}
	}
}

// checkMarkdown refuses markup that foreign text must never become.
func checkMarkdown(t *testing.T, s, md string) {
	t.Helper()
	got := structure(md)
	for line := range strings.Lines(got) {
		kind, content, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind == "Link" && (content == `"`+runURL+`"` || strings.HasPrefix(content, `"`+runURL+"/job/40")) {
			continue
		}
		if kind == "RawHTML" && content == `"<br>"` { // ours, between name and output
			continue
		}
		switch kind {
		case "RawHTML", "Link", "AutoLink", "Image", "Strikethrough", "TaskCheckBox", "ThematicBreak", "Blockquote", "CodeBlock":
			t.Errorf("%q makes a %s %s:\n%s", s, kind, content, md)
		case "HTMLBlock":
			if !ourHTML.MatchString(content) {
				t.Errorf("%q makes HTML: %s", s, content)
			}
		}
	}
	if n := strings.Count(got, `"<details>`); n != strings.Count(got, `"</details>`) {
		t.Errorf("%q: the details don't close:\n%s", s, md)
	}
	columns := 0
	for line := range strings.Lines(fences.ReplaceAllString(md, "")) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		n := len(cells.FindAllString(line, -1))
		if columns == 0 {
			columns = n
		}
		if n != columns {
			t.Errorf("%q: a row has %d cells and not %d: %s", s, n, columns, line)
		}
	}
	for _, diagram := range strings.Split(md, "```mermaid\n")[1:] {
		diagram, _, _ = strings.Cut(diagram, "```")
		if !ourGantt.MatchString(diagram) {
			t.Errorf("%q makes the diagram\n%s", s, diagram)
		}
	}
	if i := strings.IndexFunc(md, invisible); i >= 0 {
		t.Errorf("%q: %q is in the summary", s, md[i:min(i+9, len(md))])
	}
}

var (
	ourHTML = regexp.MustCompile(`^("</details>(\\n)?" ?|"<details><summary>[A-Za-z0-9 ]+</summary>\\n" ?)+$`)
	// Characters without a meaning to Mermaid, after a mark that begins no keyword.
	ourGantt = regexp.MustCompile(`^gantt\n    dateFormat YYYY-MM-DD HH:mm:ss\n    axisFormat (%M:%S|%H:%M|day %-d, %H:%M)\n` +
		`(    [✓✗○] [\pL\pN ._…+/@-]{0,48}, [0-9hms.]+ :(active|done|crit), 2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d, \d+s\n)+$`)
	fences = regexp.MustCompile("(?ms)^```+$.*?^```+$")
	cells  = regexp.MustCompile(`(?:\\.|[^\\|])*\|`)
)

func invisible(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

func FuzzHostileText(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add(s)
	}
	f.Fuzz(checkHostile)
}

// big returns a verdict on n targets, each of which failed for its own reason with a long log.
func big(n int, name, line string) *verdict.Verdict {
	targets := make([]job.Target, n)
	for i := range targets {
		targets[i] = host(fmt.Sprintf("host%04d%s", i, name), "x86_64-linux")
	}
	p := planOf(targets...)
	results := resultsOf(p)
	log := make([]string, 25)
	for i := range log {
		log[i] = line
	}
	for i, r := range results {
		fail(r, 0, drv(fmt.Sprintf("drv%04d", i)), log...)
		r.Error = line
		r.Pushes = []job.Push{{Destination: fmt.Sprintf("cachix:%d%s", i, name), Error: line}}
	}
	p.Notices = log
	return judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure))
}

func TestSummaryStaysBelowTheLimit(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]*verdict.Verdict{
		"1,000 with long logs":     big(1000, "", strings.Repeat("x", 2000)),
		"1,000 with hostile logs":  big(1000, "", strings.Repeat("`", 2000)),
		"1,000 with hostile names": big(1000, strings.Repeat("`", 100), "x"),
		"7":                        big(7, "", strings.Repeat("x", 2000)),
	} {
		for _, limit := range []int{0, 8 << 10, 65536, 300_000} {
			md := Summary(v, SummaryOptions{MaxBytes: limit})
			if limit == 0 {
				limit = MaxSummary
			}
			if len(md) >= limit {
				t.Errorf("%s: %d bytes of %d", name, len(md), limit)
			}
			if !strings.HasPrefix(md, "## ❌ nix-matrix: ") || !strings.HasSuffix(md, "\n\n") {
				t.Errorf("%s, %d: the beginning or the end is cut: %.100q … %q", name, limit, md, md[len(md)-50:])
			}
			if limit < 65536 {
				continue
			}
			for _, part := range []string{"```mermaid\n", "### Caches\n", "### Pushed\n"} {
				if !strings.Contains(md, part) {
					t.Errorf("%s, %d: %q is left out", name, limit, part)
				}
			}
			if limit < MaxSummary && (limit == 65536 || strings.Contains(name, "names")) && len(v.Targets) > 100 {
				continue // their names alone are larger
			}
			for _, target := range v.Targets {
				if short := target.Target.Name[:len("nixosConfigurations.host0000")]; !strings.Contains(md, short) {
					t.Fatalf("%s, %d: the name of %s is cut", name, limit, short)
				}
			}
			if limit == MaxSummary && len(md) < limit/2 && len(v.Targets) > 100 && !strings.Contains(name, "hostile") {
				t.Errorf("%s: only %d bytes are used", name, len(md))
			}
		}
	}
}

func TestRunURL(t *testing.T) {
	t.Parallel()
	v := goldens["nothing"]()
	for address, want := range map[string]bool{
		"https://github.com/org/fleet/actions/runs/7/attempts/1": true,
		"http://ghes.local/org/fleet/actions/runs/7":             true,
		"":                         false,
		"javascript:alert(1)":      false,
		"javascript://x/%0aalert":  false,
		"/runs/7":                  false,
		"https://x/a)b":            false,
		"https://x/a b":            false,
		"https://x/a\nb":           false,
		"https://x/<b>":            false,
		"https://x/](https://y)[a": false,
	} {
		got := structure(Summary(v, SummaryOptions{RunURL: address}))
		if strings.Contains(got, fmt.Sprintf("Link %q", address)) != want || !want && got != structure(Summary(v, SummaryOptions{})) {
			t.Errorf("%q: %s", address, got)
		}
	}
}

func TestCodeSpans(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"":             "–",
		"a":            "`a`",
		"a`b":          "``a`b``",
		"`":            "`` ` ``",
		"a``b`":        "``` a``b` ```",
		"a|b":          `a\|b`,
		"\x1b[1ma\tb ": "`a b`",
	} {
		got := text.Code(content, 100)
		if strings.Contains(content, "|") {
			got = strings.Trim(text.Cell(content, 100), "`")
		}
		if got != want {
			t.Errorf("%q: %s, want %s", content, got, want)
		}
	}
}
