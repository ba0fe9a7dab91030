package actions_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
)

type refusal struct {
	status int
	header []string // names and values
}

// clocked is an empty service that records the second of each call. It answers the first
// creations with the refusals.
type clocked struct {
	refusals []refusal
	slow     time.Duration // how long they take
	start    time.Time
	mu       sync.Mutex
	called   []string
}

func (c *clocked) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	method := strings.NewReplacer(create, "create", finalize, "finalize", find, "find").Replace(path.Base(r.URL.Path))
	c.called = append(c.called, fmt.Sprintf("%s %d", method, time.Since(c.start)/time.Second))
	resp := status(http.StatusCreated)
	switch method {
	case "create":
		if len(c.refusals) > 0 {
			r := c.refusals[0]
			c.refusals = c.refusals[1:]
			c.mu.Unlock()
			time.Sleep(c.slow)
			c.mu.Lock()
			return status(r.status, r.header...), nil
		}
		resp.Body = io.NopCloser(strings.NewReader(`{"ok":true,"signed_upload_url":"http://storage.example/c/blob"}`))
	case "finalize":
		resp.Body = io.NopCloser(strings.NewReader(`{"ok":true,"entry_id":"1"}`))
	}
	return resp, nil
}

func (c *clocked) calls(method string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var at []string
	for _, call := range c.called {
		if seconds, ok := strings.CutPrefix(call, method+" "); ok {
			at = append(at, seconds)
		}
	}
	return strings.Join(at, " ")
}

func (c *clocked) cache() cache.Cache {
	c.start = time.Now()
	return actions.New(actions.Config{Protocol: actions.V2, URL: "http://service.example", Wait: 10 * time.Second, Transport: c})
}

// TestCreationsPause has one save refused for a time: another one waits too, but a lookup does
// not.
func TestCreationsPause(t *testing.T) {
	for _, test := range []struct {
		name   string
		header []string
		check  func(seconds string) bool
	}{
		{"Retry-After", []string{"Retry-After", "30"}, func(at string) bool { return at == "0 30 30" }},
		// From one to two times the unit of 10 s.
		{"no Retry-After", nil, func(at string) bool {
			var zero, first, second int
			fmt.Sscan(at, &zero, &first, &second)
			return zero == 0 && first == second && first >= 10 && first <= 20
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := &clocked{refusals: []refusal{{http.StatusTooManyRequests, test.header}}}
				c := service.cache()
				var saves sync.WaitGroup
				saves.Go(func() { save(t, c, "one", "text") })
				time.Sleep(5 * time.Second)
				saves.Go(func() { save(t, c, "two", "text") })
				if _, err := c.Open(t.Context(), "three"); !errors.Is(err, cache.ErrMiss) {
					t.Errorf("open: %v, want ErrMiss", err)
				}
				saves.Wait()
				if at := service.calls("create"); !test.check(at) {
					t.Errorf("creations at %s", at)
				}
				if at := service.calls("find"); at != "5" {
					t.Errorf("lookups at %s, want 5", at)
				}
			})
		})
	}
}

// TestLongestPauseCounts has two saves refused at the same time.
func TestLongestPauseCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &clocked{slow: time.Second, refusals: []refusal{
			{http.StatusTooManyRequests, []string{"Retry-After", "10"}},
			{http.StatusTooManyRequests, []string{"Retry-After", "60"}},
		}}
		c := service.cache()
		var saves sync.WaitGroup
		for _, key := range []string{"one", "two"} {
			saves.Go(func() { save(t, c, key, "text") })
		}
		saves.Wait()
		if at := service.calls("create"); at != "0 0 61 61" {
			t.Errorf("creations at %s, want 0 0 61 61", at)
		}
	})
}

// TestLongPauseOfCreations has the service ask for a longer pause than the timeout
// allows.
func TestLongPauseOfCreations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &clocked{refusals: []refusal{{http.StatusTooManyRequests, []string{"Retry-After", "3600"}}}}
		c := service.cache()
		for _, key := range []string{"one", "two"} {
			err := c.Save(t.Context(), key, strings.NewReader("text"), 4)
			if err == nil || !strings.Contains(err.Error(), "(try again in 1h0m0s)") {
				t.Errorf("save: %v", err)
			}
		}
		if at := service.calls("create"); at != "0" {
			t.Errorf("creations at %s, want 0", at)
		}
		time.Sleep(59 * time.Minute)
		save(t, c, "three", "text")
		if at := service.calls("create"); at != "0 3600" {
			t.Errorf("creations at %s, want 0 3600", at)
		}
	})
}

func TestLongPauseOfReservationsV1(t *testing.T) {
	reserved := 0
	c := actions.New(actions.Config{Protocol: actions.V1, URL: "http://service.example/", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet {
			return status(http.StatusNoContent), nil
		}
		reserved++
		return status(http.StatusTooManyRequests, "Retry-After", "3600"), nil
	})})
	for _, key := range []string{"one", "two"} {
		if err := c.Save(t.Context(), key, strings.NewReader("text"), 4); err == nil || !strings.Contains(err.Error(), "try again in 1h0m0s") {
			t.Errorf("save: %v", err)
		}
	}
	if reserved != 1 {
		t.Errorf("%d reservations, want 1", reserved)
	}
}

func TestCancelWhileCreationsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &clocked{refusals: []refusal{{http.StatusTooManyRequests, []string{"Retry-After", "60"}}}}
		c := service.cache()
		var saves sync.WaitGroup
		saves.Go(func() { save(t, c, "one", "text") })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(7*time.Second, cancel)
		err := c.Save(ctx, "two", strings.NewReader("text"), 4)
		if !errors.Is(err, context.Canceled) || time.Since(service.start) != 7*time.Second {
			t.Errorf("save: %v after %s", err, time.Since(service.start))
		}
		saves.Wait()
	})
}

// TestOtherFaultsPauseNothing has a creation fail in a way that says nothing of
// others.
func TestOtherFaultsPauseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &clocked{refusals: []refusal{{http.StatusInternalServerError, nil}}}
		c := service.cache()
		var saves sync.WaitGroup
		saves.Go(func() { save(t, c, "one", "text") })
		time.Sleep(5 * time.Second)
		save(t, c, "two", "text")
		if at := service.calls("create"); at != "0 5" {
			t.Errorf("creations at %s, want 0 5", at)
		}
		saves.Wait()
	})
}
