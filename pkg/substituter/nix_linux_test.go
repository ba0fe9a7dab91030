package substituter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

// faults are what may happen to the NAR of a path.
var faults = map[string]func(*faulty) func() (io.Reader, error){
	// Its pack was evicted after Nix has read the narinfo.
	"evicted": func(*faulty) func() (io.Reader, error) {
		return func() (io.Reader, error) { return nil, errFault }
	},
	// Its pack is evicted while Nix reads.
	"breaks off": func(f *faulty) func() (io.Reader, error) {
		return func() (io.Reader, error) { return io.MultiReader(bytes.NewReader(f.nar[:3<<20]), errorReader{}), nil }
	},
	// It has another byte, which the end shows.
	"wrong": func(f *faulty) func() (io.Reader, error) {
		wrong := bytes.Clone(f.nar[:len(f.nar)-1])
		wrong[2<<20]++
		return func() (io.Reader, error) { return io.MultiReader(bytes.NewReader(wrong), errorReader{}), nil }
	},
	// Its end shows that it has another byte, and another pack has the right NAR: Nix must not get the rest of that.
	"wrong, then right": func(f *faulty) func() (io.Reader, error) {
		wrong := bytes.Clone(f.nar[:len(f.nar)-1])
		wrong[2<<20]++
		opened := false
		return func() (io.Reader, error) {
			if opened {
				return bytes.NewReader(f.nar), nil
			}
			opened = true
			return io.MultiReader(bytes.NewReader(wrong), errorReader{}), nil
		}
	},
	// The server is killed while Nix reads.
	"killed": func(f *faulty) func() (io.Reader, error) {
		return func() (io.Reader, error) { return io.MultiReader(bytes.NewReader(f.nar[:3<<20]), killer{f.kill}), nil }
	},
	// The server was killed before Nix asks.
	"gone": func(f *faulty) func() (io.Reader, error) {
		f.kill()
		return nil
	},
}

type killer struct{ kill func() }

func (k killer) Read([]byte) (int, error) {
	k.kill()
	return 0, errFault
}

// A faulty store has one path, whose NAR cannot be read.
type faulty struct {
	info nix.PathInfo
	nar  []byte
	open func() (io.Reader, error)
	kill func()
}

func (f *faulty) Find(_ context.Context, hash string) (nix.PathInfo, error) {
	if strings.HasPrefix(f.info.Path, storeDir+hash) {
		return f.info, nil
	}
	return nix.PathInfo{}, errFault
}

func (f *faulty) Open(context.Context, string) (nix.PathInfo, io.ReadCloser, error) {
	r, err := f.open()
	return f.info, io.NopCloser(r), err
}

func (f *faulty) Prefetch(string) {}

// Whatever happens to a NAR, each version of Nix builds the path, and it is right. Nix wants no setting for that
// except where the server itself is gone.
func TestNixBuilds(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "large")
	if err := os.WriteFile(file, bytes.Repeat([]byte("much\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	expression := fmt.Sprintf(`derivation { name = "big"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "/bin/cat ${%s} >$out" ]; }`, file)
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		path := nixtest.Run(t, "nix-build", "--no-out-link", "-E", expression)
		infos, err := n.FullInfo(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		content, err := exec.CommandContext(t.Context(), "nix-store", "--dump", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		for name, fault := range faults {
			for _, fallback := range []string{"true", "false"} {
				if fallback == "false" && (name == "killed" || name == "gone") {
					continue
				}
				t.Run(name+", fallback = "+fallback, func(t *testing.T) {
					testbench.UseStore(t, t.TempDir())
					t.Setenv("HOME", t.TempDir())
					store := &faulty{info: infos[0], nar: content}
					s := &Server{Store: store, Priority: 50}
					l, stop := start(t, s)
					url := s.URL(l) + "?trusted=true&priority=50"
					store.kill = stop
					store.open = fault(store)
					cmd := exec.CommandContext(t.Context(), "nix-build", "--no-out-link", "-E", expression, "--option", "substituters", url,
						"--option", "fallback", fallback, "--option", "download-attempts", "3")
					out, err := cmd.CombinedOutput()
					if err != nil || !bytes.Contains(out, []byte("building '")) {
						t.Fatalf("%v: %s", err, out)
					}
					if tried := bytes.Contains(out, []byte("copying path")); tried == (name == "gone") {
						t.Errorf("%s", out)
					}
					nixtest.Verify(t)
				})
			}
		}
	})
}

// start serves until the end of the test, or until the returned function is called, which does not wait.
func start(t *testing.T, s *Server) (net.Listener, func()) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, ErrIdle) {
			t.Error(err)
		}
	})
	return l, func() {
		stop()
		_ = l.Close()
	}
}

var errFault = errors.New("a fault")

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errFault }
