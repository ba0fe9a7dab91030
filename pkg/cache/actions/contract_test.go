package actions_test

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
)

func TestContractV2(t *testing.T) {
	for _, test := range []struct {
		name    string
		options actionstest.Options
		small   int64
	}{
		{"key exact", actionstest.Options{KeyRule: actionstest.KeyExact}, 0},
		{"key prefix", actionstest.Options{KeyRule: actionstest.KeyPrefix}, 0},
		{"key ignored", actionstest.Options{KeyRule: actionstest.KeyIgnored}, -1},
		{"on disk", actionstest.Options{OnDisk: true}, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			cachetest.Run(t, func(t *testing.T) cache.Cache {
				config := fast(t, actionstest.Start(t, test.options).Getenv)
				config.Small = test.small
				return actions.New(config)
			}, cachetest.Grows())
		})
	}
}

// TestContractV1 has act as the server, which knows no reservations and counts
// time in seconds.
func TestContractV1(t *testing.T) {
	program := testbench.GoProgram(t, "act-cache")
	cachetest.Run(t, func(t *testing.T) cache.Cache {
		return actions.New(fast(t, startAct(t, program)))
	}, cachetest.LastWins(), cachetest.Tick(func() {
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	}))
}

// startAct starts act's cache server for as long as the test runs, and is the
// environment of an action that uses it.
func startAct(t *testing.T, program string) (getenv func(string) string) {
	t.Helper()
	server := exec.Command(program, t.TempDir())
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := server.Wait(); err != nil {
			t.Errorf("act-cache: %v", err)
		}
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return environment("ACTIONS_RUNTIME_TOKEN=token\nACTIONS_CACHE_URL=" + strings.TrimSpace(address))
}

// fast is a config whose retries don't wait, with blocks of 1 MiB, of which none is
// read before it is asked for.
func fast(t *testing.T, getenv func(string) string) actions.Config {
	t.Helper()
	config, err := actions.FromEnv(getenv)
	if err != nil {
		t.Fatal(err)
	}
	config.Wait = time.Microsecond
	config.BlockSize = 1 << 20
	config.Small = -1
	return config
}
