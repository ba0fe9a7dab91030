package e2e_test

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench/docs"
)

const module = "github.com/org/nix-matrix/"

// imports returns the packages of this module, and which of them each imports.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		var own []string
		for _, name := range strings.Fields(line) {
			if name, ok := strings.CutPrefix(name, module); ok {
				own = append(own, name)
			}
		}
		all[own[0]] = own[1:]
	}
	return all
}

// An architectureRow is one of the table of packages in docs/architecture.md.
type architectureRow struct {
	tier          string
	packages, own []string
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// architectureRows returns the rows of the table. In it, a package without a directory is below pkg.
func architectureRows(t *testing.T) []architectureRow {
	t.Helper()
	names := func(cell string) []string {
		var all []string
		for _, m := range codeSpan.FindAllStringSubmatch(cell, -1) {
			name := m[1]
			if top, _, _ := strings.Cut(name, "/"); !slices.Contains([]string{"pkg", "internal", "cmd"}, top) {
				name = "pkg/" + name
			}
			all = append(all, name)
		}
		return all
	}
	var rows []architectureRow
	for line := range strings.Lines(readFile(t, "docs/architecture.md")) {
		if cells := strings.Split(line, "|"); len(cells) == 6 && strings.Contains(cells[2], "`") {
			rows = append(rows, architectureRow{strings.TrimSpace(cells[1]), names(cells[2]), names(cells[4])})
		}
	}
	return rows
}

// Each package has one row in the table of the architecture, which names the packages of its own tier
// that it imports. Each row is of packages that there are.
func TestArchitecture(t *testing.T) {
	all := imports(t)
	tiers := map[string]string{}
	for _, row := range architectureRows(t) {
		for _, name := range row.packages {
			if _, ok := all[name]; !ok {
				t.Errorf("there is no package %s", name)
			}
			if tiers[name] != "" {
				t.Errorf("%s has two rows", name)
			}
			tiers[name] = row.tier
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "pkg/") && tiers[name] == "" {
			t.Errorf("docs/architecture.md has no row for %s", name)
		}
	}
	for _, row := range architectureRows(t) {
		if row.tier == "–" {
			continue
		}
		own := map[string]bool{}
		for _, name := range row.packages {
			for _, imported := range all[name] {
				switch tier := tiers[imported]; {
				case tier != "–" && tier > row.tier:
					t.Errorf("%s of tier %s imports %s of tier %s", name, row.tier, imported, tier)
				case tier == row.tier && !slices.Contains(row.packages, imported):
					own[imported] = true
				}
			}
		}
		if got := slices.Sorted(maps.Keys(own)); !slices.Equal(got, slices.Sorted(slices.Values(row.own))) {
			t.Errorf("%q import %q of their own tier, the table has %q", row.packages, got, row.own)
		}
	}
}

// Functions, types and files that the page names are there: PACKAGE.NAME, PACKAGE.TYPE.NAME, TYPE.NAME
// or PACKAGE/FILE.go.
func TestArchitectureNames(t *testing.T) {
	declared := declarations(t)
	form := regexp.MustCompile(`^[A-Za-z]\w*(?:\.[A-Za-z]\w*){1,2}$|^[a-z]+/\w+\.go$`)
	found := 0
	for _, name := range docs.Find(t, docs.Read(t, root), "docs/architecture.md").Spans {
		if form.MatchString(name) && name != "action.yml" {
			found++
			if !declared[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d names were found", found)
	}
}

// declarations returns the names of functions and types, with and without their package, and of files.
func declarations(t *testing.T) map[string]bool {
	t.Helper()
	var files []string
	for _, pattern := range []string{"pkg/*/*.go", "pkg/*/*/*.go", "internal/*/*.go", "cmd/*/*.go"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	declared := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		pkg := file.Name.Name
		declared[path.Base(filepath.Dir(name))+"/"+filepath.Base(name)] = true
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
					declared[name] = true
				}
				declared[pkg+"."+name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if spec, ok := spec.(*ast.TypeSpec); ok {
						declared[pkg+"."+spec.Name.Name] = true
					}
				}
			}
		}
	}
	return declared
}

// receiver returns the name of a method's type.
func receiver(of ast.Expr) string {
	switch of := of.(type) {
	case *ast.StarExpr:
		return receiver(of.X)
	case *ast.IndexExpr:
		return receiver(of.X)
	case *ast.Ident:
		return of.Name
	}
	return ""
}
