package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// size is how large the binary is, which each job of a workflow downloads.
func (b *bench) size(context.Context) error {
	info, err := os.Stat(b.binary())
	if err != nil {
		return err
	}
	const most = 14_000_000
	b.rows = append(b.rows, row{
		Work: fmt.Sprintf("the binary for %s on %s: size", runtime.GOOS, runtime.GOARCH), Against: "–",
		Value: megabytes(info.Size()), Goal: "≤ " + megabytes(most), Met: info.Size() <= most,
	})
	return nil
}

// startup is the time in which the program starts, does nearly nothing and ends, and the same by way of the
// launcher, which checks the binary first.
func (b *bench) startup(ctx context.Context) error {
	const starts = 41
	var direct, launched []time.Duration
	for range starts {
		for program, all := range map[string]*[]time.Duration{b.binary(): &direct, b.program: &launched} {
			ran, err := b.run(ctx, b.dir, nil, program, "version")
			if err != nil {
				return err
			}
			*all = append(*all, ran.took)
		}
	}
	took := median(direct)
	b.rows = append(b.rows, row{
		Work: "nix-matrix version: from the start to the end of the process", Against: "through the launcher, which checks the binary",
		Value: fmt.Sprintf("%.1f ms against %.1f ms", milliseconds(took), milliseconds(median(launched))),
		Goal:  "≤ 20 ms", Met: took <= 20*time.Millisecond,
	})
	return nil
}

// binary returns the path of the binary that the launcher starts.
func (b *bench) binary() string {
	return filepath.Join(filepath.Dir(b.program), "nix-matrix-"+runtime.GOOS+"-"+runtime.GOARCH)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
