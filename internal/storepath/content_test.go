package storepath

import (
	"strings"
	"testing"
)

// The paths are those of Nix 2.34 for builtins.toFile, builtins.path and derivations with a
// fixed output.
var addresses = []struct {
	name, ca, path string
	references     []string
}{
	{"text", "text:sha256:13zgh23v8l49li5xhvrkpm5r1yx769sqxqli1mryz4r26jv4775z", "/nix/store/g1619xlxck50424lrvii0nzi92mz27ww-text.sh",
		[]string{"/nix/store/if9zpja0xay0q5h6490404qnq6if2cs4-low"}},
	{"source", "fixed:r:sha256:0fzd3xy0rg1gdxfi7wg675q1vs7hh332lz0x4ml9l3arvl37yx9d", "/nix/store/rhb9m3nc5lfs3b87chr7r28lyyrrh7wf-tree", nil},
	{"flat", "fixed:sha256:1xk2hhjr0f2n4adj1h688wlz59xpl86y1r8bd2pjasg8gy16mikb", "/nix/store/ca1y6c916z1ck1dxi4rcrsfs9rzp728w-flat", nil},
	{"flat SHA-512", "fixed:sha512:3rvcx0ivajks0jxxbw41351y2yhjm1zn16g86h4zqz2wri8x894ikiallfqb1c6nkkycb0xgfhrgkw6d1csgn78kwfkj2cy3dai4b4k",
		"/nix/store/y4pvd6pl96nnb9cvw079d257q4wx9c52-flat512", nil},
	{"NAR SHA-512", "fixed:r:sha512:2qd7nq5xzr6jah0kkhxbsf84w7mv9hy6xp7s7430zrasbglwnyca1b908d8cpwfavxr69g85xn11qqq6ac55hyly2ck39hbwq2dvv2c",
		"/nix/store/z46g1zmppfp89dr01wmlrj9x041rl4z0-rec512", nil},
}

func TestContentAddress(t *testing.T) {
	for _, test := range addresses {
		t.Run(test.name, func(t *testing.T) {
			c, ok := ParseContentAddress(test.ca)
			if !ok || c.String() != test.ca || !c.IsOf(test.path, test.references) {
				t.Fatalf("%s is not that of %s %q", test.ca, test.path, test.references)
			}
			other := "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-other"
			for name, path := range map[string]string{"other": other, "name": test.path + "x", "hash": dir + "0" + test.path[len(dir)+1:], "short": dir, "none": ""} {
				if c.IsOf(path, test.references) {
					t.Errorf("it is that of another %s, too: %s", name, path)
				}
			}
			for _, references := range [][]string{append([]string{other}, test.references...), append([]string{test.path}, test.references...)} {
				if c.IsOf(test.path, references) {
					t.Errorf("it is that of the path with the references %q, too", references)
				}
			}
			if len(test.references) > 0 && c.IsOf(test.path, nil) {
				t.Error("it is that of the path without references, too")
			}
			c.Hash[3] ^= 1
			if c.IsOf(test.path, test.references) {
				t.Error("another hash is that of the path, too")
			}
		})
	}
}

func TestParseContentAddress(t *testing.T) {
	const hash = "1c166dmjkpimr7fdfvinz11015vpig9ajbf83sdqk4007nb91m5v"
	for _, bad := range []string{
		"", "text", "text:", "text:sha256", "text:sha256:", "text:sha256:" + hash[1:], "text:sha256:0" + hash, "text:sha256:" + strings.ToUpper(hash),
		"text:sha512:" + hash, "text:r:sha256:" + hash, "fixed:" + hash, "fixed:git:sha256:" + hash, "fixed:r:git:sha256:" + hash, "fixed:r:sha512:" + hash,
		"fixed:sha1:" + hash[:32], "fixed:r:sha1:" + hash[:32], "fixed:md5:" + hash[:26], "fixed:blake3:" + hash, "fixed:r:sha256:" + hash + ":x", "fixed:r:sha256:z" + hash[1:],
	} {
		if c, ok := ParseContentAddress(bad); ok {
			t.Errorf("%q is taken for %s", bad, c)
		}
	}
}
