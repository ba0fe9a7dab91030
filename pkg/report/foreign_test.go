package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExcerpt(t *testing.T) {
	t.Parallel()
	all := strings.Split("one two three four five six seven eight nine ten", " ")
	for name, tt := range map[string]struct {
		limit int
		both  bool
		want  string
	}{
		"all":          {100, false, strings.Join(all, "\n")},
		"the end":      {15, false, "… 7 lines left out …\neight\nnine\nten"},
		"both ends":    {20, true, "one\ntwo\n… 6 lines left out …\nnine\nten"},
		"all of both":  {100, true, strings.Join(all, "\n")},
		"hardly a bit": {4, true, "… 9 lines left out …\nten"},
	} {
		if got, want := excerpt(all, tt.limit, tt.both), "```\n"+tt.want+"\n```\n\n"; got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
	}
	if got := excerpt(all, 2, true); got != "" {
		t.Errorf("no room: %q", got)
	}
	if got := excerpt([]string{strings.Repeat("é", 5000)}, 1<<20, false); len(got) > 2100 || !strings.Contains(got, "é…\n") {
		t.Errorf("a long line has %d bytes", len(got))
	}
}

func TestDurationsAndSizes(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{-1: "–", 0: "–", 72: "1m12s", 1e300: "27777h46m"} {
		if got := duration(seconds); got != want {
			t.Errorf("%v: %s, want %s", seconds, got, want)
		}
	}
	for bytes, want := range map[int64]string{-1: "–", 0: "–", 3 << 29: "1.5 GiB", 5 << 20: "5.0 MiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%v: %s, want %s", bytes, got, want)
		}
	}
}
