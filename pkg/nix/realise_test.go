package nix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRealise(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		offer(t, n, drvs, outs)
		var events []Event
		err := n.WithOptions(substitute...).Realise(t.Context(), wanted(drvs), func(e Event) { events = append(events, e) })
		checkRecorded(t, events)
		var failed *Error
		if !errors.As(err, &failed) || !slices.ContainsFunc(events, func(e Event) bool { return e.Kind == ErrorMessage && e.Text == failed.Message }) {
			t.Errorf("the error is %v", err)
		}
		valid, err := n.Valid(t.Context(), slices.Collect(maps.Values(outs))...)
		if err != nil {
			t.Fatal(err)
		}
		// A failed derivation does not stop the others.
		if diff := cmp.Diff(map[string]bool{outs["fetched"]: true, outs["talks"]: true}, valid); diff != "" {
			t.Error(diff)
		}
	})
}

// derive returns an expression with a derivation of that name.
func derive(name, script string) string {
	return fmt.Sprintf(`{ %[1]s = derivation { name = "%[1]s"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "%[2]s" ]; }; }`, name, script)
}

// A cancelled build is not killed: Nix stops it and releases its locks.
func TestRealiseStops(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs := instantiate(t, n, derive("endless", "while echo still here; do :; done"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stopped := false
		err := n.Realise(ctx, []string{drvs["endless"]}, func(e Event) {
			switch e.Kind {
			case BuildLine:
				cancel()
			case BuildStopped:
				stopped = true
			}
		})
		if err == nil || !strings.Contains(err.Error(), "interrupted") || !stopped {
			t.Errorf("got %v, the builder was stopped: %t", err, stopped)
		}
	})
}
