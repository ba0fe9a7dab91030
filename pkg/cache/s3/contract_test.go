package s3_test

import (
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

// The servers count times in seconds, one of them by a clock of files that is some milliseconds late.
var tick = cachetest.Tick(func() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + 20*time.Millisecond)))
})

// TestContract runs the suite against a server that checks nothing, and one that checks signatures and
// has files. The first is conditional for objects of one part only. A third one is used where it is.
func TestContract(t *testing.T) {
	run := func(t *testing.T, server func(*testing.T) s3.Config) {
		t.Helper()
		cachetest.Run(t, func(t *testing.T) cache.Cache { return open(t, server(t)).Cache(s3.Scope{}) }, tick, cachetest.Grows())
	}
	for name, start := range servers {
		t.Run(name, func(t *testing.T) { run(t, start(t)) })
	}
	if endpoint, ok := testbench.MinIO(t, "bucket"); ok {
		t.Run("minio", func(t *testing.T) { run(t, configs(endpoint)) })
	}
}

// In a scope and from the environment of several, the same contract holds.
func TestContractScopes(t *testing.T) {
	server := servers["gofakes3"](t)
	cachetest.Run(t, func(t *testing.T) cache.Cache {
		own := s3.Scope{Class: "proposals", Name: "org/fleet refs/pull/7/merge"}
		return open(t, server(t)).Cache(own, s3.Scope{Class: "branches", Name: "org/fleet refs/heads/next"}, s3.Scope{})
	}, tick, cachetest.Grows())
}

// servers start a server for a test, whose configs are each of an empty prefix.
var servers = map[string]func(t *testing.T) func(t *testing.T) s3.Config{
	"gofakes3": func(t *testing.T) func(t *testing.T) s3.Config {
		return configs(testbench.S3(t, "bucket"))
	},
	"versitygw": func(t *testing.T) func(t *testing.T) s3.Config {
		return configs(testbench.VersityGW(t, "bucket"))
	},
}
