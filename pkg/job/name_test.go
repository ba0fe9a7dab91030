package job_test

import (
	"testing"

	"github.com/org/nix-matrix/pkg/job"
)

func TestDrvName(t *testing.T) {
	for path, want := range map[string]string{
		drv:                               "hello-2.12",
		outPath:                           "hello-2.12",
		"/nix/store/" + hash + "-a.b.drv": "a.b",
		"hello":                           "hello",
		"":                                ".",
		hash + "-":                        hash + "-", // a hash without a name
	} {
		if got := job.DrvName(path); got != want {
			t.Errorf("DrvName(%q) = %q, want %q", path, got, want)
		}
	}
}
