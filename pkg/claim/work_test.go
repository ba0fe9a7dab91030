package claim

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
)

// A unit that fails is built once, and blocks in all jobs what comes after it.
func TestUnitFails(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		for i := range 3 {
			h := f.host(fmt.Sprint("host", i))
			h.build = func(ctx context.Context, u int) string {
				pause(ctx, 100*time.Second)
				if u == 1 {
					return string(job.OutcomeFailed)
				}
				return ""
			}
		}
		f.all()
		failed := 0
		for _, h := range f.hosts {
			if h.have[3] || !h.have[2] || len(h.outcome.Failed) != 1 || h.outcome.Failed[1] == nil {
				t.Errorf("%s: %v, %+v", h.name, h.have, h.outcome)
			}
			for _, u := range h.outcome.Units {
				if u.How == job.UnitFailed {
					failed++
				} else if u.How == job.UnitBlocked && (u.ID != f.units[1].ID || u.From == "" || u.From == h.name) {
					t.Errorf("%s: %+v", h.name, u)
				}
			}
		}
		if failed != 1 || f.began[1] != 1 || f.began[3] != 0 {
			t.Errorf("%d failures, builds: %v", failed, f.began)
		}
	})
}

// A rerun takes what the first attempt has built, and tries again what failed there.
func TestAttempts(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		first := f.host("first")
		first.build = func(ctx context.Context, u int) string {
			if u == 1 {
				return string(job.OutcomeFailed)
			}
			return ""
		}
		first.start()
		f.wait.Wait()
		again := f.host("first")
		again.Docs.Attempt = 2
		again.start()
		f.wait.Wait()
		f.once()
		if !again.have[3] || len(again.outcome.Failed) > 0 || f.began[0] != 1 || f.began[1] != 2 {
			t.Errorf("%+v, builds: %v", again.outcome, f.began)
		}
	})
	run(t, diamond, func(f *fleet) { // two at once
		f.claims = false
		for attempt := 1; attempt <= 2; attempt++ {
			for i := range 2 {
				f.host(fmt.Sprint("host", attempt, i)).Docs.Attempt = attempt
			}
		}
		f.all()
		f.served()
		for u, n := range f.began {
			if n > 2 {
				t.Errorf("unit %d was built %d times", u, n)
			}
		}
	})
}

// Clocks of machines are not compared.
func TestClocksDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		run(t, diamond, func(f *fleet) {
			f.host("right")
			f.host("wrong").started = time.Now().Add(ahead)
			f.all()
			f.once()
			f.served()
		})
	}
}

// A holder that lives but does not end is waited for no longer than is bounded.
func TestWaitIsBounded(t *testing.T) {
	run(t, [][]int{{}}, func(f *fleet) {
		f.claims = false
		first, second := f.host("first"), f.host("second")
		first.build = func(ctx context.Context, _ int) string {
			pause(ctx, 24*time.Hour)
			return string(job.OutcomeFailed)
		}
		first.start()
		time.Sleep(time.Second)
		second.start()
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		if !second.over {
			t.Error("the second one still waits")
		}
		if u := second.outcome.Units; len(u) != 1 || u[0].How != job.UnitAlone {
			t.Errorf("%+v", u)
		}
		first.cancel()
	})
}

// While a unit is on its way, the worker builds what does not need it, and looks at once afterwards.
func TestRestMeanwhile(t *testing.T) {
	run(t, [][]int{{}, {0}}, func(f *fleet) {
		f.host("first").start()
		time.Sleep(time.Second)
		second := f.host("second")
		second.May = nil
		var opens []string
		second.rest = func(ctx context.Context, open []bool) bool {
			opens = append(opens, fmt.Sprint(open))
			if slices.Equal(open, []bool{true, true}) {
				return pause(ctx, 150*time.Second) == nil
			}
			return false
		}
		second.start()
		f.wait.Wait()
		f.once()
		f.served()
		if w := second.outcome.Waited; strings.Join(opens, " ") != "[true true] [false true]" || w > 80*time.Second {
			t.Errorf("rests with %v, waited %s", opens, w)
		}
	})
}

