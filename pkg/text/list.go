package text

import (
	"fmt"
	"strings"
)

// Some returns the first of many names, and how many more there are.
func Some(names []string) string {
	const most = 20
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// Noun returns one for a single thing, and many for any other number of things.
func Noun(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
