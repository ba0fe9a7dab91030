package access

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	hosts   = "# ours\nbuilder.example.org,10.0.0.1 " + ed25519 + "\n[other.example.org]:2222 " + ed25519 + "\n"
)

func TestWithKeys(t *testing.T) {
	host := base64.StdEncoding.EncodeToString([]byte(ed25519))
	for _, test := range []struct{ line, key, hosts, want string }{
		{"ssh-ng://me@builder.example.org x86_64-linux", "/key", hosts, "ssh-ng://me@builder.example.org x86_64-linux /key - - - - " + host},
		{"ssh-ng://me@other.example.org:2222 x86_64-linux", "", hosts, "ssh-ng://me@other.example.org:2222 x86_64-linux - - - - - " + host},
		{"me@builder.example.org", "/key", hosts, "me@builder.example.org - /key - - - - " + host},
		{"ssh://stranger x86_64-linux /own 4 2 kvm - own=", "/key", hosts, "ssh://stranger x86_64-linux /own 4 2 kvm - own="},
		{"ssh://stranger", "/key", "", "ssh://stranger - /key"},
		{"@/etc/nix/machines", "/key", hosts, "@/etc/nix/machines"},
	} {
		got, err := withKeys(test.line, test.key, test.hosts)
		if err != nil || got != test.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", test.line, got, err, test.want)
		}
	}
	for _, line := range []string{"", "a b c d e f g h i", "@/etc/nix/machines x86_64-linux"} {
		if got, err := withKeys(line, "", ""); err == nil {
			t.Errorf("%q is %q", line, got)
		}
	}
}

func TestSecretEnv(t *testing.T) {
	env := map[string]string{
		EnvVariable: "# for s3\nAWS_ACCESS_KEY_ID=AKIA\n\n  AWS_SECRET_ACCESS_KEY=a=b c%long\nAWS_REGION=eu-central-1\nREGISTRY_TOKEN=\nAWS_SECRET_ENDPOINT_KEY=endpoint-key\nQUOTED=\"quoted-text\"\nAWS_ENDPOINT_URL=https://s3.example\n",
	}
	h, masked := hostWith(env)
	got, err := h.Env()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=a=b c%long", "AWS_REGION=eu-central-1", "REGISTRY_TOKEN=", "AWS_SECRET_ENDPOINT_KEY=endpoint-key", `QUOTED="quoted-text"`, "AWS_ENDPOINT_URL=https://s3.example"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a=b c%long", "endpoint-key", "quoted-text"}, *masked); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{"s3cr3t", "=s3cr3t", "A B=s3cr3t", "1A=s3cr3t", "export A=s3cr3t"} {
		env[EnvVariable] = line
		if _, err := h.Env(); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// hostWith returns a host with these variables, and the texts that it masks.
func hostWith(env map[string]string) (h *Host, masked *[]string) {
	masked = new([]string)
	return &Host{
		Getenv: func(name string) string { return env[name] },
		Mask:   func(secret string) { *masked = append(*masked, secret) },
	}, masked
}
