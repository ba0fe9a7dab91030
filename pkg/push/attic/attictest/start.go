package attictest

import "net/http/httptest"

// Running is a Server that listens.
type Running struct {
	*Server
	URL string // its endpoint, without a slash at the end
}

// Start starts a server on a free port of this machine, for as long as the test
// runs.
func Start(t interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}, options Options) *Running {
	t.Helper()
	server, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server)
	t.Cleanup(func() {
		server.Close()
		listening.CloseClientConnections()
		listening.Close()
	})
	return &Running{server, listening.URL + options.Prefix}
}
