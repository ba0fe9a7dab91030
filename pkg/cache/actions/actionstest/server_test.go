package actionstest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// client sends requests as they are, and takes answers as they come.
type client struct {
	t      *testing.T
	server *actionstest.Running
	token  string
}

func start(t *testing.T, options actionstest.Options) client {
	server := actionstest.Start(t, options)
	return client{t, server, server.Token()}
}

func (c client) call(method, body string) (status int, answer string) {
	c.t.Helper()
	req := c.request(method, body)
	return c.send(req)
}

func (c client) request(method, body string) *http.Request {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost,
		c.server.URL+"/twirp/github.actions.results.api.v1.CacheService/"+method, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	return req
}

func (c client) send(req *http.Request) (status int, answer string) {
	c.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func (c client) expect(method, body string, status int, contains string) {
	c.t.Helper()
	if got, answer := c.call(method, body); got != status || !strings.Contains(answer, contains) {
		c.t.Errorf("%s %.60s: %d %s, want %d with %s", method, body, got, answer, status, contains)
	}
}

// upload uploads the text "text".
func (c client) upload(address string) (status int) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPut, address, strings.NewReader("text"))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("x-ms-blob-type", "BlockBlob")
	status, _ = c.send(req)
	return status
}

var version = strings.Repeat("v", 64)

const (
	create   = "CreateCacheEntry"
	finalize = "FinalizeCacheEntryUpload"
	find     = "GetCacheEntryDownloadURL"
)

func TestStrict(t *testing.T) {
	c := start(t, actionstest.Options{})
	ofKey := func(key string) string { return fmt.Sprintf(`{"key":%q,"version":%q}`, key, version) }
	for _, body := range []string{
		ofKey(""), ofKey("a,b"), ofKey(strings.Repeat("k", 513)),
		`{"key":"k"}`, `{"key":"k","version":"short"}`, `{"key":"k","version":"` + version + `v"}`,
	} {
		c.expect(create, body, 400, "invalid_argument")
		c.expect(find, body, 400, "invalid_argument")
		c.expect(finalize, strings.Replace(body, "{", `{"size_bytes":"1",`, 1), 400, "invalid_argument")
	}
	c.expect(find, fmt.Sprintf(`{"key":"k","restore_keys":["a,b"],"version":%q}`, version), 400, "invalid_argument")
	c.expect(create, fmt.Sprintf(`{"key":"k","version":%q,"paths":[]}`, version), 400, "malformed")
	c.expect(create, `{"key":1}`, 400, "malformed")
	c.expect(create, ``, 400, "malformed")
	c.expect("DeleteCacheEntry", ofKey("k"), 404, "bad_route")

	get := c.request(create, ofKey("k"))
	get.Method = http.MethodGet
	if status, answer := c.send(get); status != 404 {
		t.Errorf("GET: %d %s", status, answer)
	}
	form := c.request(create, ofKey("k"))
	form.Header.Set("Content-Type", "text/plain")
	if status, answer := c.send(form); status != 404 {
		t.Errorf("text: %d %s", status, answer)
	}
	for _, bearer := range []string{"", "Bearer other", c.server.Token()} {
		req := c.request(create, ofKey("k"))
		req.Header.Set("Authorization", bearer)
		if status, answer := c.send(req); status != 401 || strings.Contains(answer, c.server.Token()) {
			t.Errorf("%q: %d %s", bearer, status, answer)
		}
	}
	if entries := c.server.Entries(); len(entries) != 0 {
		t.Errorf("reserved: %v", entries)
	}
}

func TestReservations(t *testing.T) {
	c := start(t, actionstest.Options{})
	key := fmt.Sprintf(`"key":"k","version":%q`, version)
	c.expect(find, "{"+key+"}", 200, `"ok":false`)
	c.expect(finalize, "{"+key+`,"size_bytes":"4"}`, 404, "not_found")
	c.expect(create, "{"+key+"}", 200, `"ok":true`)
	c.expect(create, "{"+key+"}", 409, "already_exists")
	c.expect(find, "{"+key+"}", 200, `"ok":false`)
	// Nothing was uploaded yet.
	c.expect(finalize, "{"+key+`,"size_bytes":"4"}`, 400, "invalid_argument")
	c.expect(finalize, "{"+key+`,"size_bytes":"0"}`, 400, "size_bytes")
	// The same key in another version is another entry.
	other := strings.Replace(key, "vv", "xx", 1)
	c.expect(create, "{"+other+"}", 200, `"ok":true`)
}

