package httpcall_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// A reply is one to a request: an answer, or a code of its own.
type reply struct {
	code   int
	body   io.Reader
	header []string // names and values
}

const (
	closed = -iota - 1 // the connection, without an answer
	silent
	slow // takes a byte of the body in 50 s, twice the whole body
)

func (a reply) to(r *http.Request) (*http.Response, error) {
	switch a.code {
	case closed:
		return nil, io.EOF
	case silent:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case slow:
		first := func() (io.ReadCloser, error) { return r.Body, nil }
		for _, body := range []func() (io.ReadCloser, error){first, r.GetBody} {
			b, err := body()
			for err == nil {
				time.Sleep(50 * time.Second)
				_, err = b.Read(make([]byte, 1))
			}
		}
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		a = status(200)
	}
	resp := &http.Response{StatusCode: a.code, Header: http.Header{}, Body: io.NopCloser(a.body)}
	for i := 0; i < len(a.header); i += 2 {
		resp.Header.Set(a.header[i], a.header[i+1])
	}
	return resp, nil
}

func status(code int, header ...string) reply {
	return reply{code, strings.NewReader(`"text"`), header}
}

var dead, hang = reply{code: closed}, reply{code: silent}

// server has replies, of which the last one counts for all other requests.
type server struct {
	replies []reply
	start   time.Time
	at      []time.Duration // of the requests
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.at = append(s.at, time.Since(s.start).Round(time.Second))
	return s.replies[min(len(s.at), len(s.replies))-1].to(r)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// date is two minutes after the beginning of time in synctest.
var date = time.Date(2000, 1, 1, 0, 2, 0, 0, time.UTC).Format(http.TimeFormat)

func TestPolicy(t *testing.T) {
	type replies = []reply
	ended := errors.New("ended")
	for _, test := range []struct {
		name    string
		replies replies
		change  func(*httpcall.Policy)
		at      string // of the requests
		error   string // empty for none
	}{
		{"ok", replies{status(200)}, nil, "[0s]", ""},
		{"429", replies{status(429), status(200)}, nil, "[0s 1s]", ""},
		{"500", replies{status(500), status(502), status(503), status(200)}, nil, "[0s 1s 3s 6s]", ""},
		{"501", replies{status(501)}, nil, "[0s]", "the server answers 501: said"},
		{"400", replies{status(400, "Retry-After", "7")}, nil, "[0s]", "the server answers 400: said (try again in 7s)"},
		{"given up", replies{status(500)}, nil, "[0s 1s 3s 6s]", "the server answers 500: said"},
		{"no retries", replies{status(500)}, func(p *httpcall.Policy) { p.Retries = 0 }, "[0s]", "the server answers 500: said"},
		{"dead", replies{dead, status(200)}, nil, "[0s 1s]", ""},
		{"dead for good", replies{dead}, nil, "[0s 1s 3s 6s]", "the server does not answer: unexpected EOF"},
		{"half an answer", replies{{200, broken{}, nil}, status(200)}, nil, "[0s 1s]", ""},
		{"hangs", replies{hang, status(200)}, nil, "[0s 1m1s]", ""},
		{"hangs for good", replies{hang}, nil, "[0s 1m1s 2m3s 3m6s]", "the server does not answer: no progress within 1m0s"},
		{"Retry-After", replies{status(503, "Retry-After", "40"), status(200)}, nil, "[0s 40s]", ""},
		{"Retry-After 0", replies{status(503, "Retry-After", "0"), status(200)}, nil, "[0s 0s]", ""},
		{"Retry-After date", replies{status(503, "Retry-After", date), status(200)}, nil, "[0s 2m0s]", ""},
		{"Retry-After nonsense", replies{status(503, "Retry-After", "-5"), status(200)}, nil, "[0s 1s]", ""},
		{"pause too long", replies{status(429, "Retry-After", "151")}, nil, "[0s]", "the server answers 429: said (try again in 2m31s)"},
		{"no time", replies{status(429, "Retry-After", "140")}, nil, "[0s 2m20s 4m40s]", "the server answers 429: said (try again in 2m20s)"},
		{"no time for a pause", replies{status(500)}, func(p *httpcall.Policy) {
			p.Pause = func(try int) time.Duration { return time.Duration(100*(try+1)) * time.Second }
		}, "[0s 1m40s]", "the server answers 500: said"},
		{"once", replies{status(500)}, func(p *httpcall.Policy) { p.Once = true }, "[0s]", "the server answers 500: said"},
		{"once dead", replies{dead}, func(p *httpcall.Policy) { p.Once = true }, "[0s]", "the server does not answer: unexpected EOF"},
		{"once limited", replies{status(403), status(403), status(500)}, func(p *httpcall.Policy) {
			p.Once = true
			p.Limited = func(resp *http.Response, try int) (time.Duration, bool) {
				return 10 * time.Second << try, resp.StatusCode == http.StatusForbidden
			}
		}, "[0s 10s 30s]", "the server answers 500: said"},
		{"final", replies{status(500)}, func(p *httpcall.Policy) { p.Final = func() error { return ended } }, "[0s]", "ended"},
		{"prepare", replies{status(500)}, func(p *httpcall.Policy) { p.Prepare = func(context.Context) error { return ended } }, "[0s]", "ended"},
		{"no JSON", replies{{200, strings.NewReader("<html>"), nil}}, nil, "[0s]", "the server answers 200 with something other than the expected JSON"},
		{"endless", replies{{200, endless{}, nil}}, nil, "[0s]", "the server answers 200 with something other than the expected JSON"},
		{"nothing", replies{{204, strings.NewReader(""), nil}}, nil, "[0s]", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{replies: test.replies, start: time.Now()}
				var pauses []string
				policy := &httpcall.Policy{
					Retries:  3,
					Pause:    func(try int) time.Duration { return time.Duration(try+1) * time.Second },
					MaxPause: 150 * time.Second,
					Failed: func(_ *http.Response, err error, _ time.Duration) {
						pauses = append(pauses, err.Error())
					},
				}
				if test.change != nil {
					test.change(policy)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 290*time.Second)
				defer cancel()
				client := &http.Client{Transport: &httpcall.Transport{Next: s, Stall: time.Minute, MaxAnswer: 1000}}
				var got string
				err := policy.Ask(ctx, client, httpcall.Call{Method: http.MethodGet, Address: "http://server.example/s3cret?sig=s3cret"}, &got,
					func(resp *http.Response, _ []byte) error { return httpcall.NewStatusError(resp, "", "said", "") })
				if fmt.Sprint(s.at) != test.at {
					t.Errorf("requests at %v, want %s", s.at, test.at)
				}
				if text := fmt.Sprint(err); (err != nil || test.error != "") && text != test.error {
					t.Errorf("error: %v, want %s", err, test.error)
				}
				if want := max(len(s.at)-1, strings.Count(test.name, "prepare")); len(pauses) != want || strings.Contains(fmt.Sprint(pauses, err), "s3cret") {
					t.Errorf("told of %q, want %d", pauses, want)
				}
			})
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "[[[["), nil }

