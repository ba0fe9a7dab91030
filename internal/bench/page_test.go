package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// New rows take the place of old rows of the same work, and the other rows stay.
func TestPageWith(t *testing.T) {
	first := pageWith("", []row{{"a", "b", "1 s", "≤ 2 s", true}, {"a", "c", "5 | 6", "≤ 2", false}}, "Monday")
	second := pageWith(first, []row{{"a", "c", "1", "≤ 2", true}, {"d", "–", "3", "4", true}}, "Tuesday")
	_, rows, _ := strings.Cut(second, "|---|\n")
	want := "| a | b | 1 s | ≤ 2 s | yes | Monday |\n| a | c | 1 | ≤ 2 | yes | Tuesday |\n| d | – | 3 | 4 | yes | Tuesday |\n"
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(first, "| 5 \\| 6 | ≤ 2 | no | Monday |") {
		t.Errorf("got %s", first)
	}
}
