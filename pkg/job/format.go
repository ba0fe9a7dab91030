package job

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// DrvName is the readable part of a store path: without directory, hash and
// the .drv of a derivation.
func DrvName(storePath string) string {
	name := strings.TrimSuffix(path.Base(storePath), ".drv")
	if len(name) > 33 && name[32] == '-' {
		name = name[33:]
	}
	return name
}

// Duration shows a duration as people read it: 0.4s, 12s, 3m05s, 1h02m.
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

// Size shows a number of bytes as people read it.
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
