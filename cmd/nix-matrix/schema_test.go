package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/verdict"
)

// strictSchema returns a schema of docs/schema to which, other than to users of it, a field that it does not
// describe is an error.
func strictSchema(name string) (*jsonschema.Schema, error) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "schema", name+".json"))
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	forbid := func(s map[string]any) {
		if _, ok := s["properties"]; ok {
			s["additionalProperties"] = false
		}
	}
	root, _ := doc.(map[string]any)
	forbid(root)
	defs, _ := root["$defs"].(map[string]any)
	for _, def := range defs {
		forbid(def.(map[string]any))
	}
	id, _ := root["$id"].(string)
	if !strings.HasSuffix(id, "/docs/schema/"+name+".json") {
		return nil, fmt.Errorf("%s has the $id %q", name, id)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(id, doc); err != nil {
		return nil, err
	}
	return c.Compile(id)
}

// validate returns an error unless a JSON text is as a schema says.
func validate(s *jsonschema.Schema, data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// schema NAME FILE fails unless the JSON in a file, or stdout, is as docs/schema/NAME.json says.
func checkSchema(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: schema NAME FILE")
	}
	s, err := strictSchema(args[0])
	ts.Check(err)
	if err := validate(s, []byte(ts.ReadFile(args[1]))); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// words are values of types that have only some.
var words = map[reflect.Type]string{
	reflect.TypeFor[job.Kind](): string(job.NixOS), reflect.TypeFor[job.State](): string(job.StateBuild), reflect.TypeFor[job.Outcome](): string(job.OutcomeBuilt),
	reflect.TypeFor[job.PushReason](): string(job.PushRefused), reflect.TypeFor[verdict.Status](): string(verdict.Success), reflect.TypeFor[verdict.TargetStatus](): string(verdict.TargetBuilt),
}

// fill sets everything in a value, so that its JSON has every field.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.String:
		v.SetString(cmp.Or(words[v.Type()], "x"))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		element := reflect.New(v.Type().Elem()).Elem()
		fill(element)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(anyName), element)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic("there is no sample of " + v.Type().String())
	}
}

// anyName is a key of maps whose keys may be any.
const anyName = "any-name"

// samples are documents with every field that there is.
func samples(t *testing.T) map[string][]byte {
	t.Helper()
	texts := map[string][]byte{}
	for name, doc := range map[string]any{"matrix": &job.Matrix{}, "forecast": &plan.Forecast{}, "verdict": &verdict.Verdict{}} {
		fill(reflect.ValueOf(doc).Elem())
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = data
	}
	return texts
}

// Each published schema takes what the commands print, and nothing in which a field has another name or type, at
// any depth.
func TestSchemas(t *testing.T) {
	for name, data := range samples(t) {
		t.Run(name, func(t *testing.T) {
			s, err := strictSchema(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(s, data); err != nil {
				t.Fatal(err)
			}
			changes := 0
			for what, changed := range changedFields(t, data) {
				changes++
				if validate(s, changed) == nil {
					t.Errorf("%s passes: %.300s", what, changed)
				}
			}
			if changes < 10 {
				t.Errorf("only %d fields were changed", changes)
			}
		})
	}
}

// changedFields returns a JSON text with each of its fields under another name, and with a value of another type,
// by what was changed. Of an array, the first item stands for all.
func changedFields(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	add := func(what string) {
		text, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		all[what] = text
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case []any:
			if len(value) > 0 {
				walk(path+"[0]", value[0])
			}
		case map[string]any:
			for _, field := range slices.Sorted(maps.Keys(value)) {
				at, was := path+"."+field, value[field]
				if field != anyName {
					delete(value, field)
					value[field+"2"] = was
					add(at + " renamed")
					delete(value, field+"2")
				}
				value[field] = []any{[]any{}}
				add(at + " of another type")
				value[field] = was
				walk(at, was)
			}
		}
	}
	walk("", root)
	return all
}
