package lazyregexp

import (
	"sync"
	"testing"
)

// In a test, a mistake is found even if nothing uses the expression.
func TestMistakeIsFoundInTests(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an expression that is not valid did not panic")
		}
	}()
	New(`(`)
}

func TestCompiledAtFirstUse(t *testing.T) {
	inTest = false
	defer func() { inTest = true }()
	mistake := New(`(`)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the use of an expression that is not valid did not panic")
			}
		}()
		mistake()
	}()

	word := New(`^[a-z]+$`)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			compiled := word()
			if !compiled.MatchString("word") || compiled.MatchString("2") || word() != compiled {
				t.Error("the expression was compiled twice, or is another one")
			}
		})
	}
	group.Wait()
}