// A context that ends is the error, not a try that fails.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, s := range map[string]*server{"during a try": {replies: []reply{hang}}, "during a pause": {replies: []reply{dead}}} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			policy := &httpcall.Policy{Retries: 3, Pause: httpcall.Exponential(time.Hour, 2*time.Hour)}
			client := &http.Client{Transport: &httpcall.Transport{Next: s, Stall: time.Minute, MaxAnswer: 1000}}
			err := policy.Ask(ctx, client, httpcall.Call{Method: http.MethodGet, Address: "http://server.example"}, nil, nil)
			if !errors.Is(err, context.Canceled) || len(s.at) != 1 {
				t.Errorf("%s: %v after %d tries", name, err, len(s.at))
			}
		}
	})
}

// A body that is read slowly is progress, also when a client reads it again.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{replies: []reply{{code: slow}}, start: time.Now()}
		policy := &httpcall.Policy{Retries: 3, Pause: httpcall.Linear(time.Second)}
		client := &http.Client{Transport: &httpcall.Transport{Next: s, Stall: time.Minute, MaxAnswer: 1000}}
		err := policy.Ask(t.Context(), client, httpcall.Call{Method: http.MethodPost, Address: "http://server.example", JSON: "some text"}, nil, nil)
		if err != nil || len(s.at) != 1 {
			t.Errorf("%v after %d tries", err, len(s.at))
		}
	})
}

func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := map[time.Duration]bool{}
		for range 20 {
			start := time.Now()
			s := &server{replies: []reply{status(503, "Retry-After", "60"), status(200)}}
			policy := &httpcall.Policy{Retries: 1, Spread: true, MaxPause: time.Minute}
			client := &http.Client{Transport: &httpcall.Transport{Next: s, Stall: time.Minute, MaxAnswer: 1000}}
			if err := policy.Ask(t.Context(), client, httpcall.Call{Method: http.MethodGet, Address: "http://server.example"}, nil, nil); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if ends[took] = true; took < time.Minute || took > 90*time.Second {
				t.Errorf("it took %s", took)
			}
		}
		if len(ends) != 20 {
			t.Errorf("%d different pauses, want 20", len(ends))
		}
	})
}

func TestStatusError(t *testing.T) {
	resp := &http.Response{StatusCode: 403, Header: http.Header{"Retry-After": {"5"}}}
	got := httpcall.NewStatusError(resp, "no_t0ken", "you sent\n t0ken "+strings.Repeat("x", 1000), "t0ken").Error()
	if !strings.HasPrefix(got, "the server answers 403 no_***: you sent *** xxx") || !strings.HasSuffix(got, " (try again in 5s)") || len(got) > 400 {
		t.Error(got)
	}
}
