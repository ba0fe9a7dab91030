package report

import (
	"strings"
	"testing"
)

func TestABodyThatIsTooLargeLeavesTheName(t *testing.T) {
	t.Parallel()
	sized := func(name string, size int) block {
		return block{groups: []nameGroup{{names: nameList{shown: []string{name}}}}, body: func(int) string { return strings.Repeat("x", size) }}
	}
	s := section{title: "Failed", blocks: []block{sized("a", 5000), sized("b", 1000), sized("c", 1000)}}
	room := 2500
	got := s.render(4096, &room)
	if strings.Count(got, "x") != 2000 || room != 500 || !strings.Contains(got, "- a\n") {
		t.Errorf("%d bytes of room left:\n%s", room, got)
	}
	if len(got) > s.minSize()+2000 {
		t.Errorf("%d bytes, %d were announced", len(got), s.minSize()+2000)
	}
}

func TestABodyWithoutRoomIsNotBegun(t *testing.T) {
	t.Parallel()
	s := section{title: "Failed", blocks: []block{{groups: []nameGroup{{names: nameList{shown: []string{"a"}}}}, body: func(limit int) string { return strings.Repeat("x", limit) }}}}
	room := minBody - 1
	if got := s.render(4096, &room); strings.Contains(got, "xx") || !strings.Contains(got, "- a\n") {
		t.Errorf("a body of %d bytes was begun", minBody-1)
	}
}
