package actionstest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
)

// Running is a Server that listens.
type Running struct {
	*Server
	URL string // its address, without a slash at the end
}

// Getenv is the environment of an action, in the form of os.Getenv.
func (r *Running) Getenv(name string) string { return r.Env(r.URL)[name] }

// Start starts a server for as long as the test runs. All servers of a process
// that are not on a Disk share one Azurite; without the parts for it the test is
// skipped.
func Start(t testing.TB, options Options) *Running {
	t.Helper()
	var server *Server
	if options.OnDisk {
		server = newOnDisk(t, options)
	} else {
		server = newOnAzurite(t, options)
	}
	handler := http.Handler(server)
	if options.Wrap != nil {
		handler = options.Wrap(server)
	}
	listening := httptest.NewServer(handler)
	t.Cleanup(listening.Close)
	return &Running{server, listening.URL}
}

func newOnDisk(t testing.TB, options Options) *Server {
	disk := &Disk{Dir: t.TempDir()}
	listening := httptest.NewServer(disk)
	t.Cleanup(listening.Close)
	disk.Address = listening.URL
	return NewOn(disk, options)
}

func newOnAzurite(t testing.TB, options Options) *Server {
	testbench.Program(t, "node")
	azurite, err := sharedAzurite(testbench.Path(t, "npm/node_modules/.bin/azurite-blob"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(t.Context(), azurite, options)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

var shared struct {
	sync.Once
	azurite *Azurite
	err     error
}

func sharedAzurite(program string) (*Azurite, error) {
	shared.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		shared.azurite, shared.err = StartAzurite(ctx, program, "")
	})
	return shared.azurite, shared.err
}
