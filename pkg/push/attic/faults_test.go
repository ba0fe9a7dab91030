package attic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

// first is the fault of the first n uploads.
func first(n int, fault attictest.Fault) func(int) attictest.Fault {
	return func(upload int) attictest.Fault {
		if upload > n {
			return attictest.Fault{}
		}
		return fault
	}
}

func always(fault attictest.Fault) func(int) attictest.Fault {
	return func(int) attictest.Fault { return fault }
}

const megabyte = 1 << 20

// A path of three megabytes arrives whatever happens to the first two tries.
func TestUploadIsRepeated(t *testing.T) {
	const second = time.Second
	for _, test := range []struct {
		name  string
		fault attictest.Fault
		least time.Duration // that it takes
		most  time.Duration
	}{
		{"429", attictest.Fault{Status: 429}, 3 * second, 5 * second},
		{"429 Retry-After", attictest.Fault{Status: 429, Header: http.Header{"Retry-After": {"40"}}}, 80 * second, 121 * second},
		{"500", attictest.Fault{Status: 500}, 3 * second, 5 * second},
		{"500 in the middle", attictest.Fault{Status: 500, At: megabyte}, 3 * second, 5 * second},
		{"502", attictest.Fault{Status: 502, Body: "<html>Bad Gateway</html>"}, 3 * second, 5 * second},
		{"503 Retry-After", attictest.Fault{Status: 503, Header: http.Header{"Retry-After": {"40"}}}, 80 * second, 121 * second},
		{"504 after all", attictest.Fault{Status: 504, At: 3 * megabyte}, 3 * second, 5 * second},
		{"dropped at once", attictest.Fault{Drop: true}, 3 * second, 5 * second},
		{"dropped in the middle", attictest.Fault{Drop: true, At: 2*megabyte + 17}, 3 * second, 5 * second},
		{"dropped at the end", attictest.Fault{Drop: true, At: 3 * megabyte}, 3 * second, 5 * second},
		{"stalled at once", attictest.Fault{Stall: true}, 243 * second, 247 * second},
		{"stalled in the middle", attictest.Fault{Stall: true, At: 2*megabyte + 17}, 243 * second, 247 * second},
		{"stalled at the end", attictest.Fault{Stall: true, At: 3 * megabyte}, 243 * second, 247 * second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, options := serve(t, attictest.Options{Fault: first(2, test.fault)})
				log := recordLog(&options)
				c := dial(t, options)
				s := &shop{}
				p := s.path("path", strings.Repeat("0123456789abcdef", 3*megabyte/16))
				begun := time.Now()
				stats, err := c.Push(t.Context(), []attic.Path{p}, s.nar)
				if err != nil || stats.Uploaded != 1 || stats.Bytes != p.NarSize || !server.Has(p.StorePath) {
					t.Errorf("%+v, %v", stats, err)
				}
				if took := time.Since(begun); took < test.least || took > test.most {
					t.Errorf("it took %s, want %s to %s", took, test.least, test.most)
				}
				if got := server.Calls("upload-path"); got != 3 {
					t.Errorf("%d tries", got)
				}
				asked := 3
				if test.fault.Status == 429 {
					asked = 1 // it is not to be burdened with more
				}
				if got := server.Calls("get-missing-paths"); got != asked {
					t.Errorf("asked %d times for missing paths, want %d", got, asked)
				}
				if s.most != 1 || s.left() != 0 {
					t.Errorf("%d were open at a time, %d are", s.most, s.left())
				}
				if got := strings.Count(log.String(), "upload-path of "+p.StorePath); got != 2 || strings.Contains(log.String(), options.Token) {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

// Pauses grow up to a limit, and many who failed at the same time do not come back
// at the same time.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var mu sync.Mutex
		times := map[time.Duration]int{}
		var last time.Duration
		_, options := serve(t, attictest.Options{Fault: func(int) attictest.Fault {
			mu.Lock()
			defer mu.Unlock()
			last = time.Since(begun)
			times[last]++
			return attictest.Fault{Status: 500}
		}})
		options.Jobs, options.MaxWait = 10, 2*time.Second
		c := dial(t, options)
		s := &shop{}
		if stats, err := c.Push(t.Context(), s.paths(10), s.nar); stats.Failed != 10 {
			t.Errorf("%+v, %v", stats, err)
		}
		if times[0] != 10 || len(times) != 1+4*10 {
			t.Errorf("tries at %v", times)
		}
		if least := (1 + 2 + 2 + 2) * time.Second; last < least || last > least*3/2 {
			t.Errorf("the last try was after %s", last)
		}
	})
}

// An upload that the server has taken is not sent again, although the answer was
// lost.
func TestAnswerLost(t *testing.T) {
	for _, fault := range []attictest.Fault{{Taken: true, Drop: true}, {Taken: true, Stall: true}, {Taken: true, Status: 504}} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, options := serve(t, attictest.Options{Fault: always(fault)})
				c := dial(t, options)
				s := &shop{}
				p := s.path("path", "NAR")
				stats, err := c.Push(t.Context(), []attic.Path{p}, s.nar)
				if err != nil || stats.Uploaded != 1 || server.Calls("upload-path") != 1 {
					t.Errorf("%+v, %v, after %d tries", stats, err, server.Calls("upload-path"))
				}
			})
		})
	}
}

