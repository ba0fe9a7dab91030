package realise

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

// A stop ends the pause before a retry.
func TestCancelWhilePausing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &store{
			inputs: map[string][]string{"host": {"src"}, "user": {"lib"}}, fixed: map[string]bool{"src": true}, valid: map[string]bool{},
			fails: map[string]string{"src": failed("src"), "lib": failed("lib")}, succeeds: map[string]int{"src": 2},
		}
		start := time.Now()
		got, err := Run(ctx, s, targetsOf("good", "user", "host"), Options{
			Emit: func(nix.Event) {}, Retries: pauses, Retrying: func([]string, time.Duration) { time.AfterFunc(time.Second, cancel) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if paused := time.Since(start); paused != time.Second {
			t.Errorf("it paused for %v", paused)
		}
		if s.tries["src"] != 1 || outcomes(got) != "built failed failed" || builds(got) != "good lib! src!" {
			t.Errorf("%d tries, %s, %s", s.tries["src"], outcomes(got), builds(got))
		}
		if host := got.Targets[2]; host.Cause != drvPath("src") || !strings.HasPrefix(host.Error, failed("src")) {
			t.Errorf("got %+v", host)
		}
	})
}

// A download that fails just before a stop is not retried.
func TestCancelWhileBuilding(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &store{fixed: map[string]bool{"src": true}, valid: map[string]bool{}, fails: map[string]string{"src": failed("src")}, stop: "slow", cancel: cancel}
	got, err := Run(ctx, s, targetsOf("src", "slow"), Options{Emit: func(nix.Event) {}, Retries: pauses, Retrying: func([]string, time.Duration) {
		t.Error("it is to be tried again")
	}})
	if err != nil || outcomes(got) != "failed cancelled" || builds(got) != "src! slow" {
		t.Errorf("%s, %s, %v", outcomes(got), builds(got), err)
	}
}

// A retry that is stopped decides nothing about its derivations.
func TestCancelWhileRetrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &store{
			inputs: map[string][]string{"host": {"src"}}, fixed: map[string]bool{"src": true}, valid: map[string]bool{},
			fails: map[string]string{"src": failed("src")}, succeeds: map[string]int{"src": 2}, stop: "src", cancel: cancel,
		}
		got, err := Run(ctx, s, targetsOf("host"), Options{Emit: func(nix.Event) {}, Retries: pauses, Retrying: func([]string, time.Duration) {}})
		if err != nil {
			t.Fatal(err)
		}
		if s.tries["src"] != 2 || outcomes(got) != "cancelled" || builds(got) != "src! src" {
			t.Errorf("%d tries, %s, %s", s.tries["src"], outcomes(got), builds(got))
		}
	})
}
