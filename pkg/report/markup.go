package report

import (
	"bytes"
	"html"
	"strings"
)

// A node writes a part of an HTML page; nil writes nothing.
//
// Pages are made of nodes, and not with html/template: its calls of methods by name would keep every exported
// method of every type in the program, which are several megabytes.
type node func(*bytes.Buffer)

// A tag is the text of a start tag, without its brackets. It is a constant of this package; foreign text is the
// value of an attribute, or a str.
type tag string

// attr returns the tag with a further attribute.
func (t tag) attr(name tag, value string) tag {
	return t + " " + name + `="` + tag(html.EscapeString(value)) + `"`
}

func (t tag) end() string {
	name, _, _ := strings.Cut(string(t), " ")
	return "</" + name + ">"
}

// str writes text.
func str(s string) node {
	return func(b *bytes.Buffer) { b.WriteString(html.EscapeString(s)) }
}

// el writes an element.
func el(t tag, children ...node) node {
	return func(b *bytes.Buffer) {
		b.WriteString("<" + string(t) + ">")
		group(children...)(b)
		b.WriteString(t.end())
	}
}

// line writes an element that begins a line.
func line(t tag, children ...node) node {
	return func(b *bytes.Buffer) {
		b.WriteByte('\n')
		el(t, children...)(b)
	}
}

// nest writes an element whose start and end are lines.
func nest(t tag, children ...node) node {
	return func(b *bytes.Buffer) {
		b.WriteString("\n<" + string(t) + ">")
		group(children...)(b)
		b.WriteString("\n" + t.end())
	}
}

// void writes a line with an element that has no end tag.
func void(t tag) node {
	return func(b *bytes.Buffer) { b.WriteString("\n<" + string(t) + ">") }
}

// leaf writes an element of SVG without content.
func leaf(t tag) node {
	return func(b *bytes.Buffer) { b.WriteString("<" + string(t) + "/>") }
}

// group writes nodes one after another.
func group(nodes ...node) node {
	return func(b *bytes.Buffer) {
		for _, n := range nodes {
			if n != nil {
				n(b)
			}
		}
	}
}

// each writes a node for every element of a list.
func each[T any](all []T, of func(T) node) node {
	nodes := make([]node, len(all))
	for i, one := range all {
		nodes[i] = of(one)
	}
	return group(nodes...)
}

// when returns a node that writes the nodes if the condition holds.
func when(holds bool, nodes ...node) node {
	if !holds {
		return nil
	}
	return group(nodes...)
}
