package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/itchyny/gojq"

	"github.com/org/nix-matrix/internal/nearest"
)

// An expression is a jq expression over the object of a target. In jq, an unknown field is null,
// so that a typo would silently select other targets. Therefore each access to a field by its
// name also reports the object: an unknown field is an error in the target's object, and null in
// any other.
type expression struct {
	code    *gojq.Code
	target  map[string]any // the current one
	unknown string         // the first unknown field that was accessed
}

// accessFunction is the function that accesses to fields call, with the name of the field.
const accessFunction = "_nix_matrix_seen"

// compile parses an expression. It returns nil for an empty one.
func compile(name, text string) (*expression, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil //nolint:nilnil // none was given, which is no error
	}
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, parseError(name, text, err)
	}
	instrument(reflect.ValueOf(query))
	e := &expression{}
	// It can access neither files nor the environment.
	e.code, err = gojq.Compile(query, gojq.WithEnvironLoader(func() []string { return nil }), gojq.WithFunction(accessFunction, 1, 1, e.noteAccess))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// noteAccess notes an unknown field of the target's object.
func (e *expression) noteAccess(object any, args []any) any {
	m, ok := object.(map[string]any)
	if !ok || e.unknown != "" || reflect.ValueOf(m).Pointer() != reflect.ValueOf(e.target).Pointer() {
		return nil
	}
	if field, ok := args[0].(string); ok {
		if _, known := m[field]; !known {
			e.unknown = field
		}
	}
	return nil
}

// err returns the error of an unknown field.
func (e *expression) err() error {
	if e.unknown == "" {
		return nil
	}
	fields := slices.Sorted(maps.Keys(e.target))
	return fmt.Errorf("there is no field %q%s. A target has %s", e.unknown, nearest.Hint(e.unknown, fields), strings.Join(fields, ", "))
}

// instrument rewrites all accesses to fields in a part of a query, so that they call
// accessFunction.
func instrument(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		instrument(v.Elem())
		switch node := v.Interface().(type) {
		case *gojq.Term:
			instrumentTerm(node)
		case *gojq.ObjectKeyVal:
			instrumentShorthand(node)
		}
	case reflect.Slice:
		for i := range v.Len() {
			instrument(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			instrument(v.Field(i))
		}
	}
}

// instrumentTerm rewrites .a and TERM.a. A field with a ? may be missing.
func instrumentTerm(t *gojq.Term) {
	for i := 0; i < len(t.SuffixList); i++ {
		name, ok := fieldName(t.SuffixList[i].Index)
		if !ok || optional(t.SuffixList[i+1:]) {
			continue
		}
		object := *t
		object.SuffixList = slices.Clone(t.SuffixList[:i])
		*t = gojq.Term{
			Type:       gojq.TermTypeQuery,
			Query:      &gojq.Query{Left: &gojq.Query{Term: &object}, Op: gojq.OpPipe, Right: notedAccess(name)},
			SuffixList: t.SuffixList[i+1:],
		}
		instrumentFirst(&object)
		i = -1
	}
	instrumentFirst(t)
}

// instrumentFirst rewrites .a at the beginning of a term.
func instrumentFirst(t *gojq.Term) {
	if name, ok := fieldName(t.Index); ok && t.Type == gojq.TermTypeIndex && !optional(t.SuffixList) {
		*t = gojq.Term{Type: gojq.TermTypeQuery, Query: notedAccess(name), SuffixList: t.SuffixList}
	}
}

// instrumentShorthand rewrites {a}, which is {a: .a}.
func instrumentShorthand(kv *gojq.ObjectKeyVal) {
	name := kv.Key
	if kv.KeyString != nil && kv.KeyString.Queries == nil {
		name = kv.KeyString.Str
	}
	if kv.Val == nil && name != "" && !strings.HasPrefix(name, "$") {
		kv.Val = notedAccess(name)
	}
}

func optional(rest []*gojq.Suffix) bool { return len(rest) > 0 && rest[0].Optional }

// fieldName returns the name in .a, ."a" or .["a"].
func fieldName(x *gojq.Index) (string, bool) {
	switch {
	case x == nil || x.IsSlice:
		return "", false
	case x.Name != "":
		return x.Name, true
	case x.Str != nil:
		return x.Str.Str, x.Str.Queries == nil
	case x.Start != nil && x.Start.Term != nil && x.Start.Term.Type == gojq.TermTypeString && x.Start.Term.SuffixList == nil && len(x.Start.FuncDefs) == 0:
		return x.Start.Term.Str.Str, x.Start.Term.Str.Queries == nil
	default:
		return "", false
	}
}

// notedAccess returns an access to a field that calls accessFunction and is still a path
// expression: SEEN as $_ | .a.
func notedAccess(name string) *gojq.Query {
	literal := &gojq.String{Str: name}
	argument := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeString, Str: literal}}
	return &gojq.Query{
		Left:     &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: accessFunction, Args: []*gojq.Query{argument}}}},
		Patterns: []*gojq.Pattern{{Name: "$_"}},
		Op:       gojq.OpPipe,
		Right:    &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIndex, Index: &gojq.Index{Str: literal}}},
	}
}
