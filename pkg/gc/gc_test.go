package gc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/gc"
)

var (
	hex16 = "0123456789abcdef"
	hex32 = hex16 + hex16
)

const (
	day  = 24 * time.Hour
	main = "refs/heads/main"
	pull = "refs/pull/7/merge"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// entry returns an entry that was created and used so many days ago.
func entry(key, ref string, size int64, created, used float64) action.CacheEntry {
	ago := func(days float64) time.Time { return now.Add(-time.Duration(days * float64(day))) }
	return action.CacheEntry{Key: key, Ref: ref, Size: size, Created: ago(created), Used: ago(used)}
}

var (
	plan       = "nix-plan0-" + hex32
	drvs       = "nix-drvs0-" + hex32
	evaluation = "nix-evaluation-" + hex32 + "-" + hex16
	inputs     = "nix-inputs--" + hex32 + "-" + hex32
)

func TestDecide(t *testing.T) {
	const topic, queue = "refs/heads/topic", "refs/heads/queue/8"
	proposed := func(ref string) bool { return ref == pull || ref == queue }
	rules := gc.Rules{ID: "nix", Now: now, Keep: 7 * day, DefaultRef: main, Proposed: proposed}
	within := func(budget int64) gc.Rules {
		r := rules
		r.Budget = budget
		return r
	}
	naming := func(packs ...string) gc.Rules {
		r := rules
		r.Named = map[string]map[string]time.Time{main: {}}
		for _, p := range packs {
			r.Named[main][p] = time.Time{}
		}
		return r
	}
	needing := func(budget int64, needed map[string]float64) gc.Rules {
		r := within(budget)
		r.Named = map[string]map[string]time.Time{main: {}}
		for key, days := range needed {
			r.Named[main][key] = entry(key, main, 0, days, days).Used
		}
		return r
	}
	const newer = ", and there is a newer one"
	for name, test := range map[string]struct {
		rules   gc.Rules
		entries []action.CacheEntry
		want    []string // KEY REF: WHY of what goes
	}{
		"nothing": {rules: rules},
		"somebody else's": {rules, []action.CacheEntry{
			entry("other-plan0-"+hex32, main, 1, 90, 90), entry("nix-two-plan0-"+hex32, main, 1, 90, 90), entry("nix-cache", main, 1, 90, 90),
		}, nil},
		"plans and drv packs by last use": {rules, []action.CacheEntry{
			entry(plan, main, 1, 9, 8), entry(drvs, main, 1, 9, 8), entry(plan, pull, 1, 9, 6), entry(drvs, pull, 1, 9, 7),
		}, []string{drvs + " " + main + ": not used for 8 days", plan + " " + main + ": not used for 8 days"}},
		"the newest of a ref stays": {rules, []action.CacheEntry{
			entry(evaluation, main, 1, 30, 30), entry(evaluation, pull, 1, 60, 60),
			entry(inputs, main, 1, 30, 30), entry("nix-record-a", main, 1, 30, 30), entry("nix-index-a", main, 1, 30, 30),
		}, nil},
		"what is older goes": {rules, []action.CacheEntry{
			entry("nix-record-a", main, 1, 40, 8), entry("nix-record-b", main, 1, 30, 30), entry("nix-record-c", main, 1, 41, 1),
			entry("nix-index-a", main, 1, 40, 9), entry("nix-index-b", main, 1, 30, 30),
			entry("nix-inputs--"+strings.Repeat("a", 32)+"-"+hex32, main, 1, 40, 10), entry(inputs, main, 1, 30, 30),
		}, []string{
			"nix-inputs--" + strings.Repeat("a", 32) + "-" + hex32 + " " + main + ": not used for 10 days" + newer,
			"nix-index-a " + main + ": not used for 9 days" + newer,
			"nix-record-a " + main + ": not used for 8 days" + newer,
		}},
		"packs without an index": {rules, []action.CacheEntry{entry("nix-pack-a", main, 1, 2, 2), entry("nix-pack-b", main, 1, 0.5, 0.5)},
			[]string{"nix-pack-a " + main + ": no index names it"}},
		"packs, and an index that is not read": {rules, []action.CacheEntry{entry("nix-pack-a", main, 1, 90, 90), entry("nix-index-a", main, 1, 2, 2)}, nil},
		"packs that an index names": {naming("nix-pack-a"), []action.CacheEntry{
			entry("nix-pack-a", main, 1, 90, 90), entry("nix-pack-b", main, 1, 90, 90), entry("nix-index-a", main, 1, 2, 2),
			entry("nix-pack-b", pull, 1, 90, 90), entry("nix-index-c", pull, 1, 2, 2),
		}, []string{"nix-pack-b " + main + ": no index names it"}},
		"the newest index of each system": {rules, []action.CacheEntry{
			entry("nix-index-1++x86_64-linux+main+1=2b1=2b1.0", main, 1, 40, 40), entry("nix-index-1++x86_64-linux+main+2=2b1=2b1.0", main, 1, 30, 30),
			entry("nix-index-1++aarch64-linux+main+1=2b1=2b1.0", main, 1, 50, 50),
		}, []string{"nix-index-1++x86_64-linux+main+1=2b1=2b1.0 " + main + ": not used for 40 days" + newer}},
		"an index of an older format, after a newer one": {naming(), []action.CacheEntry{
			entry("nix-index-1++x86_64-linux+main+1=2b1=2b1.0", main, 1, 40, 8), entry("nix-index-2++x86_64-linux+main+2=2b1=2b1.0", main, 1, 30, 30),
			entry("nix-index-1++aarch64-linux+main+1=2b1=2b1.0", main, 1, 50, 50),
		}, []string{"nix-index-1++x86_64-linux+main+1=2b1=2b1.0 " + main + ": not used for 8 days" + newer}},
		"over the budget, what others lean on last": {needing(25, map[string]float64{"nix-pack-base": 1, "nix-pack-old": 6, "nix-pack-new": 1}), []action.CacheEntry{
			entry("nix-pack-base", main, 20, 30, 30), entry("nix-pack-old", main, 10, 6, 6), entry("nix-pack-new", main, 10, 1, 1), entry("nix-index-a", main, 1, 1, 1),
		}, []string{
			"nix-pack-old " + main + ": over the budget of 25 B, and not used for 6 days",
			"nix-pack-new " + main + ": over the budget of 25 B, and not used for 24 hours",
		}},
		"within the budget": {within(30), []action.CacheEntry{entry(plan, main, 10, 1, 1), entry(drvs, main, 20, 1, 1)}, nil},
		"over the budget": {within(25), []action.CacheEntry{
			entry(plan, main, 10, 3, 1), entry(drvs, main, 10, 2, 2), entry(evaluation, pull, 10, 2, 0.25), entry(plan, pull, 100, 30, 30),
		}, []string{
			plan + " " + pull + ": not used for 30 days",
			evaluation + " " + pull + ": over the budget of 25 B, and not used for 6 hours",
		}},
		"over the budget, proposals first": {within(25), []action.CacheEntry{
			entry(plan, main, 10, 6, 6), entry(drvs, main, 10, 6, 6), entry(drvs, topic, 10, 5, 5), entry(plan, topic, 4, 1, 1),
			entry("nix-pack-a", pull, 1000, 0, 0), entry("nix-index-a", pull, 10, 0, 0), entry(drvs, queue, 10, 0, 0),
		}, []string{
			drvs + " " + topic + ": over the budget of 25 B, and not used for 5 days",
			drvs + " " + queue + ": over the budget of 25 B, and not used for 0 minutes",
			"nix-index-a " + pull + ": over the budget of 25 B, and not used for 0 minutes",
			"nix-pack-a " + pull + ": over the budget of 25 B, and not used for 0 minutes",
		}},
		"the default branch's newest record and index": {within(1), []action.CacheEntry{
			entry("nix-record-a", main, 10, 3, 3), entry("nix-record-b", main, 10, 2, 2), entry("nix-index-a", main, 10, 4, 4), entry("nix-record-c", pull, 10, 0, 0),
		}, []string{
			"nix-record-a " + main + ": over the budget of 1 B, and not used for 3 days",
			"nix-record-c " + pull + ": over the budget of 1 B, and not used for 0 minutes",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range gc.Decide(test.entries, test.rules) {
				if d.Why != "" {
					got = append(got, d.Key+" "+d.Ref+": "+d.Why)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("what goes differs:\n%s", diff)
			}
		})
	}
}

// A cache without scopes and times of use, such as a directory.
func TestDecideDirectory(t *testing.T) {
	entries := []action.CacheEntry{
		{Key: "nix-record-a", Created: now.Add(-9 * day)}, {Key: "nix-record-b", Created: now.Add(-8 * day)}, {Key: plan, Created: now.Add(-8 * day)},
		{Key: drvs, Created: now.Add(-6 * day)},
	}
	var gone []string
	for _, d := range gc.Decide(entries, gc.Rules{ID: "nix", Now: now, Keep: 7 * day}) {
		if d.Why != "" {
			gone = append(gone, d.Key)
		}
	}
	if want := []string{"nix-record-a", plan}; !slices.Equal(gone, want) {
		t.Errorf("%v, want %v", gone, want)
	}
}

// In a bucket nothing is evicted: all entries of a scope go together, once none was used for a while.
func TestExpires(t *testing.T) {
	const old, busy = "proposals/old", "proposals/busy"
	rules := gc.Rules{ID: "nix", Now: now, Keep: 7 * day, Expires: func(ref string) bool { return ref != "" }}
	entries := []action.CacheEntry{
		entry("nix-record-a-1", "", 1, 30, 30),
		entry("nix-record-a-2", old, 1, 30, 30), entry("nix-index-a+1", old, 1, 8, 8), entry("nix-pack-a-0", old, 1, 8, 8),
		entry("nix-record-a-3", busy, 1, 30, 30), entry("nix-index-a+1", busy, 1, 8, 8), entry("nix-pack-a-0", busy, 1, 1, 1),
	}
	for _, d := range gc.Decide(entries, rules) {
		why := ""
		if d.Ref == old {
			why = "nothing of its branch or pull request was used for 8 days"
		}
		if d.Why != why {
			t.Errorf("%s of %q: %q", d.Key, d.Ref, d.Why)
		}
	}
}
