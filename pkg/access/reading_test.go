package access

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/glob"
	"github.com/org/nix-matrix/pkg/push"
)

// lines is a log that is kept.
type lines struct {
	io.Writer
	all []string
}

func (*lines) Doing(string, ...any) {}
func (l *lines) Printf(format string, args ...any) {
	l.all = append(l.all, fmt.Sprintf(format, args...))
}
func (l *lines) Warn(title string, err error) { l.all = append(l.all, title+": "+err.Error()) }

func TestPushWhen(t *testing.T) {
	for _, test := range []struct {
		globs, ref string
		pushes     bool
	}{
		{"", "", true},
		{"", "refs/pull/7/merge", true},
		{"main", "refs/heads/main", true},
		{"main", "refs/tags/main", true},
		{"main", "refs/heads/main/x", false},
		{"main", "refs/pull/7/merge", false},
		{"*", "refs/heads/feature/x", false},
		{"**", "refs/heads/feature/x", true},
		{"**", "refs/pull/7/merge", false},
		{"release-* v*", "refs/tags/v1", true},
		{"refs/tags/v*", "refs/heads/v1", false},
		{"refs/tags/v*", "refs/tags/v1", true},
		{"refs/pull/**", "refs/pull/7/merge", true},
		{"** !gh-readonly-queue/**", "refs/heads/gh-readonly-queue/main/pr-7", false},
		{"!main", "refs/heads/main", false},
		{"!main", "refs/heads/topic", true},
		{"main", "", false}, // it is not known whose change it is
		{"**", "", false},
		{"!main", "", false},
	} {
		t.Run(test.globs+" "+test.ref, func(t *testing.T) {
			c := &Config{Push: []string{"attic:https://attic.example/fleet"}}
			for _, text := range strings.Fields(test.globs) {
				g, err := glob.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				c.PushWhen = append(c.PushWhen, g)
			}
			log := &lines{}
			n := &Nix{config: c, host: &Host{Log: log, ChangeRef: test.ref}}
			var err error
			if n.Destinations, err = Destinations(c.Push); err != nil {
				t.Fatal(err)
			}
			n.hold()
			if (len(n.Destinations) == 1) != test.pushes || len(n.readFrom()) != 1 || (len(log.all) == 0) != test.pushes {
				t.Errorf("pushes to %v, reads from %v, says %q", n.Destinations, n.readFrom(), log.all)
			}
		})
	}
}

func TestSubstitutersOfCachix(t *testing.T) {
	c := &Config{Substituters: []string{"https://a.example", "cachix:fleet", "s3://b"}}
	addresses, sources, err := c.substituters()
	if err != nil || strings.Join(addresses, " ") != "https://a.example s3://b" || len(sources) != 1 || sources[0].Substituter != "https://fleet.cachix.org" {
		t.Errorf("%q, %v, %v", addresses, sources, err)
	}
	for _, address := range []string{"cachix:", "cachix:a/b", "cachix:--x", "cachix:a b"} {
		c.Substituters = []string{address}
		if err := c.check(); err == nil || !strings.Contains(err.Error(), "--substituters: ") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// The filter's effect is in the log, once.
func TestTellFilter(t *testing.T) {
	log := &lines{}
	n := &Nix{host: &Host{Log: log}, Push: push.Options{}}
	n.tellFilter()
	if len(log.all) > 0 {
		t.Errorf("without a filter: %q", log.all)
	}
}
