package action

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// No minute has more requests than are allowed, and none waits longer than that takes.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{most: 75}
		begin := time.Now()
		var sent []time.Time
		for range 500 {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, time.Now())
			time.Sleep(100 * time.Millisecond)
		}
		for i := range sent[75:] {
			if d := sent[i+75].Sub(sent[i]); d < time.Minute {
				t.Fatalf("76 requests in %v", d)
			}
		}
		if took := time.Since(begin); took > 7*time.Minute {
			t.Errorf("500 requests took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 76 {
			_ = p.wait(ctx)
		}
		if ctx.Err() == nil {
			t.Error("76 requests in a second")
		}
	})
}
