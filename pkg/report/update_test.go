package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// updated is an update of two inputs that changes five targets.
func updated() *Update {
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	pin := func(address, digit string, day time.Time) nix.Pin {
		return nix.Pin{Address: address, Rev: strings.Repeat(digit, 40), Modified: day}
	}
	before := planOf(host("nas", "x86_64-linux"), host("pi3", "aarch64-linux"), host("old", ""), unevaluated(host("new", ""), missing), pkg("hello"), pkg("gone"), pkg("same"))
	after := planOf(host("nas", "x86_64-linux"), host("pi3", "aarch64-linux"), unevaluated(host("old", ""), missing), host("new", ""), skipped(pkg("hello"), "offered by a substituter"), pkg("fresh"), pkg("same"))
	for i := range after.Targets {
		if t := &after.Targets[i]; t.DrvPath != "" && t.Name != pkg("same").Name {
			t.DrvPath = strings.TrimSuffix(t.DrvPath, ".drv") + "-2.drv"
		}
	}
	closures := map[string]verdict.Closure{
		before.Targets[0].DrvPath: {Bytes: 3 << 30},
		before.Targets[4].DrvPath: {Bytes: 30 << 20, Parts: map[string]int64{"hello": 1 << 20, "glibc": 29 << 20}},
		after.Targets[4].DrvPath:  {Bytes: 32 << 20, Parts: map[string]int64{"hello": 1 << 20, "glibc": 31 << 20}},
	}
	return &Update{
		Inputs: []nix.InputChange{
			{Name: "home-manager", After: pin("github:nix-community/home-manager", "a", day)},
			{Name: "nixpkgs", Before: pin("github:NixOS/nixpkgs/nixos-26.05", "b", day), After: pin("github:NixOS/nixpkgs/nixos-26.05", "c", day.AddDate(0, 0, 7))},
			{Name: "home-manager/flake-utils", Before: nix.Pin{Address: "https://example.org/x.tar.gz", Hash: "sha256-" + strings.Repeat("h", 43) + "="}},
		},
		Plan: after, Change: verdict.ComparePlans(before, after, closures, 23, map[string]int{after.Targets[0].DrvPath: 12, after.Targets[1].DrvPath: 11}),
		Rebuild:      &plan.Rebuild{Count: 23, Dependencies: []plan.Rebuilt{{DrvPath: drv("linux-6.12.9"), Targets: 2}, {DrvPath: drv("firefox-145.0"), Targets: 1}}},
		Substituters: []string{"https://cache.nixos.org/", "s3://bucket?region=x"},
	}
}

func TestUpdateGolden(t *testing.T) {
	t.Parallel()
	u := updated()
	golden(t, "update.md", UpdateMarkdown(u, 60_000))
	u.Change = nil
	if md := UpdateMarkdown(u, 60_000); !strings.Contains(md, "Unknown, since the flake could not be evaluated before; 23 missing derivations to build.") {
		t.Errorf("nothing to compare with:\n%s", md)
	}
}

func TestUpdateTitle(t *testing.T) {
	t.Parallel()
	var many []nix.InputChange
	for i := range 50 {
		many = append(many, nix.InputChange{Name: fmt.Sprintf("input-%d", i)})
	}
	for want, inputs := range map[string][]nix.InputChange{
		"flake.lock: update":                              {{Name: "a/b"}},
		"flake.lock: update home-manager, nixpkgs":        updated().Inputs,
		"flake.lock: update 1 input":                      {{Name: "*closes* #1"}},
		"flake.lock: update input-0, input-1 and 48 more": many,
	} {
		if got := UpdateTitle(inputs, 50); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestUpdateMessage(t *testing.T) {
	t.Parallel()
	const want = `- home-manager: new, github:nix-community/home-manager aaaaaaaaaa of 2026-11-20
- nixpkgs: github:NixOS/nixpkgs/nixos-26.05 bbbbbbbbbb of 2026-11-20 → github:NixOS/nixpkgs/nixos-26.05 cccccccccc of 2026-11-27
- home-manager/flake-utils: gone
`
	if diff := cmp.Diff(want, UpdateMessage(updated().Inputs)); diff != "" {
		t.Error(diff)
	}
}

// Text of a lock file or of a flake means nothing in Markdown and in the message of a commit, and the section stays within
// its limit.
func TestHostileUpdate(t *testing.T) {
	t.Parallel()
	of := func(s string, n int) *Update {
		u := &Update{Plan: planOf(unevaluated(host("a", ""), s)), Change: &verdict.Change{}, Rebuild: &plan.Rebuild{}, Substituters: []string{"https://cache.nixos.org"}}
		u.Plan.Targets[0].Name = s
		for range n {
			u.Inputs = append(u.Inputs, nix.InputChange{Name: s, Before: nix.Pin{Address: s, Rev: s, Hash: s}, After: nix.Pin{Address: "x" + s, Rev: s}})
			u.Change.Changed = append(u.Change.Changed, verdict.ChangedTarget{Name: s, Before: 1, After: 2, Growths: []verdict.Growth{{Package: s, Before: 1, After: 2}}})
			u.Change.Added, u.Change.Removed = append(u.Change.Added, s), append(u.Change.Removed, s)
			u.Rebuild.Dependencies = append(u.Rebuild.Dependencies, plan.Rebuilt{DrvPath: "/nix/store/" + strings.Repeat("0", 32) + "-" + s, Targets: 2})
		}
		return u
	}
	plainly := structure(UpdateMarkdown(of("plain", 1), 60_000))
	for _, s := range hostileTexts {
		u := of(s, 1)
		md := UpdateMarkdown(u, 60_000)
		checkMarkdown(t, s, md)
		if diff := cmp.Diff(plainly, structure(md)); diff != "" && len(text.Lines(s)) == 1 && !strings.ContainsAny(s, "\r\n") && strings.TrimSpace(text.Line(s)) != "" && len(s) < 200 {
			t.Errorf("%.100q changes the structure:\n%s", s, diff)
		}
		if message := UpdateMessage(u.Inputs); strings.ContainsAny(message, "#@`<*[") || strings.Count(message, "\n") != 1 {
			t.Errorf("%.100q becomes the message %q", s, message)
		}
		if title := UpdateTitle(u.Inputs, 100); strings.ContainsAny(title, "#@`<*[\n") || len(title) > 100 {
			t.Errorf("%.100q becomes the title %q", s, title)
		}
	}
	const limit = 45_000
	for _, s := range []string{strings.Repeat("`|", 500), strings.Repeat("x", 5000)} {
		md := UpdateMarkdown(of(s, 1000), limit)
		checkMarkdown(t, s, md)
		if len(md) > job.MaxBody {
			t.Errorf("%d bytes", len(md))
		}
	}
}
