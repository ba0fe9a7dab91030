package attictest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

const (
	hash    = "0123456789abcdfghijklmnpqrsvwxyz"
	narHash = "sha256:7ad639e9527dfffd5e72f749383f43edfb169120d8be121f2069dbffe717c717"
	nar     = "the NAR"
)

// request is an upload that the server takes, until it is changed.
type request struct {
	info     map[string]any
	header   http.Header
	body     string
	preamble bool
}

func good() *request {
	return &request{
		info: map[string]any{
			"cache": "test", "store_path_hash": hash, "store_path": "/nix/store/" + hash + "-name",
			"references": []string{hash + "-name"}, "system": nil, "deriver": nil, "sigs": []string{}, "ca": nil,
			"nar_hash": narHash, "nar_size": len(nar),
		},
		header: http.Header{},
		body:   nar,
	}
}

func (r *request) send(t *testing.T, s *attictest.Running, token string) (status int, answer string) {
	t.Helper()
	info, err := json.Marshal(r.info)
	if err != nil {
		t.Fatal(err)
	}
	body, header := r.body, maps.Clone(r.header)
	switch {
	case r.preamble:
		body = string(info) + body
		if header.Get("X-Attic-Nar-Info-Preamble-Size") == "" {
			header.Set("X-Attic-Nar-Info-Preamble-Size", strconv.Itoa(len(info)))
		}
	case r.info != nil:
		header.Set("X-Attic-Nar-Info", string(info))
	}
	header.Set("Authorization", "Bearer "+token)
	return do(t, http.MethodPut, s.URL+"/_api/v1/upload-path", header, body)
}

func do(t *testing.T, method, address string, header http.Header, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(bytes.TrimSpace(data))
}

func TestUploadPath(t *testing.T) {
	set := func(name string, value any) func(*request) {
		return func(r *request) { r.info[name] = value }
	}
	for _, test := range []struct {
		name   string
		change func(*request)
		status int
		says   string
	}{
		{"header", func(*request) {}, 200, `"kind":"Uploaded"`},
		{"preamble", func(r *request) { r.preamble = true }, 200, `"kind":"Uploaded"`},
		{"large preamble", func(r *request) { r.preamble = true; r.info["ca"] = strings.Repeat("x", 5000) }, 200, `"kind":"Uploaded"`},
		{"large header", set("ca", strings.Repeat("x", 5000)), 431, "too large"},
		{"no info", func(r *request) { r.info = nil }, 400, "X-Attic-Nar-Info must be set"},
		{"preamble is missing", func(r *request) {
			r.info, r.body = nil, "{"
			r.header.Set("X-Attic-Nar-Info-Preamble-Size", "300")
		}, 400, "doesn't match"},
		{"preamble is shorter", func(r *request) {
			r.preamble = true
			r.header.Set("X-Attic-Nar-Info-Preamble-Size", "30")
		}, 400, "unexpected EOF"},
		{"preamble without number", func(r *request) {
			r.preamble = true
			r.header.Set("X-Attic-Nar-Info-Preamble-Size", "many")
		}, 400, "unsigned integer"},
		{"preamble over the limit", func(r *request) {
			r.preamble = true
			r.info["ca"] = strings.Repeat("x", 1<<20)
		}, 400, "Upload info is too large"},
		{"twice", func(r *request) {
			r.preamble = true
			r.header.Set("X-Attic-Nar-Info", "{}")
		}, 400, "both"},
		{"unknown field", set("more", 1), 400, `unknown field \"more\"`},
		{"missing field", func(r *request) { delete(r.info, "references") }, 400, "missing field"},
		{"no store path", set("store_path", "/tmp/x"), 400, "not a store path"},
		{"another hash", set("store_path_hash", strings.Repeat("0", 32)), 400, "is not of hash"},
		{"NAR hash without type", set("nar_hash", strings.Repeat("0", 64)), 400, "not a NAR hash"},
		{"NAR hash in base 32", set("nar_hash", "sha256:"+strings.Repeat("0", 52)), 400, "not a NAR hash"},
		{"another NAR", set("nar_hash", "sha256:"+strings.Repeat("0", 64)), 400, "Bad NAR Hash or Size"},
		{"another size", set("nar_size", 8), 400, "Bad NAR Hash or Size"},
		{"no size", set("nar_size", 0), 400, "not the size"},
		{"whole reference", set("references", []string{"/nix/store/" + hash + "-name"}), 400, "base name"},
		{"whole deriver", set("deriver", "/nix/store/"+hash+"-name.drv"), 400, "base name"},
		{"no signature", set("sigs", []string{"x"}), 400, "not a signature"},
		{"another cache", set("cache", "other"), 404, "NoSuchCache"},
		{"no JSON", func(r *request) { r.info = nil; r.header.Set("X-Attic-Nar-Info", "{") }, 400, "RequestError"},
		{"more than JSON", func(r *request) { r.info = nil; r.header.Set("X-Attic-Nar-Info", "{} {}") }, 400, "trailing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := attictest.Start(t, attictest.Options{})
			r := good()
			test.change(r)
			status, answer := r.send(t, s, s.Token(true, true))
			if status != test.status || !strings.Contains(answer, test.says) {
				t.Errorf("%d %s, want %d with %q", status, answer, test.status, test.says)
			}
			if taken := len(s.Uploads()) == 1; taken != (status == 200) {
				t.Errorf("taken: %v", taken)
			}
		})
	}
}

