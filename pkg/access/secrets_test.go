package access

import (
	keys "crypto/ed25519"
	"net"
	"path/filepath"
	"slices"
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
		"netrc":               {NetrcVariable, "machine a login me password s3cret-one\nmachine b password s3cret-two", []string{"s3cret-one", "bWU6czNjcmV0LW9uZQ==", "s3cret-two", "OnMzY3JldC10d28="}},
		"netrc lines":         {NetrcVariable, "machine a\n\tlogin me\n\tpassword\n\ts3cret-one\n", []string{"s3cret-one", "bWU6czNjcmV0LW9uZQ=="}},
		"netrc quotes":        {NetrcVariable, `machine a password "s3cret \"one\"" login me`, []string{`s3cret "one"`, "bWU6czNjcmV0ICJvbmUi"}},
		"netrc account":       {NetrcVariable, "machine a login password password account-text account account-two", []string{"account-text", "cGFzc3dvcmQ6YWNjb3VudC10ZXh0", "account-two", "cGFzc3dvcmQ6YWNjb3VudC10d28="}},
		"netrc open quote":    {NetrcVariable, `machine a password "s3cret-one`, []string{"s3cret-one", "OnMzY3JldC1vbmU="}},
		"netrc end":           {NetrcVariable, "machine a password", nil},
		"short":               {NetrcVariable, "machine a password 1234567", []string{"OjEyMzQ1Njc="}},
		"access-tokens":       {ConfVariable, "cores = 1\naccess-tokens = github.com=s3cret-one gitlab.com=PAT:s3cret-two", []string{"s3cret-one", "PAT:s3cret-two", "s3cret-two"}},
		"extra-access-tokens": {ConfVariable, "extra-access-tokens = \"github.com=s3cret-one\" b='s3cret-two'", []string{"s3cret-one", "s3cret-two"}},
		"github_access_token": {GitHubVariable, " s3cret-one\n", []string{"s3cret-one", "eC1hY2Nlc3MtdG9rZW46czNjcmV0LW9uZQ=="}},
		"signing_key":         {SigningKeyVariable, "test-1:s3cret-one", []string{"s3cret-one"}},
	} {
		t.Run(name, func(t *testing.T) {
			h, masked := hostWith(map[string]string{test.variable: test.text})
			h.maskParts()
			got, want := *masked, test.want
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpenNames(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_BUCKET", "BUCKET_NAME"} {
		if !openPattern().MatchString(name) {
			t.Errorf("%s counts as secret", name)
		}
	}
	for _, name := range []string{"AWS_SECRET_ENDPOINT_KEY", "BUCKET_TOKEN", "REGION_PASSWORD", "MY_PROFILE_SECRET", "XAWS_REGION", "aws_region"} {
		if openPattern().MatchString(name) {
			t.Errorf("%s counts as open", name)
		}
	}
}

// Secrets of many lines are masked line by line.
func TestMaskLines(t *testing.T) {
	h, masked := hostWith(nil)
	h.mask("-----BEGIN KEY-----\r\ns3cret-line\nshort\n")
	if diff := cmp.Diff([]string{"-----BEGIN KEY-----", "s3cret-line"}, *masked); diff != "" {
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
