package progress

import (
	"fmt"
	"strings"
	"time"
)

// startHeartbeat starts a goroutine that names the steps in progress in a silent log. The caller
// holds the lock.
func (d *Display) startHeartbeat() {
	if d.stop != nil || d.closed { // a terminal has its live line
		return
	}
	d.stop = make(chan struct{})
	d.written = d.now()
	d.wait.Go(d.beat)
}

// beat breaks each long silence, until Close.
func (d *Display) beat() {
	timer := time.NewTimer(d.silence)
	defer timer.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-timer.C:
			d.mu.Lock()
			timer.Reset(d.breakSilence())
			d.mu.Unlock()
		}
	}
}

// breakSilence writes the steps in progress, if nothing was written for long enough, and returns
// the time to the next check. The caller holds the lock.
func (d *Display) breakSilence() time.Duration {
	now := d.now()
	d.showSettled(now)
	if left := d.silence - now.Sub(d.written); left > 0 {
		return left
	}
	if line := d.ongoing(); line != "" && !d.closed {
		d.printf("%s", line)
	}
	return d.silence
}

// ongoing returns a line about the steps in progress, or "".
func (d *Display) ongoing() string {
	const most = 5 // names in a line
	var parts []string
	for _, kind := range []struct {
		what  string
		begun map[string]time.Time
	}{{"building", d.running}, {"fetching", d.fetching}} {
		if len(kind.begun) == 0 {
			continue
		}
		first := time.Time{}
		for _, t := range kind.begun {
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
		parts = append(parts, fmt.Sprintf("%s after %s: %s", kind.what, d.ago(first), strings.Join(d.names(kind.begun, most), ", ")))
	}
	if len(parts) == 0 && d.doing != "" {
		parts = append(parts, fmt.Sprintf("%s after %s", d.doing, d.ago(d.since)))
	}
	if len(parts) == 0 {
		return ""
	}
	return "still " + strings.Join(parts, "; ")
}
