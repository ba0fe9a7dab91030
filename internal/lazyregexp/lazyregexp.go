// Package lazyregexp compiles regular expressions when they are used first. The program has
// more than a hundred, most commands use few, and to compile all takes half of the time that
// the program needs to start.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// inTest says that this process is a test, in which an expression with a mistake must fail even
// if nothing uses it.
var inTest = len(os.Args) > 0 && strings.HasSuffix(strings.TrimSuffix(os.Args[0], ".exe"), ".test")

// Regexp returns a compiled expression, the same one each time, to any number of goroutines. It
// panics if the expression is not valid, as regexp.MustCompile does.
type Regexp func() *regexp.Regexp

// New returns the Regexp of an expression, which is compiled at the first call.
func New(expression string) Regexp {
	compiled := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
	if inTest {
		compiled()
	}
	return compiled
}
