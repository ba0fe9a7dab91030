package s3

import "strings"

const (
	// piece is how many characters of a key are between two slashes: servers that have files below
	// them allow names of 255 bytes.
	piece = 200
	// more ends a piece that another one follows. No key has it.
	more = "~/"
)

// objectName returns the name of the object of a key, or how the names of the objects of a prefix
// begin, without the directory of its scope.
func objectName(key string) string {
	var name strings.Builder
	for len(key) > piece {
		name.WriteString(key[:piece] + more)
		key = key[piece:]
	}
	name.WriteString(key)
	return name.String()
}

// keyOf returns the key of an object, and whether the name is one that objectName returns.
func keyOf(name string) (key string, ok bool) {
	key = strings.ReplaceAll(name, more, "")
	return key, objectName(key) == name
}