func TestDeduplicated(t *testing.T) {
	for _, trust := range []bool{false, true} {
		s := attictest.Start(t, attictest.Options{TrustHash: trust})
		token := s.Token(false, true)
		good().send(t, s, token)
		again := good()
		if status, answer := again.send(t, s, token); status != 200 || !strings.Contains(answer, `"kind":"Deduplicated"`) {
			t.Errorf("%d %s", status, answer)
		}
		again.body = "another"
		if status, _ := again.send(t, s, token); (status == 200) != trust {
			t.Errorf("another NAR, trust %v: %d", trust, status)
		}
	}
}

func TestPermissions(t *testing.T) {
	private := attictest.Start(t, attictest.Options{})
	public := attictest.Start(t, attictest.Options{Public: true})
	for _, test := range []struct {
		name       string
		server     *attictest.Running
		token      string
		pull, push int
	}{
		{"none", private, "", 401, 401},
		{"bad", private, "bad", 401, 401},
		{"pull", private, private.Token(true, false), 200, 403},
		{"push", private, private.Token(false, true), 403, 200},
		{"both", private, private.Token(true, true), 200, 200},
		{"none, public", public, "", 200, 403},
		{"bad, public", public, "bad", 200, 403},
		{"push, public", public, public.Token(false, true), 200, 200},
	} {
		bearer := http.Header{"Authorization": {"bearer " + test.token}, "Content-Type": {"application/json"}}
		basic := http.Header{}
		(&http.Request{Header: basic}).SetBasicAuth("anybody", test.token)
		for _, read := range []string{"/_api/v1/cache-config/test", "/test/nix-cache-info"} {
			for _, header := range []http.Header{bearer, basic} {
				if got, _ := do(t, http.MethodGet, test.server.URL+read, header, ""); got != test.pull {
					t.Errorf("%s: %s: %d, want %d", test.name, read, got, test.pull)
				}
			}
		}
		if got, _ := do(t, http.MethodPost, test.server.URL+"/_api/v1/get-missing-paths", bearer, `{"cache":"test","store_path_hashes":["`+hash+`"]}`); got != test.push {
			t.Errorf("%s: get-missing-paths: %d, want %d", test.name, got, test.push)
		}
		if got, _ := good().send(t, test.server, test.token); got != test.push {
			t.Errorf("%s: upload-path: %d, want %d", test.name, got, test.push)
		}
	}
	token := private.Token(true, true)
	private.Expire()
	if got, _ := good().send(t, private, token); got != 401 {
		t.Errorf("expired: %d", got)
	}
}

func TestMissingPaths(t *testing.T) {
	s := attictest.Start(t, attictest.Options{Prefix: "/prefix"})
	token := s.Token(true, true)
	good().send(t, s, token)
	other := strings.Repeat("0", 32)
	header := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	for _, test := range []struct {
		question string
		status   int
		answer   string
	}{
		{`{"cache":"test","store_path_hashes":["` + hash + `","` + other + `"]}`, 200, `{"missing_paths":["` + other + `"]}`},
		{`{"cache":"test","store_path_hashes":[]}`, 200, `{"missing_paths":[]}`},
		{`{"cache":"test","store_path_hashes":["x"]}`, 400, ""},
		{`{"cache":"test"}`, 400, ""},
		{`{"cache":"test","store_path_hashes":[],"more":1}`, 400, ""},
		{`{"cache":"other","store_path_hashes":[]}`, 404, ""},
		{`{"cache":"test","store_path_hashes":["` + strings.Repeat("x", 1<<20) + `"]}`, 413, ""},
	} {
		status, answer := do(t, http.MethodPost, s.URL+"/_api/v1/get-missing-paths", header, test.question)
		if status != test.status || !strings.Contains(answer, test.answer) {
			t.Errorf("%.60s: %d %s", test.question, status, answer)
		}
	}
	s.Forget("/nix/store/" + hash + "-name")
	if s.Has("/nix/store/" + hash + "-name") {
		t.Error("it was not forgotten")
	}
	header.Del("Content-Type")
	if status, _ := do(t, http.MethodPost, s.URL+"/_api/v1/get-missing-paths", header, `{"cache":"test","store_path_hashes":[]}`); status != 415 {
		t.Errorf("without a type: %d", status)
	}
}
