package report

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/org/nix-matrix/pkg/job"
)

// missing is a message of Nix.
const missing = "attribute 'nosuch' missing\nat /nix/store/0123456789abcdfghijklmnpqrsvwxyz-source/hosts/old.nix:12:3:\n    11| {\n    12|   x = pkgs.nosuch;"

// manyTargets is a Plan with 400 packages of which some are skipped or failed, and hosts.
func manyTargets() *job.Plan {
	targets := []job.Target{host("nas", "x86_64-linux"), host("pi3", "aarch64-linux"), unevaluated(host("old", ""), missing)}
	for n := range 400 {
		t := pkg(fmt.Sprintf("p%03d", n))
		switch {
		case n%100 == 7:
			t = unevaluated(t, "broken on purpose\nat /home/me/flake.nix:7:")
		case n%2 == 1:
			t = skipped(t, "offered by a substituter")
		case n%100 == 50:
			t = skipped(t, "because it is marked as broken")
		}
		targets = append(targets, t)
	}
	p := planOf(targets...)
	p.Entries[1].QEMU = true
	p.Took = map[string]job.EntryTime{p.Entries[0].ID: {Seconds: 725}, p.Entries[1].ID: {Seconds: 4000, Fetched: 3 << 30}}
	return p
}

func (o Outlook) text() string {
	return strings.Join(slices.Concat(o.Entries, o.Skipped, o.Counts, o.Failed, []string{o.Total}), "\n") + "\n"
}

func TestOutlookGolden(t *testing.T) {
	t.Parallel()
	few := planOf(host("nas", "x86_64-linux"), unevaluated(host("old", ""), missing), unevaluated(pkg("a"), "no position\n\nnor an end"), unevaluated(pkg("b"), ""))
	golden(t, "outlook-few.txt", NewOutlook(few, 0).text())
	p := manyTargets()
	golden(t, "outlook.txt", NewOutlook(p, 0).text())
	golden(t, "outlook-narrow.txt", NewOutlook(p, 80).text())
	golden(t, "outlook.md", OutlookMarkdown(p, 64<<10))
}

// An outlook of any number of targets is short, and has the number of those left out.
func TestOutlookIsShort(t *testing.T) {
	t.Parallel()
	var targets []job.Target
	for n := range 3000 {
		name := fmt.Sprintf("%s-%d", strings.Repeat("n", 300), n)
		targets = append(targets, host(name, "x86_64-linux"), skipped(pkg(name), name), unevaluated(pkg(name), strings.Repeat(name, 100)))
	}
	p := planOf(targets...)
	o := NewOutlook(p, 80)
	for what, lines := range map[string][]string{"entries": o.Entries, "skipped": o.Skipped, "failed": o.Failed} {
		if last := lines[len(lines)-1]; !strings.HasSuffix(last, " more") {
			t.Errorf("the last line of %s is %q", what, last)
		}
	}
	if size := len(o.text()); size > 64<<10 {
		t.Errorf("the text has %d bytes", size)
	}
	const limit = 16 << 10
	if md := OutlookMarkdown(p, limit); len(md) > limit || !strings.Contains(md, "and 2") {
		t.Errorf("the Markdown has %d bytes:\n%s", len(md), md)
	}
}

// The messages of many causes are whole, and equal ones are shown once.
func TestOutlookKeepsMessages(t *testing.T) {
	t.Parallel()
	var targets []job.Target
	for n := range 24 {
		message := "Failed assertions:"
		for line := range 12 {
			message += fmt.Sprintf("\n- %s of %d in line %d", strings.Repeat("x", 120), n/2, line)
		}
		targets = append(targets, unevaluated(host(fmt.Sprintf("host%d", n), ""), message))
	}
	p := planOf(targets...)
	for format, got := range map[string]string{"log": NewOutlook(p, 80).text(), "Markdown": OutlookMarkdown(p, 128<<10)} {
		for n := range 24 {
			if !strings.Contains(got, fmt.Sprintf("host%d", n)) {
				t.Errorf("%s: host%d is not named", format, n)
			}
			for line := 1; line < 12; line++ { // the headline has the first one too
				if end := fmt.Sprintf("x of %d in line %d\n", n/2, line); strings.Count(got, end) != 1 {
					t.Errorf("%s: %q is there %d times", format, end, strings.Count(got, end))
				}
			}
		}
	}
}

func TestOutlookOfOne(t *testing.T) {
	t.Parallel()
	got := NewOutlook(planOf(pkg("a")), 80).text()
	if want := "  build  x86_64-linux 1/1 (x86_64-linux): packages.x86_64-linux.a\n1 to build in 1 entry, 0 skipped, 0 failed to evaluate\n"; got != want {
		t.Errorf("got %q", got)
	}
	if got := NewOutlook(&job.Plan{}, 80).text(); got != "0 to build in 0 entries, 0 skipped, 0 failed to evaluate\n" {
		t.Errorf("got %q", got)
	}
}

func TestNamesFitTheTerminal(t *testing.T) {
	t.Parallel()
	var names []string
	for n := range 100 {
		names = append(names, strings.Repeat("ä", n%7+1))
	}
	for width := 1; width < 200; width++ {
		line := fitNames("x: ", names, width)
		if columns := utf8.RuneCountInString(line); columns > width && columns > len("x: ä and 99 more") {
			t.Errorf("%d columns for %d: %s", columns, width, line)
		}
	}
}

func TestHostileOutlook(t *testing.T) {
	t.Parallel()
	for _, s := range hostileTexts {
		checkHostileOutlook(t, s)
	}
}

func FuzzHostileOutlook(f *testing.F) {
	for _, s := range hostileTexts {
		f.Add(s)
	}
	f.Fuzz(checkHostileOutlook)
}

// checkHostileOutlook checks the outlooks of a Plan in which every foreign text is s.
func checkHostileOutlook(t *testing.T, s string) {
	t.Helper()
	targets := []job.Target{host("a", ""), pkg("b"), pkg("c"), skipped(pkg("d"), s), unevaluated(host("e", ""), s+"\nat "+s+":7:\nat /"+s+":7:")}
	for i := range targets {
		targets[i].Name, targets[i].Attr, targets[i].System = s, s, s
	}
	p := planOf(targets...)
	for i := range p.Entries {
		p.Entries[i].Name = s
	}
	const limit = 8 << 10
	md := OutlookMarkdown(p, limit)
	checkMarkdown(t, s, md)
	if len(md) > limit {
		t.Errorf("%q: %d bytes of %d", s, len(md), limit)
	}
	o := NewOutlook(p, 80)
	for _, line := range slices.Concat(o.Entries, o.Skipped, o.Counts, []string{o.Total}) {
		if strings.HasPrefix(strings.TrimSpace(line), "::") {
			t.Errorf("%q: a workflow command in the text: %q", s, line)
		}
	}
	for line := range strings.SplitSeq(o.text(), "\n") {
		if strings.Contains(line, "##[") || strings.ContainsFunc(strings.ReplaceAll(line, "##\u2060[", ""), invisible) {
			t.Errorf("%q: a workflow command or invisible text: %q", s, line)
		}
	}
}