// A failure does not win over another holder's success, whichever came first.
func TestFailureAfterSuccess(t *testing.T) {
	run(t, [][]int{{}}, func(f *fleet) {
		f.claims = false
		frozen, second := f.host("frozen"), f.host("second")
		frozen.fault = func(save bool, key string) error {
			if save && !strings.HasSuffix(key, "-00000") && time.Since(frozen.started) < 20*time.Minute {
				return errCut // no renewals
			}
			return nil
		}
		frozen.build = func(ctx context.Context, _ int) string {
			pause(ctx, 20*time.Minute)
			return string(job.OutcomeFailed)
		}
		frozen.start()
		time.Sleep(time.Second)
		second.start()
		f.wait.Wait()
		f.host("third").start()
		f.wait.Wait()
		f.once()
		f.served()
	})
}

// Servers that do not refuse a second save of a key do not make two holders, however the saves fall.
func TestLastWins(t *testing.T) {
	delays := []time.Duration{0, 500 * time.Millisecond, 2 * time.Second, 2900 * time.Millisecond, 4 * time.Second}
	for _, a := range delays {
		for _, b := range delays {
			for _, later := range delays {
				run(t, [][]int{{}}, func(f *fleet) {
					f.memory.lastWins = true
					f.claims = min(a, b) <= settle // else nobody can hold a claim
					first, second := f.host("first"), f.host("second")
					slow := func(d time.Duration) cache.Cache {
						m := f.memory
						return &slowSave{m, d}
					}
					first.cache, second.cache = slow(a), slow(b)
					first.start()
					time.Sleep(later)
					second.start()
					f.wait.Wait()
					f.served()
					if f.claims {
						f.once()
					}
					if t.Failed() {
						for _, b := range f.memory.blobs {
							t.Logf("%s %s by %s", b.at.Format("04:05.000"), b.key, b.data)
						}
						t.Fatalf("saves take %s and %s, the second began after %s", a, b, later)
					}
				})
			}
		}
	}
}

// slowSave needs a time between the check of a key and the end of a save.
type slowSave struct {
	*memory
	delay time.Duration
}

func (s *slowSave) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return s.save(ctx, key, body, size, s.delay)
}

// In one process a holder is waited for as long as it builds, and what it has built is seen at once. Its claim is not
// renewed.
func TestNear(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		for i := range 2 {
			h := f.host(fmt.Sprint("entry", i))
			h.Near = true
			h.build = func(ctx context.Context, _ int) string {
				pause(ctx, 40*time.Minute)
				return ""
			}
		}
		began := time.Now()
		f.all()
		f.once()
		f.served()
		if took := time.Since(began); took > 3*40*time.Minute+time.Minute {
			t.Errorf("it took %s", took)
		}
		if f.memory.creates > 3*len(f.units) {
			t.Errorf("%d keys were created", f.memory.creates)
		}
	})
}

// With FailFast, nothing is begun after a unit that failed, whichever worker built it.
func TestFailFast(t *testing.T) {
	run(t, [][]int{{}, {}, {}}, func(f *fleet) {
		for i := range 2 {
			h := f.host(fmt.Sprint("entry", i))
			h.Near, h.FailFast = true, true
			h.build = func(ctx context.Context, u int) string {
				pause(ctx, time.Duration(u+1)*100*time.Second)
				return string(job.OutcomeFailed)
			}
		}
		f.all()
		if slices.Contains(f.began, 2) || f.began[0]+f.began[1]+f.began[2] > 2 {
			t.Errorf("builds: %v", f.began)
		}
		for _, h := range f.hosts {
			if len(h.outcome.Failed) == 0 {
				t.Errorf("%s: %+v", h.name, h.outcome)
			}
		}
	})
}

// In one process, what comes after a unit that failed is built as far as that goes, and all are told before it.
func TestNearGoesOn(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		for i := range 3 {
			var known []string // units that failed
			h := f.host(fmt.Sprint("entry", i))
			h.Near = true
			h.Blocked = func(done *job.Done) { known = append(known, done.Unit) }
			h.build = func(ctx context.Context, u int) string {
				pause(ctx, 100*time.Second)
				if u == 3 && !slices.Contains(known, f.units[1].ID) {
					t.Errorf("%s builds what comes after a failure that it does not know", h.name)
				}
				if u == 1 || u == 3 {
					known = append(known, f.units[u].ID)
					return string(job.OutcomeFailed)
				}
				return ""
			}
		}
		f.all()
		for _, h := range f.hosts {
			if len(h.outcome.Failed) != 2 || h.outcome.Failed[1] == nil || h.outcome.Failed[3] == nil || !h.have[2] {
				t.Errorf("%s: %v, %+v", h.name, h.have, h.outcome)
			}
		}
		if !slices.Equal(f.began, []int{1, 1, 1, 1}) {
			t.Errorf("builds: %v", f.began)
		}
	})
}
