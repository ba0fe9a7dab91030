package push

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// calls is a Nix that notes what it is asked for.
type calls []string

func (c *calls) Copy(_ context.Context, destination string, paths []string, env ...string) (nix.Traffic, error) {
	if len(env) > 0 {
		destination = strings.Join(env, " ") + " " + destination
	}
	*c = append(*c, "copy "+destination+" "+strings.Join(paths, " "))
	return nix.Traffic{}, errors.New("copied")
}

func (c *calls) Cachix(_ context.Context, name string, paths []string) error {
	*c = append(*c, "cachix "+name+" "+strings.Join(paths, " "))
	return errors.New("pushed")
}

func TestParse(t *testing.T) {
	for address, want := range map[string]struct{ name, substituter string }{
		"cachix:my-fleet":            {"", "https://my-fleet.cachix.org"},
		"s3://bucket?region=eu":      {},
		"file:///srv/cache":          {},
		"http://localhost:8080/a":    {},
		"https://user:s3cr3t@host/a": {name: "https://user:xxxxx@host/a"},
		"ssh://root@host":            {},
		"ssh-ng://host":              {},
		"unix:///run/nix":            {},
		"local:?root=/mnt":           {},
	} {
		d, err := Parse(address)
		if err != nil {
			t.Error(err)
		}
		if want.name == "" {
			want.name = address
		}
		if want.substituter == "" {
			want.substituter = address
		}
		if d.Name != want.name || d.Substituter != want.substituter {
			t.Errorf("%s: its name is %s, its substituter %s", address, d.Name, d.Substituter)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for address, want := range map[string]string{
		"":                            "cachix:NAME",
		"my-fleet":                    "cachix:NAME",
		"/srv/cache":                  "file:///srv/cache",
		"s3:":                         "cachix:NAME",
		"cachix:":                     "cachix:NAME",
		"cachix:a/b":                  "cachix:my-fleet",
		"cachix:user:s3cr3t@host":     "cachix:my-fleet",
		"gopher://host":               `"gopher"`,
		"user:s3cr3t@host":            `"user:xxxxx@host"`,
		"htps://user:s3cr3t@host":     `"htps://user:xxxxx@host"`,
		"htps://user:%zzs3cr3t@host":  `"htps://user:xxxxx@host"`,
		"https://user:s3cr3t%zz@host": "Percent-encode",
		"https://user:s3cr3t/b@host":  "Percent-encode",
		"https://user:s3cr3t@ho st":   "https://user:xxxxx@ho st",
		"https://ho st":               "invalid character",
		"https://host\n":              "invalid control character",
	} {
		d, err := Parse(address)
		switch {
		case err == nil:
			t.Errorf("%q is %+v", address, d)
		case strings.Contains(err.Error(), "s3cr3t"):
			t.Errorf("%q: its password is in the error: %v", address, err)
		case !strings.HasPrefix(err.Error(), "push: ") || !strings.Contains(err.Error(), want):
			t.Errorf("%q: the error is %v, want it to say %q", address, err, want)
		}
	}
}

func TestPush(t *testing.T) {
	for _, test := range []struct{ address, keyFile, want string }{
		{"cachix:my-fleet", "/key", "cachix my-fleet /a /b"},
		{"file:///srv", "", "copy file:///srv?compression=zstd&parallel-compression=true /a /b /c.drv!*"},
		{"file:///srv?compression=xz", "", "copy file:///srv?compression=xz /a /b /c.drv!*"},
		{"ssh-ng://host", "/key", "copy ssh-ng://host /a /b /c.drv!*"},
		{"ssh://host", "/key", "copy ssh://host /a /b"},
		{"s3://b?region=eu&compression=none", "/key", "copy s3://b?region=eu&compression=none&secret-key=%2Fkey /a /b /c.drv!*"},
		{"https://user:s3cr3t@host?compression=br", "/my key&+=", "copy https://user:s3cr3t@host?compression=br&secret-key=%2Fmy%20key%26%2B%3D /a /b /c.drv!*"},
	} {
		d, err := Parse(test.address)
		if err != nil {
			t.Fatal(err)
		}
		var store calls
		if _, err := d.Push(t.Context(), &store, []string{"/a", "/b", "/c.drv!*"}, Secrets{KeyFile: test.keyFile}); err == nil {
			t.Errorf("%s: the error is lost", test.address)
		}
		if diff := cmp.Diff(calls{test.want}, store); diff != "" {
			t.Errorf("%s:\n%s", test.address, diff)
		}
	}
}

func (*calls) Closure(context.Context, ...string) (map[string]nix.PathInfo, error) {
	return nil, errors.New("not asked for")
}

func (*calls) NAR(context.Context, string) (io.ReadCloser, error) {
	return nil, errors.New("not asked for")
}

// An address in the form of another tool is refused with the form that is meant.
func TestParseForms(t *testing.T) {
	for _, test := range []struct{ address, want string }{
		{"https://my-fleet.cachix.org", "Write cachix:my-fleet"},
		{"https://my-fleet.cachix.org/", "Write cachix:my-fleet"},
		{"file://srv/cache", "Write file:///srv/cache"},
		{"file://srv", "Write file:///srv"},
		{"/srv/cache", "Write file:///srv/cache"},
		{"cache.example.org", "Write https://cache.example.org"},
		{"cache.example.org:8080/x", "Write https://cache.example.org:8080/x"},
		{"https://cachix.org.example.org", ""},
		{"https://cache.example.org", ""},
		{"file:///srv/cache", ""},
		{"cachix:my-fleet", ""},
	} {
		t.Run(test.address, func(t *testing.T) {
			_, err := Parse(test.address)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
