// Package docs reads the documentation of this repository, for tests that compare it with
// the program.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// A Page is a Markdown file.
type Page struct {
	Name   string // path in the repository
	Blocks []Block
	Spans  []string // texts set in code
	Links  []string // destinations of links and images
	Titles []string // headings as written, without the marks for code
}

// A Block is a fenced block of code.
type Block struct {
	Language string
	Text     string
}

// Read returns the pages of the repository in the directory root: README and the like, docs
// and the pages of the examples.
func Read(t testing.TB, root string) []*Page {
	t.Helper()
	var pages []*Page
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md", ".github/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				t.Fatal(err)
			}
			page := Parse(data)
			page.Name = filepath.ToSlash(name)
			pages = append(pages, page)
		}
	}
	if len(pages) < 15 {
		t.Fatalf("there are %d pages below %s, which is not all", len(pages), root)
	}
	return pages
}

// Find returns the page of a name.
func Find(t testing.TB, pages []*Page, name string) *Page {
	t.Helper()
	i := slices.IndexFunc(pages, func(p *Page) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("there is no page %s", name)
	}
	return pages[i]
}

// Parse reads Markdown as GitHub does.
func Parse(source []byte) *Page {
	page := &Page{}
	root := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // which returns no error of its own
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.FencedCodeBlock:
			page.Blocks = append(page.Blocks, Block{string(n.Language(source)), string(n.Lines().Value(source))})
		case *ast.CodeSpan:
			page.Spans = append(page.Spans, plain(n, source))
		case *ast.Link:
			page.Links = append(page.Links, string(n.Destination))
		case *ast.Image:
			page.Links = append(page.Links, string(n.Destination))
		case *ast.Heading:
			page.Titles = append(page.Titles, plain(n, source))
		}
		return ast.WalkContinue, nil
	})
	return page
}

// plain returns the text of a node without its marks.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.WriteString(strings.ReplaceAll(string(t.Value(source)), "\n", " "))
			continue
		}
		b.WriteString(plain(c, source))
	}
	return b.String()
}

// dropped matches what GitHub leaves out of an anchor.
var dropped = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

// Anchors returns the anchors of the page's headings.
func (p *Page) Anchors() []string {
	anchors := make([]string, len(p.Titles))
	for i, title := range p.Titles {
		anchors[i] = strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
	}
	return anchors
}
