package claim

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
	"github.com/org/nix-matrix/pkg/job"
)

// kinds of calls by a part of their keys.
const (
	claims = "-claim-"
	dones  = "-done-"
)

// A holder that is killed is replaced, whenever that is, and what it has handed over stays.
func TestHolderKilled(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(h *host)
		again   bool // the unit is built twice, because its first build was lost
	}{
		{"before building", func(h *host) {
			h.after = func(save bool, key string, _ error) {
				if strings.Contains(key, claims) {
					h.kill()
				}
			}
		}, false},
		{"in building", func(h *host) {
			h.build = func(ctx context.Context, _ int) string {
				pause(ctx, 90*time.Second) // and a renewal
				h.kill()
				return string(job.OutcomeFailed)
			}
		}, false},
		{"before publishing", func(h *host) {
			h.fault = func(save bool, key string) error {
				if save && strings.Contains(key, dones) {
					h.kill()
					return errCut
				}
				return nil
			}
		}, true},
		{"after publishing", func(h *host) {
			h.after = func(save bool, key string, _ error) {
				if strings.Contains(key, dones) {
					h.kill()
				}
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, diamond, func(f *fleet) {
				first := f.host("first")
				test.prepare(first)
				first.start()
				time.Sleep(time.Second)
				f.host("second").start()
				f.host("third").start()
				began := time.Now()
				f.wait.Wait()
				if test.again {
					f.once(0)
				} else {
					f.once()
				}
				f.served()
				if took := time.Since(began); took > 15*time.Minute { // it may have claimed the next unit, too
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// One worker is cut off from the cache for a minute, whenever that is.
func TestNetworkCut(t *testing.T) {
	for _, at := range []time.Duration{0, 30 * time.Second, 80 * time.Second, 99 * time.Second, 150 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			run(t, diamond, func(f *fleet) {
				h := f.host("first")
				f.host("second")
				f.host("third")
				set := func(cut bool) {
					h.mu.Lock()
					defer h.mu.Unlock()
					h.cut = cut
				}
				f.wait.Go(func() {
					time.Sleep(at)
					set(true)
					time.Sleep(time.Minute)
					set(false)
				})
				f.all()
				f.once()
				f.served()
			})
		})
	}
}

// The service refuses every second creation as one too many.
func TestEverySecondCreationRefused(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		n := 0
		for i := range 3 {
			h := f.host(fmt.Sprint("host", i))
			h.fault = func(save bool, _ string) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if n++; save && n%2 == 0 {
					return &httpcall.StatusError{Status: http.StatusTooManyRequests}
				}
				return nil
			}
		}
		f.all()
		f.once()
		f.served()
	})
}

// Without a cache that answers, workers build the rest, give up in time, and leave the units to the
// caller.
func TestCacheThatFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		err   error
		reads bool
		most  time.Duration
	}{
		{"no lookups", errCut, false, 4 * time.Minute},
		{"no creations", errCut, true, 4 * time.Minute},
		{"read-only", cache.ErrReadOnly, true, time.Second},
		{"quota", &httpcall.StatusError{Status: http.StatusOK, Message: "insufficient usage"}, true, time.Second},
		{"nothing may be read", cache.ErrReadOnly, false, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, diamond, func(f *fleet) {
				h := f.host("host")
				h.fault = func(save bool, _ string) error {
					if save || !test.reads {
						return test.err
					}
					return nil
				}
				began := time.Now()
				f.all()
				if took := time.Since(began); took > test.most {
					t.Errorf("it took %s", took)
				}
				if len(h.outcome.Units)+len(h.outcome.Failed) > 0 || test.err == errCut && h.rests != 1 {
					t.Errorf("%+v, %d rests", h.outcome, h.rests)
				}
			})
		})
	}
}

// A token turns read-only while a unit is built: it is there, but nobody else gets it.
func TestTokenTurnsReadOnly(t *testing.T) {
	run(t, [][]int{{}, {0}}, func(f *fleet) {
		f.claims = false
		for i := range 2 {
			h := f.host(fmt.Sprint("host", i))
			began := time.Now()
			h.fault = func(save bool, _ string) error {
				if save && time.Since(began) > 50*time.Second {
					return cache.ErrReadOnly
				}
				return nil
			}
		}
		f.all()
		if len(f.built) != 1 {
			t.Errorf("built %v", f.built)
		}
		for _, h := range f.hosts {
			if !h.over {
				t.Errorf("%s is stuck", h.name)
			}
		}
	})
}

