// Package schema is about the JSON Schemas in docs/schema, which its command generate writes.
package schema

//go:generate go run ./generate
