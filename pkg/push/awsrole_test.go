package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

const testRole = "arn:aws:iam::123456789012:role/nix-matrix"

// sts stands in for the token service of AWS.
func sts(t *testing.T, lifetime time.Duration, fault func(w http.ResponseWriter, n int) bool) (address string, asked *int) {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		if fault != nil && fault(w, n) {
			return
		}
		data, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(data))
		want := url.Values{
			"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {testRole},
			"RoleSessionName": {"nix-matrix"}, "WebIdentityToken": {"t0ken-for-sts.amazonaws.com"},
		}
		if err != nil || form.Encode() != want.Encode() || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity by %s</Message></Error></ErrorResponse>`, form.Get("WebIdentityToken"))
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>secret/%d</SecretAccessKey><SessionToken>session%d==</SessionToken><Expiration>%s</Expiration>
			</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, n, n, n, time.Now().Add(lifetime).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(server.Close)
	return server.URL, &n
}

func roleSecrets(address string, masked *[]string) Secrets {
	return Secrets{
		Env:     []string{"AWS_ROLE_ARN=" + testRole, "AWS_ENDPOINT_URL_STS=" + address, "AWS_ACCESS_KEY_ID="},
		IDToken: func(_ context.Context, audience string) (string, error) { return "t0ken-for-" + audience, nil },
		Mask:    func(secret string) { *masked = append(*masked, secret) },
	}
}

// Credentials of a role are asked for once, until they end.
func TestAWSRole(t *testing.T) {
	for _, test := range []struct {
		lifetime time.Duration
		want     string
	}{
		{time.Hour, "AWS_ACCESS_KEY_ID=ASIA1 AWS_SECRET_ACCESS_KEY=secret/1 AWS_SESSION_TOKEN=session1== s3://b?"},
		{time.Minute, "AWS_ACCESS_KEY_ID=ASIA2 AWS_SECRET_ACCESS_KEY=secret/2 AWS_SESSION_TOKEN=session2== s3://b?"},
	} {
		address, _ := sts(t, test.lifetime, nil)
		d, err := Parse("s3://b")
		if err != nil {
			t.Fatal(err)
		}
		var masked []string
		var store calls
		for range 2 {
			if _, err := d.Push(t.Context(), &store, []string{"/a"}, roleSecrets(address, &masked)); err == nil || err.Error() != "copied" {
				t.Fatal(err)
			}
		}
		if !strings.HasPrefix(store[1], "copy "+test.want) {
			t.Errorf("got %s, want %s", store[1], test.want)
		}
		if !slices.Contains(masked, "secret/1") || !slices.Contains(masked, "session1==") {
			t.Errorf("only %q is masked", masked)
		}
	}
}

func TestAWSRoleFails(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, int) bool {
		return func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	refused := errors.New("the job may not")
	for name, test := range map[string]struct {
		fault  func(http.ResponseWriter, int) bool
		change func(*Secrets)
		says   string
		asked  int
	}{
		"the trust policy": {nil, func(s *Secrets) {
			s.IDToken = func(context.Context, string) (string, error) { return "of-another", nil }
		}, "cannot assume the role " + testRole + ": the server answers 403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity by ***. Let the trust policy of the role accept this repository and ref, and the audience sts.amazonaws.com", 1},
		"AWS is down":     {answer(503, ""), nil, "the server answers 503", 5},
		"no XML":          {answer(200, "{}"), nil, "other than the expected XML", 1},
		"nothing":         {answer(200, "<a></a>"), nil, "no credentials", 1},
		"two lines":       {answer(200, "<a><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>A\nB</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>s</SessionToken></Credentials></AssumeRoleWithWebIdentityResult></a>"), nil, "no credentials", 1},
		"no role":         {nil, func(s *Secrets) { s.Env[0] = "AWS_ROLE_ARN=nix-matrix" }, `invalid AWS_ROLE_ARN "nix-matrix" (input env)`, 0},
		"no permission":   {nil, func(s *Secrets) { s.IDToken = nil }, "the permission id-token: write is not set. Add the line `id-token: write`", 0},
		"a token refused": {nil, func(s *Secrets) { s.IDToken = func(context.Context, string) (string, error) { return "", refused } }, "the job may not", 0},
	} {
		t.Run(name, func(t *testing.T) {
			address, asked := sts(t, time.Hour, test.fault)
			d, err := Parse("s3://b")
			if err != nil {
				t.Fatal(err)
			}
			var masked []string
			secrets := roleSecrets(address, &masked)
			if test.change != nil {
				test.change(&secrets)
			}
			var store calls
			_, err = d.Push(t.Context(), &store, []string{"/a"}, secrets)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "of-another") {
				t.Errorf("error: %v, want it to say %q", err, test.says)
			}
			if *asked != test.asked || len(store) > 0 {
				t.Errorf("asked %d times, copied %v", *asked, store)
			}
		})
	}
}

// A role counts where there are no credentials of another kind.
func TestLacksRole(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for name := range map[string]bool{"AWS_ACCESS_KEY_ID": true, "AWS_WEB_IDENTITY_TOKEN_FILE": true, "AWS_ROLE_ARN": true} {
		t.Setenv(name, "")
	}
	d, err := Parse("s3://b")
	if err != nil {
		t.Fatal(err)
	}
	id := func(context.Context, string) (string, error) { return "", nil }
	for name, test := range map[string]struct {
		secrets Secrets
		lacks   string
	}{
		"role without identity":  {Secrets{Bare: true, Env: []string{"AWS_ROLE_ARN=x"}}, "id-token: write"},
		"on an own machine":      {Secrets{Env: []string{"AWS_ROLE_ARN=x"}}, "id-token: write"},
		"with identity":          {Secrets{Bare: true, Env: []string{"AWS_ROLE_ARN=x"}, IDToken: id}, ""},
		"later":                  {Secrets{Bare: true, Env: []string{"AWS_ROLE_ARN=x"}, IDTokenLater: true}, ""},
		"with a key":             {Secrets{Bare: true, Env: []string{"AWS_ROLE_ARN=x", "AWS_ACCESS_KEY_ID=x"}}, ""},
		"with a token in a file": {Secrets{Bare: true, Env: []string{"AWS_ROLE_ARN=x", "AWS_WEB_IDENTITY_TOKEN_FILE=/x"}}, ""},
		"an empty key":           {Secrets{Bare: true, Env: []string{"AWS_ACCESS_KEY_ID="}}, "AWS_ACCESS_KEY_ID (input env) is not set"},
	} {
		lacks := d.Lacks(test.secrets)
		if (lacks == nil) != (test.lacks == "") || lacks != nil && !strings.Contains(lacks.Error(), test.lacks) {
			t.Errorf("%s: lacks %v", name, lacks)
		}
	}
	for env, want := range map[string]string{
		"":                             "https://sts.amazonaws.com",
		"AWS_REGION=eu-central-1":      "https://sts.eu-central-1.amazonaws.com",
		"AWS_DEFAULT_REGION=us-west-2": "https://sts.us-west-2.amazonaws.com",
		"AWS_REGION=cn-north-1":        "https://sts.cn-north-1.amazonaws.com.cn",
		"AWS_REGION=evil.example/":     "https://sts.amazonaws.com",
	} {
		s := Secrets{Env: []string{"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_ENDPOINT_URL_STS=", env}}
		if got := s.stsEndpoint(); got != want {
			t.Errorf("%s: %s", env, got)
		}
	}
}
