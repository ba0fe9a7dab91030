package main

import (
	"reflect"
	"strings"
	"testing"
)

// The files are as generated.
func TestGenerate(t *testing.T) {
	if err := run(true); err != nil {
		t.Error(err)
	}
}

// A Sample has one field of each kind.
type Sample struct {
	Needed   string            `json:"needed"` // on its line
	Optional *Part             `json:"optional,omitempty"`
	Null     *int64            `json:"null"`
	Map      map[string][]Part `json:"map,omitempty"`
	Kind     Kind              `json:"kind"`
	Part
	hidden int
}

// A Part is embedded, and of [Sample].
type Part struct {
	// Number is before its line.
	Number float64 `json:"number"`
}

// Kind is a kind.
type Kind string

const (
	one Kind = "one"
	two Kind = "two"
)

// Nameless has a field that JSON would name as Go does.
type Nameless struct{ A int }

// Any has a field of which nothing is known.
type Any struct {
	A any `json:"a"`
}

// Foreign has a field of a type that is of another module.
type Foreign struct {
	A reflect.StructTag `json:"a"`
}

func newWriter() *writer {
	of := func(comments map[string]string) *source {
		return &source{types: comments, fields: map[string]map[string]string{
			"Sample": {"Needed": "on its line"}, "Part": {"Number": "before"},
		}, values: map[string][]string{"Kind": {string(one), string(two)}}}
	}
	return &writer{
		packages: map[string]*source{reflect.TypeFor[Sample]().PkgPath(): of(map[string]string{"Part": "A Part is embedded."})},
		defs:     map[string]object{}, named: map[string]reflect.Type{},
	}
}

func TestSchema(t *testing.T) {
	_ = Sample{hidden: 1}
	w := newWriter()
	s, err := w.structure(reflect.TypeFor[Sample]())
	if err != nil {
		t.Fatal(err)
	}
	got, err := append(s, member{"$defs", w.defs}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(strings.Fields(`{"type":"object","properties":{
		"needed":{"description":"on_its_line","type":"string"},
		"optional":{"$ref":"#/$defs/Part"},
		"null":{"anyOf":[{"type":"integer"},{"type":"null"}]},
		"map":{"type":"object","additionalProperties":{"type":"array","items":{"$ref":"#/$defs/Part"}}},
		"kind":{"type":"string","enum":["one","two"]},
		"number":{"description":"before","type":"number"}},
		"required":["needed","null","kind","number"],
		"$defs":{"Part":{"description":"A_Part_is_embedded.","type":"object","properties":{"number":{"description":"before","type":"number"}},"required":["number"]}}}`), "")
	want = strings.ReplaceAll(want, "_", " ")
	if text := strings.ReplaceAll(string(got), "\n", ""); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// A type that has no schema is an error, and not a schema that takes anything.
func TestRefused(t *testing.T) {
	for want, of := range map[string]reflect.Type{
		"Nameless.A has no name in JSON":  reflect.TypeFor[Nameless](),
		"there is no schema of interface": reflect.TypeFor[Any](),
		"is not of this module":           reflect.TypeFor[Foreign](),
		"has no fields":                   reflect.TypeFor[struct{}](),
	} {
		if _, err := newWriter().structure(of); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
