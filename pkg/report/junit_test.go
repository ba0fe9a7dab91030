package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An xmlNode is an element of a document.
type xmlNode struct {
	name     string
	attrs    map[string]string
	text     string
	children []*xmlNode
}

// parseXML reads a document as a strict reader does.
func parseXML(t *testing.T, data []byte) *xmlNode {
	t.Helper()
	if !utf8.Valid(data) {
		t.Fatalf("not UTF-8: %q", data)
	}
	root := &xmlNode{}
	open := []*xmlNode{root}
	for d := xml.NewDecoder(strings.NewReader(string(data))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %.2000s", err, data)
		}
		top := open[len(open)-1]
		switch token := token.(type) {
		case xml.StartElement:
			n := &xmlNode{name: token.Name.Local, attrs: map[string]string{}}
			for _, a := range token.Attr {
				n.attrs[a.Name.Local] = a.Value
			}
			top.children = append(top.children, n)
			open = append(open, n)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
	if len(root.children) != 1 {
		t.Fatalf("it has %d roots", len(root.children))
	}
	return root.children[0]
}

// The elements of JUnit reports with their attributes, the needed ones with a !, and children, as the
// schema of Jenkins' xUnit plugin has them, without those that only other programs write.
var junitSchema = map[string]struct{ attrs, children []string }{
	"testsuites": {[]string{"name", "tests", "failures", "errors", "skipped", "time"}, []string{"testsuite"}},
	"testsuite":  {[]string{"name!", "tests!", "failures", "errors", "skipped", "time", "timestamp"}, []string{"testcase"}},
	"testcase":   {[]string{"name!", "classname!", "time"}, []string{"skipped", "failure", "error"}},
	"skipped":    {[]string{"message"}, nil},
	"failure":    {[]string{"message", "type"}, nil},
	"error":      {[]string{"message", "type"}, nil},
}

// checkJUnit compares an element with the schema, and its numbers with its cases.
func checkJUnit(t *testing.T, n *xmlNode) {
	t.Helper()
	known, ok := junitSchema[n.name]
	if !ok {
		t.Errorf("there is an element %s", n.name)
	}
	var allowed []string
	for _, attr := range known.attrs {
		name, needed := strings.CutSuffix(attr, "!")
		allowed = append(allowed, name)
		if needed && n.attrs[name] == "" {
			t.Errorf("%s has no %s", n.name, name)
		}
	}
	for name, value := range n.attrs {
		if !slices.Contains(allowed, name) {
			t.Errorf("%s has an attribute %s", n.name, name)
		}
		if number := slices.Contains([]string{"tests", "failures", "errors", "skipped", "time"}, name); number {
			if f, err := strconv.ParseFloat(value, 64); err != nil || f < 0 {
				t.Errorf("%s: %s is %q", n.name, name, value)
			}
		}
	}
	for _, child := range n.children {
		if !slices.Contains(known.children, child.name) {
			t.Errorf("%s has a child %s", n.name, child.name)
		}
		checkJUnit(t, child)
	}
	switch n.name {
	case "testcase":
		if len(n.children) > 1 {
			t.Errorf("%s has %d outcomes", n.attrs["name"], len(n.children))
		}
	case "testsuite":
		counts := map[string]int{"tests": len(n.children), "failures": 0, "errors": 0, "skipped": 0}
		of := map[string]string{"failure": "failures", "error": "errors", "skipped": "skipped"}
		for _, c := range n.children {
			for _, outcome := range c.children {
				counts[of[outcome.name]]++
			}
		}
		for name, count := range counts {
			if n.attrs[name] != strconv.Itoa(count) {
				t.Errorf("%s is %s, but there are %d", name, n.attrs[name], count)
			}
		}
	}
}

func junitOf(t *testing.T, v *verdict.Verdict) *xmlNode {
	t.Helper()
	data, err := JUnit(v)
	if err != nil {
		t.Fatal(err)
	}
	n := parseXML(t, data)
	checkJUnit(t, n)
	return n.children[0]
}

// All reports for people are JUnit reports too, with a case for each target.
func TestJUnitOfAll(t *testing.T) {
	t.Parallel()
	for name, verdict := range goldens {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verdict()
			if suite := junitOf(t, v); len(suite.children) < len(v.Targets) {
				t.Errorf("%d cases for %d targets", len(suite.children), len(v.Targets))
			}
		})
	}
}