// Lookups show what was saved half a minute ago.
func TestLookupsLag(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		f.memory.lag = 30 * time.Second
		for i := range 3 {
			f.host(fmt.Sprint("host", i))
		}
		f.all()
		f.once()
		f.served()
	})
}

// A creation that was refused tells how far lookups lag.
func TestLagIsObserved(t *testing.T) {
	run(t, [][]int{{}}, func(f *fleet) {
		f.memory.lag = 70 * time.Second
		f.host("first")
		second := f.host("second")
		f.all()
		f.once()
		if lag := second.m.lag + f.hosts[0].m.lag; lag < 90*time.Second {
			t.Errorf("the lag is taken for %s", lag)
		}
	})
}

// A done document that is damaged, or of another unit, is like one that is lost.
func TestDoneDamaged(t *testing.T) {
	for name, with := range map[string]func([]byte) []byte{
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func([]byte) []byte { return []byte{0} },
		"garbage":   func([]byte) []byte { return []byte("<html>") },
		"other":     func(b []byte) []byte { return []byte(strings.Replace(string(b), "0000001", "0000002", 1)) },
		"failed without a failure": func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"built"`, `"failed"`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, [][]int{{}}, func(f *fleet) {
				f.host("first").start()
				f.wait.Wait()
				if f.memory.change(dones, with) != 1 {
					t.Fatal("no done document")
				}
				second, third := f.host("second"), f.host("third")
				third.May = nil // so it takes the second one's
				began := time.Now()
				second.start()
				third.start()
				f.wait.Wait()
				f.once(0)
				f.served()
				if took := time.Since(began); len(second.warned) != 1 || len(third.warned) != 1 || took > 3*time.Minute {
					t.Errorf("%v, %v in %s", second.warned, third.warned, took)
				}
			})
		})
	}
}

// Outputs that cannot be taken are built again by one job.
func TestPackEvicted(t *testing.T) {
	run(t, diamond, func(f *fleet) {
		f.host("first").start()
		f.wait.Wait()
		for i := range 3 {
			h := f.host(fmt.Sprint("late", i))
			h.take = func(u int) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if u == 3 && f.began[3] == 1 || u == 3 && len(f.building[3]) > 0 {
					return cache.ErrMiss
				}
				return nil
			}
			h.Needs = []bool{false, false, false, true}
			h.start()
		}
		f.wait.Wait()
		f.once(3)
		f.served()
	})
	run(t, [][]int{{}}, func(f *fleet) { // here never
		f.host("first").start()
		f.wait.Wait()
		h := f.host("second")
		h.take = func(int) error { return cache.ErrMiss }
		h.start()
		f.wait.Wait()
		f.once(0)
		f.served()
	})
}

// A job that is cancelled while it builds gives the unit back, so that others need not wait.
func TestCancelled(t *testing.T) {
	run(t, [][]int{{}}, func(f *fleet) {
		first, second := f.host("first"), f.host("second")
		first.start()
		time.Sleep(time.Second)
		second.start()
		time.Sleep(50 * time.Second)
		first.cancel()
		began := time.Now()
		f.wait.Wait()
		f.once()
		if took := time.Since(began); took > 120*time.Second {
			t.Errorf("it took %s", took)
		}
		if len(first.outcome.Failed)+len(first.outcome.Units) > 0 || !second.have[0] {
			t.Errorf("%+v", first.outcome)
		}
	})
}

// A job that cannot build a unit leaves it to others, and does not claim it again.
func TestGivenBack(t *testing.T) {
	run(t, [][]int{{}}, func(f *fleet) {
		full := f.host("full")
		full.build = func(context.Context, int) string { return string(job.OutcomeCancelled) }
		full.start()
		time.Sleep(time.Second)
		f.host("other").start()
		f.wait.Wait()
		f.once()
		f.served()
		if f.began[0] != 2 {
			t.Errorf("%d builds", f.began[0])
		}
	})
	run(t, [][]int{{}, {0}}, func(f *fleet) { // nobody else is there
		full := f.host("full")
		full.build = func(context.Context, int) string { return string(job.OutcomeCancelled) }
		began := time.Now()
		f.all()
		if took := time.Since(began); took > 6*time.Minute || f.began[0] != 1 || len(full.outcome.Units) > 0 {
			t.Errorf("%d builds in %s: %+v", f.began[0], took, full.outcome)
		}
	})
}