func TestUploadIsGivenUp(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault attictest.Fault
		tries int
		says  string
	}{
		{"always 500", attictest.Fault{Status: 500}, 5, "500 InternalServerError: The server encountered an internal error or misconfiguration. The server's log says more"},
		{"always 503", attictest.Fault{Status: 503, Body: "<html><h1>Service Unavailable</h1></html>"}, 5, "503: Service Unavailable. The"},
		{"always 429", attictest.Fault{Status: 429}, 5, "429"},
		{"429 for an hour", attictest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, 1, "(try again in 1h0m0s)"},
		{"501", attictest.Fault{Status: 501}, 1, "501"},
		{"413", attictest.Fault{Status: 413, Body: "<html>"}, 1, "client_max_body_size"},
		{"404", attictest.Fault{Status: 404, Body: "no"}, 1, "404: no"},
		{"redirection", attictest.Fault{Status: 302, Body: "no", Header: http.Header{"Location": {"https://new.example/"}}}, 1, "https://new.example/"},
		{"200 of another", attictest.Fault{Status: 200, Body: "<html>log in here</html>"}, 1, "other than the expected JSON: is the address that of an Attic server?"},
		{"always dropped", attictest.Fault{Drop: true}, 5, "the server does not answer: unexpected EOF"},
		{"always stalled", attictest.Fault{Stall: true}, 5, "the server does not answer: no progress within 2m0s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, options := serve(t, attictest.Options{Fault: first(test.tries, test.fault)})
				options.Jobs = 1
				c := dial(t, options)
				s := &shop{}
				paths := s.paths(2)
				stats, err := c.Push(t.Context(), paths, s.nar)
				if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), paths[0].StorePath) || errors.Is(err, attic.ErrToken) {
					t.Errorf("%v, want it to say %q", err, test.says)
				}
				if got := server.Calls("upload-path"); got != test.tries+1 {
					t.Errorf("%d tries, want %d and that of the other path", got, test.tries)
				}
				if stats.Failed != 1 || stats.Uploaded != 1 || s.left() != 0 {
					t.Errorf("%+v, %d open", stats, s.left())
				}
			})
		})
	}
}

