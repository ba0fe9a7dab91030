package flagvalue

import (
	"testing"
	"time"
)

func TestDays(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "0d": 0, "0": 0, "36h": 36 * time.Hour, "90m": 90 * time.Minute} {
		if got, err := days(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "1.5d", "7", "week", "7D", "99999999999d"} {
		if got, err := days(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestSizeOf(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "17": 17, "17B": 17, "5GB": 5e9, "5 GB": 5e9, "5G": 5e9, "1.5KB": 1500, "1KiB": 1024, "2Mi": 2 << 20, "3GiB": 3 << 30, "1TB": 1e12,
	} {
		if got, err := sizeOf(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "GB", "-1", "1iB", "1EB", "5gb", "1e3", "99999999999TB"} {
		if got, err := sizeOf(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
