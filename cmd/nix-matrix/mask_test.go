package main

import (
	"bytes"
	keys "crypto/ed25519"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh/agent"
)

// The runner knows the lines of an input, not what is secret in them.
func TestMaskParts(t *testing.T) {
	for name, test := range map[string]struct {
		variable, text string
		want           []string
	}{
		"netrc":               {netrcVariable, "machine a login me password s3cret-one\nmachine b password s3cret-two", []string{"s3cret-one", "bWU6czNjcmV0LW9uZQ==", "s3cret-two", "OnMzY3JldC10d28="}},
		"netrc lines":         {netrcVariable, "machine a\n\tlogin me\n\tpassword\n\ts3cret-one\n", []string{"s3cret-one", "bWU6czNjcmV0LW9uZQ=="}},
		"netrc quotes":        {netrcVariable, `machine a password "s3cret \"one\"" login me`, []string{`s3cret "one"`, "bWU6czNjcmV0ICJvbmUi"}},
		"netrc account":       {netrcVariable, "machine a login password password account-text account account-two", []string{"account-text", "cGFzc3dvcmQ6YWNjb3VudC10ZXh0", "account-two", "cGFzc3dvcmQ6YWNjb3VudC10d28="}},
		"netrc open quote":    {netrcVariable, `machine a password "s3cret-one`, []string{"s3cret-one", "OnMzY3JldC1vbmU="}},
		"netrc end":           {netrcVariable, "machine a password", nil},
		"short":               {netrcVariable, "machine a password 1234567", []string{"OjEyMzQ1Njc="}},
		"access-tokens":       {confVariable, "cores = 1\naccess-tokens = github.com=s3cret-one gitlab.com=PAT:s3cret-two", []string{"s3cret-one", "PAT:s3cret-two", "s3cret-two"}},
		"extra-access-tokens": {confVariable, "extra-access-tokens = \"github.com=s3cret-one\" b='s3cret-two'", []string{"s3cret-one", "s3cret-two"}},
		"github_access_token": {gitHubVariable, " s3cret-one\n", []string{"s3cret-one", "eC1hY2Nlc3MtdG9rZW46czNjcmV0LW9uZQ=="}},
		"signing_key":         {signingKeyVariable, "test-1:s3cret-one", []string{"s3cret-one"}},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			env := map[string]string{"GITHUB_ACTIONS": "true", test.variable: test.text}
			newApp(streams{out: &log, err: &log}, func(name string) string { return env[name] }).maskParts()
			got := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], "::add-mask::")
			}
			want := test.want
			if want == nil {
				want = []string{""}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpenNames(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_BUCKET", "BUCKET_NAME"} {
		if !openPattern.MatchString(name) {
			t.Errorf("%s counts as secret", name)
		}
	}
	for _, name := range []string{"AWS_SECRET_ENDPOINT_KEY", "BUCKET_TOKEN", "REGION_PASSWORD", "MY_PROFILE_SECRET", "XAWS_REGION", "aws_region"} {
		if openPattern.MatchString(name) {
			t.Errorf("%s counts as open", name)
		}
	}
}

// Secrets of many lines are masked line by line.
func TestMaskLines(t *testing.T) {
	var log bytes.Buffer
	a := newApp(streams{out: &log, err: &log}, func(name string) string { return map[string]string{"GITHUB_ACTIONS": "true"}[name] })
	a.mask("-----BEGIN KEY-----\r\ns3cret-line\nshort\n")
	if diff := cmp.Diff("::add-mask::-----BEGIN KEY-----\n::add-mask::s3cret-line\n", log.String()); diff != "" {
		t.Error(diff)
	}
}

// An agent without keys gives no access to anything.
func TestAgentHasKeys(t *testing.T) {
	dir := t.TempDir()
	serve := func(name string, answer func(net.Conn)) string {
		socket := filepath.Join(dir, name)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go answer(conn)
			}
		}()
		return socket
	}
	keyring := func(all ...keys.PrivateKey) func(net.Conn) {
		ring := agent.NewKeyring()
		for _, key := range all {
			if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
				t.Fatal(err)
			}
		}
		return func(conn net.Conn) { _ = agent.ServeAgent(ring, conn); _ = conn.Close() }
	}
	key := keys.NewKeyFromSeed(slices.Repeat([]byte{1}, keys.SeedSize))
	for socket, want := range map[string]bool{
		serve("empty", keyring()):                                   false,
		serve("full", keyring(key)):                                 true,
		serve("hangs up", func(conn net.Conn) { _ = conn.Close() }): true,
		filepath.Join(dir, "none"):                                  false,
	} {
		if got := agentHasKeys(t.Context(), socket); got != want {
			t.Errorf("%s: %t", socket, got)
		}
	}
}
