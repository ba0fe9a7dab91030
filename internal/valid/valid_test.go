package valid_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/valid"
)

const (
	path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a"
	drv  = path + ".drv"
)

// hostile strings must be refused by all checks.
var hostile = []string{
	"", "-", "--plugin-files", "-x.drv", "a b", " a", "a\n", "a\nb", "a\x00", "\xff", "a\u202eb", "\x1b[2J", "../a", "$(id)", "${x}", "`id`", `"`, "'", "a!b^c", "!", "^",
	strings.Repeat("a", 1<<20),
}

func TestChecks(t *testing.T) {
	for name, test := range map[string]struct {
		check     func(string) error
		good, bad []string
	}{
		"StorePath":   {valid.StorePath, []string{path, drv}, []string{path + "/bin", path + "!out", path + "\n", "/nix/store/../etc/passwd"}},
		"Derivation":  {valid.Derivation, []string{drv}, []string{path, drv + "!out", drv + "^out", "-x.drv"}},
		"Output":      {valid.Output, []string{"out", "dev", "a+b-c._?=d"}, []string{"a,b", "a/b", strings.Repeat("a", 129)}},
		"Realisable":  {valid.Realisable, []string{path, drv, drv + "!out", drv + "!out,dev"}, []string{path + "!out", drv + "!", drv + "!out,", drv + "!out!dev", drv + "^out", "!out"}},
		"Name":        {valid.Name, []string{"cachix", "git-crypt", "my_fleet-2"}, []string{"a/b", "a.b", "a:b", strings.Repeat("a", 101)}},
		"System":      {valid.System, []string{"x86_64-linux", "armv7l-linux", "builtin", "wasm32-wasi"}, []string{"-linux", "a/b", strings.Repeat("a", 65)}},
		"Key":         {valid.Key, []string{"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", "a-1:aaaa"}, []string{"a", ":aaaa", "a:", "-a:aaaa", "a:aaaa b:bbbb", "a:aaaa\nb:bbbb", "a:b:aaaa"}},
		"PublicKey":   {valid.PublicKey, []string{"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="}, []string{"a-1:aaaa", "a-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY", "a-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjYAAA=="}},
		"Substituter": {valid.Substituter, []string{"https://cache.nixos.org?priority=1", "s3://b?endpoint=x", "ssh-ng://u@h:22", "/abs", "file:///a", "auto", "daemon", "local?root=/a", "local://"}, []string{"https://a b", "https://a https://b", "https://a\thttps://b", "a", "locality", "a:b", "ssh://-oProxyCommand=x", "ssh-ng://u@-x", "--store"}},
		"Address":     {valid.Address, []string{"/a b", "file:///a b"}, []string{"a b", "./a", "https://a\nb", "file:///a\x00", "ssh://-x"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range test.good {
				if err := test.check(s); err != nil {
					t.Error(err)
				}
			}
			for _, s := range slices.Concat(test.bad, hostile) {
				err := test.check(s)
				if err == nil {
					t.Errorf("%.50q is accepted", s)
				} else if text := err.Error(); len(text) > 1000 || valid.Line(text, 1000) != nil {
					t.Errorf("%.50q has an error of %d bytes: %.100q", s, len(text), text)
				}
			}
		})
	}
}

func TestLine(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "a b": true, "ä": true, "12345": true, "123456": false,
		"a\n": false, "a\tb": false, "\x1b": false, "\u009b": false, "\u2028": false, "\u202e": false, "\xff": false,
	} {
		if got := valid.Line(s, 5) == nil; got != want {
			t.Errorf("Line(%q) is %t", s, got)
		}
	}
}

// An address may have a password, which must not be in an error.
func TestAddressHidesPasswords(t *testing.T) {
	for _, s := range []string{"https://user:s3cr3t@host\n", "user:s3cr3t@host", "https://user:s3@cr3t@host\n"} {
		if err := valid.Address(s); err == nil || strings.Contains(err.Error(), "cr3t") || !strings.Contains(err.Error(), "host") {
			t.Errorf("Address(%q) = %v", s, err)
		}
	}
}