func TestUploadAndDownload(t *testing.T) {
	c := start(t, actionstest.Options{})
	key := fmt.Sprintf(`"key":"k","version":%q`, version)
	_, created := c.call(create, "{"+key+"}")
	address := field(t, created, "signed_upload_url")
	if status := c.upload(address); status != 201 {
		t.Fatalf("upload: %d", status)
	}
	c.expect(finalize, "{"+key+`,"size_bytes":"5"}`, 400, "invalid_argument")
	c.expect(finalize, "{"+key+`,"size_bytes":4}`, 200, `"entry_id":"1"`)
	c.expect(finalize, "{"+key+`,"size_bytes":"4"}`, 404, "not_found")
	c.expect(create, "{"+key+"}", 409, "already_exists")
	_, found := c.call(find, "{"+key+"}")
	download := field(t, found, "signed_download_url")
	get := func(address string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.send(req)
	}
	if status, text := get(download); status != 200 || text != "text" {
		t.Errorf("download: %d %s", status, text)
	}
	// An address serves its blob only, and only with its signature.
	if status := c.upload(download); status != 403 {
		t.Errorf("upload to the download address: %d", status)
	}
	if status, _ := get(address); status != 403 {
		t.Errorf("download from the upload address: %d", status)
	}
	bare, _, _ := strings.Cut(download, "?")
	if status, _ := get(bare); status == 200 {
		t.Errorf("download without a signature: %d", status)
	}
}

func TestDenied(t *testing.T) {
	c := start(t, actionstest.Options{ReadOnly: true, Unreadable: true})
	key := fmt.Sprintf(`{"key":"k","version":%q}`, version)
	c.expect(create, key, 200, `"message":"cache write denied: `)
	c.expect(create, key, 200, `"ok":false`)
	c.expect(find, key, 403, `"msg":"cache read denied: `)
}

// field is a field of an answer that has no escapes but of &.
func field(t *testing.T, answer, name string) string {
	t.Helper()
	_, after, ok := strings.Cut(answer, `"`+name+`":"`)
	value, _, _ := strings.Cut(after, `"`)
	if !ok || value == "" {
		t.Fatalf("no %s in %s", name, answer)
	}
	return strings.ReplaceAll(value, `\u0026`, "&")
}

// An entry of a pull request is visible to it alone. It finds an entry of the default branch where it has none of its own.
func TestScopes(t *testing.T) {
	server := actionstest.Start(t, actionstest.Options{})
	const pull = "refs/pull/7/merge"
	clients := map[string]client{"main": {t, server, server.Token()}}
	for name, scopes := range map[string][]actionstest.Scope{
		"pull":      {{Scope: pull, Permission: actionstest.Read | actionstest.Write}, {Scope: actionstest.Main, Permission: actionstest.Read}},
		"other":     {{Scope: "refs/pull/8/merge", Permission: actionstest.Read | actionstest.Write}, {Scope: actionstest.Main, Permission: actionstest.Read}},
		"untrusted": {{Scope: actionstest.Main, Permission: actionstest.Read}},
	} {
		clients[name] = client{t, server, server.TokenFor(scopes...)}
	}
	save := func(who, key string) {
		t.Helper()
		c := clients[who]
		_, answer := c.call(create, fmt.Sprintf(`{"key":%q,"version":%q}`, key, version))
		c.upload(field(t, answer, "signed_upload_url"))
		c.expect(finalize, fmt.Sprintf(`{"key":%q,"version":%q,"size_bytes":"4"}`, key, version), 200, `"ok":true`)
	}
	see := func(who, prefix, want string) {
		t.Helper()
		clients[who].expect(find, fmt.Sprintf(`{"key":%q,"restore_keys":[%q],"version":%q}`, prefix, prefix, version), 200, fmt.Sprintf(`"matched_key":%q`, want))
	}
	save("pull", "a-1")
	see("pull", "a-", "a-1")
	for _, who := range []string{"main", "other", "untrusted"} {
		see(who, "a-", "")
	}
	save("main", "a-2")
	see("pull", "a-", "a-1") // its own comes first, though it is older
	see("pull", "a-2", "a-2")
	for _, who := range []string{"main", "other", "untrusted"} {
		see(who, "a-", "a-2")
	}
	save("other", "a-2") // which is there already, in another scope
	clients["untrusted"].expect(create, fmt.Sprintf(`{"key":"b","version":%q}`, version), 200, "cache write denied")
	clients["untrusted"].expect(finalize, fmt.Sprintf(`{"key":"a-2","version":%q,"size_bytes":"1"}`, version), 404, "not_found")
	for i, want := range []string{pull, actionstest.Main, "refs/pull/8/merge"} {
		if got := server.Entries()[i].Scope; got != want {
			t.Errorf("entry %d is in the scope %s, want %s", i, got, want)
		}
	}
}
