package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// An object is a JSON object with its members in this order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON is of [json.Marshaler].
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		var value bytes.Buffer
		e := json.NewEncoder(&value)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", m.name, value.Bytes())
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// A writer makes the schema of a document.
type writer struct {
	root     string
	packages map[string]*source // by import path
	defs     map[string]object
	named    map[string]reflect.Type // the types in defs
}

var timeType = reflect.TypeFor[time.Time]()

// schema returns the schema of a type.
func (w *writer) schema(t reflect.Type) (object, error) {
	switch {
	case t == timeType:
		return object{{"type", "string"}, {"format", "date-time"}}, nil
	case t.Implements(reflect.TypeFor[json.Marshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()):
		return nil, fmt.Errorf("%s writes its own JSON, which only the type knows", t)
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{{"type", "boolean"}}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{{"type", "integer"}}, nil
	case reflect.Float64:
		return object{{"type", "number"}}, nil
	case reflect.String:
		s := object{{"type", "string"}}
		if t.PkgPath() == "" {
			return s, nil
		}
		values, err := w.values(t)
		if len(values) > 0 {
			s = append(s, member{"enum", values})
		}
		return s, err
	case reflect.Pointer:
		return w.schema(t.Elem())
	case reflect.Slice:
		items, err := w.schema(t.Elem())
		return object{{"type", "array"}, {"items", items}}, err
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("%s has keys that are no strings", t)
		}
		values, err := w.schema(t.Elem())
		return object{{"type", "object"}, {"additionalProperties", values}}, err
	case reflect.Struct:
		return w.reference(t)
	default:
		return nil, fmt.Errorf("there is no schema of %s", t)
	}
}

// reference returns a reference to the schema of a struct in defs, where it is once.
func (w *writer) reference(t reflect.Type) (object, error) {
	name := names[t]
	if name == "" {
		name = t.Name()
	}
	ref := object{{"$ref", "#/$defs/" + name}}
	switch other, ok := w.named[name]; {
	case ok && other == t:
		return ref, nil
	case ok:
		return nil, fmt.Errorf("%s and %s have the same name: give one of them another in names", other, t)
	}
	w.named[name] = t
	body, err := w.structure(t)
	if err != nil {
		return nil, err
	}
	about, err := w.comment(t)
	w.defs[name] = append(object{{"description", about}}, body...)
	return ref, err
}

// structure returns the schema of a struct, without its comment.
func (w *writer) structure(t reflect.Type) (object, error) {
	var properties object
	required := []string{}
	if err := w.fields(t, &properties, &required); err != nil {
		return nil, err
	}
	s := object{{"type", "object"}, {"properties", properties}}
	if len(required) > 0 {
		s = append(s, member{"required", required})
	}
	return s, nil
}

// fields appends the fields of a struct and of those that are embedded in it.
func (w *writer) fields(t reflect.Type, properties *object, required *[]string) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			if err := w.fields(f.Type, properties, required); err != nil {
				return err
			}
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			return fmt.Errorf("%s.%s has no name in JSON", t, f.Name)
		}
		s, err := w.schema(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if !optional {
			*required = append(*required, name)
		}
		if f.Type.Kind() == reflect.Pointer && !optional {
			s = object{{"anyOf", []object{s, {{"type", "null"}}}}}
		}
		about, err := w.fieldComment(t, f.Name)
		if err != nil {
			return err
		}
		if about != "" {
			s = append(object{{"description", about}}, s...)
		}
		*properties = append(*properties, member{name, s})
	}
	if t.NumField() == 0 {
		return errors.New(t.String() + " has no fields")
	}
	return nil
}
