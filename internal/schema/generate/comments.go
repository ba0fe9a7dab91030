package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// A source has the comments and the constants of a package.
type source struct {
	types  map[string]string            // comments by type
	fields map[string]map[string]string // by type and field
	values map[string][]string          // the values of constants by their type, in order
}

// source returns what the files of the package of a type say.
func (w *writer) source(t reflect.Type) (*source, error) {
	path := t.PkgPath()
	if s := w.packages[path]; s != nil {
		return s, nil
	}
	below, ok := strings.CutPrefix(path, module)
	if !ok {
		return nil, fmt.Errorf("%s is not of this module, whose types alone have a promise", t)
	}
	in := filepath.Join(w.root, filepath.FromSlash(below))
	files, err := os.ReadDir(in)
	if err != nil {
		return nil, err
	}
	s := &source{map[string]string{}, map[string]map[string]string{}, map[string][]string{}}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(in, f.Name()), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, declaration := range file.Decls {
			if d, ok := declaration.(*ast.GenDecl); ok {
				s.add(d)
			}
		}
	}
	w.packages[path] = s
	return s, nil
}

func (s *source) add(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			name := spec.Name.Name
			s.types[name] = sentence(d.Doc)
			structure, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			s.fields[name] = map[string]string{}
			for _, field := range structure.Fields.List {
				for _, n := range field.Names {
					s.fields[name][n.Name] = sentence(field.Doc, field.Comment)
				}
			}
		case *ast.ValueSpec:
			kind, ok := spec.Type.(*ast.Ident)
			for _, value := range spec.Values {
				literal, isLiteral := value.(*ast.BasicLit)
				if !ok || !isLiteral || d.Tok != token.CONST || literal.Kind != token.STRING {
					continue
				}
				if text, err := strconv.Unquote(literal.Value); err == nil {
					s.values[kind.Name] = append(s.values[kind.Name], text)
				}
			}
		}
	}
}

// goLink matches a link in a comment to something else in Go.
var goLink = regexp.MustCompile(`\[([A-Za-z.]+)\]`)

// goNil matches Go's word for a field that is left out.
var goNil = regexp.MustCompile(`\bnil\b`)

// sentence returns the last of the comments that is not empty, on one line. The comment on a field's own line is
// about it alone, the one before it sometimes also about the next ones.
func sentence(comments ...*ast.CommentGroup) string {
	last := ""
	for _, c := range comments {
		if text := strings.Join(strings.Fields(c.Text()), " "); text != "" {
			last = goNil.ReplaceAllString(goLink.ReplaceAllString(text, "$1"), "absent")
		}
	}
	return last
}

func (w *writer) comment(t reflect.Type) (string, error) {
	s, err := w.source(t)
	if err != nil {
		return "", err
	}
	if s.types[t.Name()] == "" {
		return "", fmt.Errorf("%s has no comment", t)
	}
	return s.types[t.Name()], nil
}

func (w *writer) fieldComment(t reflect.Type, field string) (string, error) {
	s, err := w.source(t)
	if err != nil {
		return "", err
	}
	return s.fields[t.Name()][field], nil
}

// values returns the constants of a type of strings.
func (w *writer) values(t reflect.Type) ([]string, error) {
	s, err := w.source(t)
	if err != nil {
		return nil, err
	}
	return s.values[t.Name()], nil
}
