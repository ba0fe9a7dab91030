package e2e_test

import (
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// testStoreCache runs the store cache around a build of the user's own.
func testStoreCache(t *testing.T, product string) {
	// A build of the user's own between restore and save: the second run, on an empty machine, restores what the first
	// has saved, builds nothing and saves nothing. So does the third, which restores nothing before the build.
	for version, cache := range map[string]func(*testing.T, string) map[string]string{
		"v1": cacheV1,
		"v2": cacheV2,
	} {
		t.Run("store cache, "+version, func(t *testing.T) {
			t.Parallel()
			artifacts := loopback()
			p := &push{repository: own(t), product: product, artifacts: artifacts, runtime: cache(t, artifacts)}
			first := p.start(t)
			first.wait()
			first.expect(all("success", "", "build"))
			first.counts("build", "0", "2")
			first.says("build", `building '/nix/store/.*-app.drv'`, `^saved 2 store paths \([0-9.]+ [KM]?B\) in 1 pack, in `)
			second := p.start(t)
			second.wait()
			second.expect(all("success", "", "build"))
			second.counts("build", "2", "0")
			second.says("build", `^restored 2 store paths \([0-9.]+ [KM]?B\) from 1 pack, [0-9.]+ [KM]?B read, in `)
			second.saysNot("build", `building '`)
			// On demand, the step of the user fetches what it needs, and all ends with the job.
			file := filepath.Join(p.repository, ".github", "workflows", "ci.yml")
			write(t, file, replace(t, read(t, file), "command: restore }", "command: restore, on_demand: true }"))
			commit(t, p.repository)
			third := p.start(t)
			third.wait()
			third.expect(all("success", "", "build"))
			third.counts("build", "0", "0")
			third.says("build", `^later steps fetch store paths on demand`, `copying path '/nix/store/.*-app' from 'http://127\.0\.0\.1:`)
			third.saysNot("build", `building '`)
			gone(t, third.output("build", "substituter"))
			for _, r := range []*run{first, second, third} {
				if got := r.uploaded(); len(got) > 0 {
					t.Errorf("there are the artifacts %q", got)
				}
			}
		})
	}

	// A use of the cache that a job is not allowed is not tried, or is a warning.
	t.Run("store cache that is not ours", func(t *testing.T) {
		t.Parallel()
		service, repository := actionstest.Start(t, actionstest.Options{}), own(t)
		hosted := true
		run := func(mode string, pull int, scopes ...actionstest.Scope) *run {
			artifacts := loopback()
			runtime := runtimeV2(t, artifacts, service.TokenFor(scopes...), service)
			runtime["ACTIONS_CACHE_MODE"] = mode
			r := (&push{repository: repository, product: product, pull: pull, hosted: hosted, artifacts: artifacts, runtime: runtime}).start(t)
			r.wait()
			r.expect(all("success", "", "build"))
			return r
		}
		main := actionstest.Scope{Scope: actionstest.Main, Permission: actionstest.Read | actionstest.Write}
		reads := actionstest.Scope{Scope: actionstest.Main, Permission: actionstest.Read}
		own := actionstest.Scope{Scope: "refs/pull/7/merge", Permission: actionstest.Read | actionstest.Write}

		r := run("", 0, reads)
		r.counts("build", "0", "0")
		r.says("build", `Cannot save all store paths: this job may not use the cache this way`)
		r = run("none", 0, main)
		r.counts("build", "0", "0")
		if entries := service.Entries(); len(entries) > 0 {
			t.Fatalf("the cache has %v", entries)
		}
		run("", 0, main).counts("build", "0", "2")
		before := len(service.Entries())
		r = run("read", 0, main)
		r.counts("build", "2", "0")
		r.saysNot("build", `Cannot save all`) // there is nothing new

		// A fork's pull request takes what main has, and leaves its own in its scope.
		app := filepath.Join(repository, "flake.nix")
		write(t, app, replace(t, read(t, app), "the app", "a better app"))
		commit(t, repository)
		run("", 7, own, reads).counts("build", "2", "1")
		run("", 7, own, reads).counts("build", "3", "0")
		hosted = false
		r = run("", 7, own, reads)
		r.counts("build", "0", "0")
		r.says("build", `left out 3 store paths of the cache with neither a content address nor a signature by a trusted key`)
		run("read", 0, main).counts("build", "2", "0")
		for _, e := range service.Entries()[before:] {
			if e.Scope != own.Scope {
				t.Errorf("the pull request has written %s into %s", e.Key, e.Scope)
			}
		}
	})
}

// gone waits until nobody listens where a URL leads to.
func gone(t *testing.T, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Port() == "" {
		t.Fatalf("%q, %v", address, err)
	}
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
		if err != nil {
			return
		}
		_ = conn.Close()
		time.Sleep(50 * time.Millisecond)
	}
}
