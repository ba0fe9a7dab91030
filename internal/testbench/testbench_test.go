package testbench_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

func TestPrefix(t *testing.T) {
	for _, test := range []struct{ own, caches, home, want string }{
		{"/own", "/caches", "/home", "/own"},
		{"", "/caches", "/home", "/caches/nix-matrix/testbench"},
		{"", "", "/home", "/home/.cache/nix-matrix/testbench"},
		{"", "", "", ""},
	} {
		t.Setenv("NIX_MATRIX_TESTBENCH", test.own)
		t.Setenv("XDG_CACHE_HOME", test.caches)
		t.Setenv("HOME", test.home)
		if got := testbench.Prefix(); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}
}

func TestPath(t *testing.T) {
	prefix := t.TempDir()
	t.Setenv("NIX_MATRIX_TESTBENCH", prefix)
	t.Setenv("NIX_MATRIX_REQUIRE_PARTS", "")
	part := filepath.Join(prefix, "part")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := testbench.Path(t, "part"); got != part {
		t.Errorf("got %s, want %s", got, part)
	}
	for _, test := range []struct {
		require         string
		skipped, failed bool
	}{{"", true, false}, {"1", false, true}} {
		t.Setenv("NIX_MATRIX_REQUIRE_PARTS", test.require)
		for _, ask := range []func(testing.TB){
			func(t testing.TB) { testbench.Path(t, "no-such-part") },
			func(t testing.TB) { testbench.Program(t, "no-such-part") },
			func(t testing.TB) { testbench.NeedsRoot(t, os.ErrPermission) },
		} {
			r := &recorder{TB: t}
			ask(r)
			if r.skipped != test.skipped || r.failed != test.failed {
				t.Errorf("with %q: skipped %v, failed %v", test.require, r.skipped, r.failed)
			}
		}
	}
}

// recorder notes how a test ends instead of ending it.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Skipf(string, ...any)  { r.skipped = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true }