// A server that does not come back costs so many tries, not so many a path.
func TestHopeless(t *testing.T) {
	for _, fault := range []attictest.Fault{{Status: 503}, {Drop: true}} {
		synctest.Test(t, func(t *testing.T) {
			server, options := serve(t, attictest.Options{Fault: always(fault)})
			options.Jobs = 4
			c := dial(t, options)
			s := &shop{}
			stats, err := c.Push(t.Context(), s.paths(1000), s.nar)
			var failure *attic.PushError
			if !errors.As(err, &failure) || len(failure.Failed) != 1000 || stats.Failed != 1000 {
				t.Fatalf("%+v, %v", stats, err)
			}
			if got := server.Calls("upload-path"); got < 16*5 || got > 19*5 {
				t.Errorf("%d tries", got)
			}
			if !strings.HasSuffix(err.Error(), "(and 999 more paths)") {
				t.Error(err)
			}
			if last := failure.Failed[999].Error(); !strings.HasSuffix(last, "not tried: the server failed 16 paths in a row") {
				t.Error(last)
			}
		})
	}
	// Paths that cannot be read say nothing about the others,
	synctest.Test(t, func(t *testing.T) {
		_, options := serve(t, attictest.Options{})
		options.Jobs = 1
		c := dial(t, options)
		s := &shop{}
		paths := s.paths(40)
		s.wrap = func(_ context.Context, storePath string, _ int, nar io.Reader) (io.Reader, error) {
			if storePath != paths[39].StorePath {
				return nil, errors.New("unreadable")
			}
			return nar, nil
		}
		stats, err := c.Push(t.Context(), paths, s.nar)
		if stats.Uploaded != 1 || stats.Failed != 39 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
	// nor do failures between successes.
	synctest.Test(t, func(t *testing.T) {
		_, options := serve(t, attictest.Options{Fault: func(n int) attictest.Fault {
			if n%4 == 0 {
				return attictest.Fault{}
			}
			return attictest.Fault{Status: 503}
		}})
		options.Jobs = 1
		options.Retries = -1
		c := dial(t, options)
		s := &shop{}
		stats, err := c.Push(t.Context(), s.paths(100), s.nar)
		if stats.Uploaded != 25 || stats.Failed != 75 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

func TestTokenExpires(t *testing.T) {
	for _, public := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server, options := serve(t, attictest.Options{Public: public, Fault: func(n int) attictest.Fault { return attictest.Fault{Expire: n == 5} }})
			options.Jobs = 1
			log := recordLog(&options)
			c := dial(t, options)
			s := &shop{}
			begun := time.Now()
			stats, err := c.Push(t.Context(), s.paths(20), s.nar)
			if !errors.Is(err, attic.ErrToken) || !strings.Contains(err.Error(), "may have expired") {
				t.Errorf("error: %v", err)
			}
			if stats.Uploaded != 4 || stats.Failed != 16 || server.Calls("upload-path") != 5 {
				t.Errorf("%+v after %d tries", stats, server.Calls("upload-path"))
			}
			if time.Since(begun) != 0 {
				t.Error("it has waited")
			}
			if strings.Contains(fmt.Sprintf("%v %v %+v %#v", err, log, c, c), options.Token) {
				t.Error("it tells the token")
			}
			if _, err := c.Push(t.Context(), s.paths(20), s.nar); !errors.Is(err, attic.ErrToken) || server.Calls("get-missing-paths") != 2 {
				t.Errorf("the next push: %v", err)
			}
		})
	}
}

func TestTokenForReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, options := serve(t, attictest.Options{})
		options.Token = server.Token(true, false)
		c := dial(t, options)
		s := &shop{}
		stats, err := c.Push(t.Context(), s.paths(2), s.nar)
		if !errors.Is(err, attic.ErrToken) || !strings.Contains(err.Error(), "403 AccessError") || stats.Failed != 2 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

// All of the other calls are repeated too.
func TestCallsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := map[string]int{}
		_, options := serve(t, attictest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
			failed[r.URL.Path]++
			switch failed[r.URL.Path] {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, "{")
			case 3:
				panic(http.ErrAbortHandler)
			default:
				return false
			}
			return true
		}})
		c := dial(t, options)
		s := &shop{}
		stats, err := c.Push(t.Context(), s.paths(1), s.nar)
		if err != nil || stats.Uploaded != 1 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

func TestMissingPathsFails(t *testing.T) {
	for _, answer := range []string{"{}", `{"missing_paths":null}`, "[]", "<html>"} {
		synctest.Test(t, func(t *testing.T) {
			_, options := serve(t, attictest.Options{Before: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPost {
					_, _ = io.WriteString(w, answer)
				}
				return r.Method == http.MethodPost
			}})
			c := dial(t, options)
			s := &shop{}
			stats, err := c.Push(t.Context(), s.paths(1), s.nar)
			if err == nil || !strings.Contains(err.Error(), "missing paths") || stats.Failed != 1 {
				t.Errorf("%s: %+v, %v", answer, stats, err)
			}
		})
	}
}
