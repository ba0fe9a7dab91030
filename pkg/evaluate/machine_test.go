package evaluate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFreeMemory(t *testing.T) {
	const gib = 1 << 30
	const meminfo = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
	for _, test := range []struct {
		what  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, 0},
		{"a machine", map[string]string{"/proc/meminfo": meminfo}, 8 * gib},
		{"a container without a limit", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5\n"}, 8 * gib},
		{"a container", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "4294967296\n"}, 4 * gib},
		{"what is used there, but for files", map[string]string{
			"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "4294967296\n", "/sys/fs/cgroup/memory.current": "3221225472\n",
			"/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 2147483648\n",
		}, 3 * gib},
		{"nothing left", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "4294967296\n", "/sys/fs/cgroup/memory.current": "4294967297\n"}, 1},
		{"more than the machine has", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory.max": "42949672960\n"}, 8 * gib},
		{"a group above its own", map[string]string{
			"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a.slice/b.service\n",
			"/sys/fs/cgroup/a.slice/memory.max": "2147483648\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
		}, 2 * gib},
		{"its own group", map[string]string{
			"/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a.slice/b.service\n", "/sys/fs/cgroup/a.slice/b.service/memory.max": "1073741824\n",
		}, gib},
		{"version 1 without a limit", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8 * gib},
		{"version 1", map[string]string{"/proc/meminfo": meminfo, "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, gib},
	} {
		t.Run(test.what, func(t *testing.T) {
			if got := freeMemory(func(name string) string { return test.files[name] }); got != test.want {
				t.Errorf("%d bytes, want %d", got, test.want)
			}
		})
	}
}

func TestChosen(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		workers       int
		limit, memory int64
		want          string
	}{
		{2, 7 * gib / 2, 16 * gib, "evaluating with 2 evaluators, at most 3.5 GiB each"},
		{2, 0, 7 * gib, "evaluating with 2 evaluators, of 7.0 GiB of free memory 3.5 GiB each"},
		{1, 0, 0, "evaluating with 1 evaluator"},
	} {
		if got := describeEvaluators(test.workers, test.limit, test.memory); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestOutgrown(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		what                 string
		finished             int
		used, initial, share int64
		lead, age            time.Duration
		want                 bool
	}{
		{"its first item", 0, 4000 * mib, 0, 1000 * mib, 0, time.Hour, false},
		{"its second", 1, 4000 * mib, 0, 1000 * mib, 0, time.Hour, false},
		{"twice as large with the next", 4, 800 * mib, 500 * mib, 0, time.Minute, time.Hour, false},
		{"larger than that", 4, 900 * mib, 500 * mib, 0, time.Minute, time.Hour, true},
		{"still small", 4, 300 * mib, 50 * mib, 0, time.Minute, time.Hour, false},
		{"most of its work is in common", 2, 900 * mib, 500 * mib, 0, time.Hour, time.Hour + time.Minute, false},
		{"nor is there more memory", 2, 900 * mib, 500 * mib, 1000 * mib, time.Hour, time.Hour + time.Minute, true},
		{"nobody knows how large", 2, 0, 500 * mib, 1000 * mib, time.Minute, time.Hour, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			w := &worker{pool: &pool{evaluation: &evaluation{memoryShare: test.share}}, finished: test.finished, firstItemMemory: test.initial, firstItemTime: test.lead, started: time.Now().Add(-test.age)}
			w.memory.Store(test.used)
			if got := w.outgrown(); got != test.want {
				t.Errorf("outgrown: %v", got)
			}
		})
	}
}

// An evaluator that has grown is replaced by a new one, and the result is complete, with the
// messages of attributes that have thrown.
func TestRestart(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, work+`let
		kept = builtins.mapAttrs (_: n: builtins.genList (x: { inherit x; y = x + n; }) 1000000) { a = 1; b = 2; c = 3; d = 4; e = 5; f = 6; g = 7; };
	in { packages.x86_64-linux = builtins.mapAttrs (n: _: if n == "b" || n == "f" then builtins.seq (builtins.foldl' (sum: x: sum + x.y) 0 kept.${n}) (throw "no ${n}") else busy n (builtins.foldl' (sum: x: sum + x.y) 0 kept.${n})) kept; }`)
	got, d, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: 1})
	if want := "a build b failed: no b c build d build e build f failed: no f g build"; strings.ReplaceAll(strings.Join(got, " "), "package packages.x86_64-linux.", "") != want {
		t.Errorf("got %v", got)
	}
	if c.started < 2 || d.Incomplete {
		t.Errorf("%d evaluators were started, incomplete %v", c.started, d.Incomplete)
	}
	for _, target := range d.Targets {
		if target.DrvPath == "" {
			continue
		}
		if _, err := os.Stat(filepath.Clean(target.DrvPath)); err != nil {
			t.Errorf("%s was not instantiated: %v", target.Name, err)
		}
	}
}
