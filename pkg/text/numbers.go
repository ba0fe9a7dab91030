package text

import (
	"fmt"
	"time"
)

// Duration returns a duration for people: 0.4s, 12s, 3m05s, 1h02m.
func Duration(t time.Duration) string {
	switch {
	case t < 10*time.Second:
		return fmt.Sprintf("%.1fs", t.Seconds())
	case t < time.Minute:
		return fmt.Sprintf("%.0fs", min(t.Seconds(), 59)) // never 60s
	case t < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(t.Minutes()), int(t.Seconds())%60)
	default:
		return fmt.Sprintf("%dh%02dm", int(t.Hours()), int(t.Minutes())%60)
	}
}

// Size returns a number of bytes for people: 12 B, 1.5 MiB.
func Size(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefix := float64(bytes)/unit, 0
	for value >= unit && prefix < 3 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[prefix])
}

// Plural returns a number with its noun, whose plural ends in s unless it is given.
func Plural(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return fmt.Sprintf("%d %s", n, many[0])
	default:
		return fmt.Sprintf("%d %ss", n, one)
	}
}
