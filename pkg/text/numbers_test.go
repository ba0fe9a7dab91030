package text_test

import (
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/text"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                              "0.0s",
		400 * time.Millisecond:         "0.4s",
		12 * time.Second:               "12s",
		12*time.Second + 600*1000*1000: "13s",
		59*time.Second + 700*1000*1000: "59s",
		time.Minute:                    "1m00s",
		185 * time.Second:              "3m05s",
		time.Hour - 1:                  "59m59s",
		62 * time.Minute:               "1h02m",
		100 * time.Hour:                "100h00m",
	} {
		if got := text.Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0:         "0 B",
		1023:      "1023 B",
		1024:      "1.0 KiB",
		1536:      "1.5 KiB",
		1 << 20:   "1.0 MiB",
		10 << 30:  "10.0 GiB",
		1 << 40:   "1.0 TiB",
		1<<63 - 1: "8388608.0 TiB",
	} {
		if got := text.Size(bytes); got != want {
			t.Errorf("Size(%d) = %q, want %q", bytes, got, want)
		}
	}
}
