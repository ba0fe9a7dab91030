package report

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

var checkOptions = SummaryOptions{RunURL: runURL + "/attempts/1", MaxBytes: 32 << 10}

func TestChecks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"green", "failure", "steps", "cancelled", "nothing", "causes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			v := goldens[name]()
			checks := Checks(v, "nix", checkOptions)
			for _, c := range checks {
				fmt.Fprintf(&b, "# %s\n\n%s %t %s (%.1fs, %s)\n\n%s", c.Name, c.Status, c.Timeout, c.Title, c.Seconds, c.URL, c.Summary)
			}
			golden(t, "checks-"+name+".md", b.String())
			if len(checks) != len(v.Targets) {
				t.Errorf("%d checks for %d targets", len(checks), len(v.Targets))
			}
		})
	}
}

// The names by which branch rules know checks differ, whatever targets are called, and stay the same.
func TestCheckNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	named := func(name, attr string) job.Target {
		target := pkg(attr)
		target.Name, target.Attr = name, attr
		return target
	}
	p := planOf(named("tool", "packages.x86_64-linux.tool"), named("tool", "packages.aarch64-linux.tool"), named("one", "a"),
		named(long+"a", long+"a"), named(long+"b", long+"b"), named("a\nb", "c"), named("two", "d"), named("two", "d"))
	v := judged(p, planKey, resultsOf(p), needsOf(verdict.Success, verdict.Success))
	var names []string
	seen := map[string]bool{}
	for _, c := range Checks(v, "nix", checkOptions) {
		if len(c.Name) > maxCheckName || seen[c.Name] {
			t.Errorf("%q is there twice, or too long", c.Name)
		}
		seen[c.Name] = true
		names = append(names, regexp.MustCompile(`x{9,}`).ReplaceAllString(c.Name, "x"))
	}
	want := []string{
		"nix: packages.x86_64-linux.tool", "nix: packages.aarch64-linux.tool", "nix: one",
		"nix: x…xa fed06158", "nix: x…xb 11cd6d77", "nix: a b", "nix: d", "nix: d (2)",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// No text of a flake or a log is markup in a check, a name of several lines, or too large.
func TestHostileChecks(t *testing.T) {
	t.Parallel()
	plain := Checks(hostile("x"), "nix", checkOptions)
	for _, s := range hostileTexts {
		checks := Checks(hostile(s), "nix", checkOptions)
		if len(checks) != len(plain) {
			t.Fatalf("%.40q: %d checks", s, len(checks))
		}
		for i, c := range checks {
			if strings.ContainsAny(c.Name+c.Title, "\r\n\x1b\x00") || c.Name == "" || c.Title == "" || len(c.Title) > 200 {
				t.Errorf("%.40q: name %q, title %q", s, c.Name, c.Title)
			}
			if len(c.Summary) > 60000 {
				t.Errorf("%.40q: the summary has %d bytes", s, len(c.Summary))
			}
			if c.URL != "" && c.URL != checkOptions.RunURL && !strings.HasPrefix(c.URL, runURL+"/job/") {
				t.Errorf("%.40q: the address is %q", s, c.URL)
			}
			checkMarkdown(t, s, c.Summary)
			oneLine := len(text.Lines(s)) == 1 && len(s) < 200 && !strings.ContainsAny(s, "\r\n") && !logExcerpt().MatchString(text.Lines(s)[0])
			if diff := cmp.Diff(structure(plain[i].Summary), structure(c.Summary)); oneLine && diff != "" {
				t.Errorf("%q gets out of its code (-harmless +hostile):\n%s\n%s", s, diff, c.Summary)
			}
		}
	}
}