func TestJUnit(t *testing.T) {
	t.Parallel()
	var got []string
	for _, n := range []string{"failure", "steps", "cancelled"} {
		for _, c := range junitOf(t, goldens[n]()).children {
			line := fmt.Sprintf("%s %s %s", c.attrs["classname"], c.attrs["name"], c.attrs["time"])
			for _, o := range c.children {
				line += fmt.Sprintf(": %s %s: %s", o.name, o.attrs["type"], o.attrs["message"])
			}
			got = append(got, line)
		}
		got = append(got, "")
	}
	golden(t, "junit.txt", strings.Join(got, "\n"))
	suite := junitOf(t, goldens["failure"]())
	for _, c := range suite.children {
		if c.attrs["name"] != "nixosConfigurations.nas" {
			continue
		}
		for _, want := range []string{
			"derivation: " + drv("openssl-3.0.13") + "\n", "the end of its log:\n| checking for perl... no\n", "| configure: error: perl is needed\n",
			"reproduce locally: nix build .#nixosConfigurations.nas", "its log: 0123-openssl-3.0.13.log in the artifact",
		} {
			if !strings.Contains(c.children[0].text, want) {
				t.Errorf("the failure lacks %q:\n%s", want, c.children[0].text)
			}
		}
	}
}

// No foreign text leaves its element, or makes a document that cannot be read.
func TestJUnitOfHostileText(t *testing.T) {
	t.Parallel()
	plain := junitOf(t, hostile("plain"))
	for _, s := range append(slices.Clone(hostileTexts), "]]>", "<![CDATA[", "&#0;", "\uffff\ufffe", "\x0b\x0c\x1f", "\"'<>&") {
		suite := junitOf(t, hostile(s))
		if len(suite.children) != len(plain.children) {
			t.Errorf("%.40q: %d cases, want %d", s, len(suite.children), len(plain.children))
		}
	}
}

// A report of very many failures has a bounded size.
func TestJUnitOfMany(t *testing.T) {
	t.Parallel()
	var targets []job.Target
	for i := range 400 {
		targets = append(targets, host(fmt.Sprintf("host%04d", i), "x86_64-linux"))
	}
	p := planOf(targets...)
	results := resultsOf(p)
	for i, r := range results {
		fail(r, 0, drv(fmt.Sprint("broken", i)), slices.Repeat([]string{strings.Repeat("x", 1000)}, 100)...)
	}
	data, err := JUnit(judged(p, planKey, results, needsOf(verdict.Success, verdict.Failure)))
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 16<<20 {
		t.Errorf("it has %d bytes", len(data))
	}
}

func TestBadge(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]badge{
		"green":     {1, "nix", "5 targets", "brightgreen"},
		"nothing":   {1, "nix", "1 target", "brightgreen"},
		"failure":   {1, "nix", "6 of 9 targets red", "red"},
		"cancelled": {1, "nix", "cancelled", "lightgrey"},
		"no-plan":   {1, "nix", "failed", "red"},
		"hostile":   {1, "nix", "4 of 7 targets red", "red"},
	} {
		data, err := Badge(goldens[name](), "nix")
		if err != nil {
			t.Fatal(err)
		}
		var got badge
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if data, _ := Badge(&verdict.Verdict{Status: verdict.Success}, "nix"); !strings.Contains(string(data), `"nothing to build"`) {
		t.Errorf("of nothing: %s", data)
	}
}
