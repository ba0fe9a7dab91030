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

// An expression is a jq expression over the object that stands for a target. jq takes a
// field that an object has not for null, so that a typo would choose other targets than
// were meant, without a word. So each access to a field by its name also tells what it
// is applied to: it is an error where that is the target's object, which has no such
// field. Whatever else an expression looks at may have any fields.
type expression struct {
	code    *gojq.Code
	target  map[string]any // that is being looked at
	unknown string         // the first field that it has not
}

// seenFunction is what accesses to fields call, with the name of the field.
const seenFunction = "_nix_matrix_seen"

// compile reads an expression. An empty one is nil.
func compile(name, text string) (*expression, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil //nolint:nilnil // none was given, which is no error
	}
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, parseError(name, text, err)
	}
	watch(reflect.ValueOf(query))
	e := &expression{}
	// Neither files nor the environment are there for it.
	e.code, err = gojq.Compile(query, gojq.WithEnvironLoader(func() []string { return nil }), gojq.WithFunction(seenFunction, 1, 1, e.seen))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// seen notes that a field of an object is looked at.
func (e *expression) seen(object any, args []any) any {
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

// err returns the error of a field that the target's object has not.
func (e *expression) err() error {
	if e.unknown == "" {
		return nil
	}
	fields := slices.Sorted(maps.Keys(e.target))
	return fmt.Errorf("there is no field %q%s: a target has %s", e.unknown, nearest.Hint(e.unknown, fields), strings.Join(fields, ", "))
}

// watch rewrites all accesses to fields in a part of a query, so that they are noted.
func watch(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		watch(v.Elem())
		switch node := v.Interface().(type) {
		case *gojq.Term:
			watchTerm(node)
		case *gojq.ObjectKeyVal:
			watchShorthand(node)
		}
	case reflect.Slice:
		for i := range v.Len() {
			watch(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			watch(v.Field(i))
		}
	}
}

// watchTerm rewrites .a and TERM.a. A field with a ? may be missing.
func watchTerm(t *gojq.Term) {
	for i := 0; i < len(t.SuffixList); i++ {
		name, ok := fieldName(t.SuffixList[i].Index)
		if !ok || optional(t.SuffixList[i+1:]) {
			continue
		}
		object := *t
		object.SuffixList = slices.Clone(t.SuffixList[:i])
		*t = gojq.Term{
			Type:       gojq.TermTypeQuery,
			Query:      &gojq.Query{Left: &gojq.Query{Term: &object}, Op: gojq.OpPipe, Right: watched(name)},
			SuffixList: t.SuffixList[i+1:],
		}
		watchFirst(&object)
		i = -1
	}
	watchFirst(t)
}

// watchFirst rewrites .a at the beginning of a term.
func watchFirst(t *gojq.Term) {
	if name, ok := fieldName(t.Index); ok && t.Type == gojq.TermTypeIndex && !optional(t.SuffixList) {
		*t = gojq.Term{Type: gojq.TermTypeQuery, Query: watched(name), SuffixList: t.SuffixList}
	}
}

// watchShorthand rewrites {a}, which is {a: .a}.
func watchShorthand(kv *gojq.ObjectKeyVal) {
	name := kv.Key
	if kv.KeyString != nil && kv.KeyString.Queries == nil {
		name = kv.KeyString.Str
	}
	if kv.Val == nil && name != "" && !strings.HasPrefix(name, "$") {
		kv.Val = watched(name)
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

// watched returns an access to a field that tells of it, and is still a path: SEEN as $_ | .a.
func watched(name string) *gojq.Query {
	literal := &gojq.String{Str: name}
	argument := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeString, Str: literal}}
	return &gojq.Query{
		Left:     &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: seenFunction, Args: []*gojq.Query{argument}}}},
		Patterns: []*gojq.Pattern{{Name: "$_"}},
		Op:       gojq.OpPipe,
		Right:    &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIndex, Index: &gojq.Index{Str: literal}}},
	}
}
