package storepath

import "testing"

// The hash and the path are those that nix flake archive prints for an input.
func TestSource(t *testing.T) {
	nar, ok := ParseNarHash("sha256-JXJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw=")
	if path := Source(nar); !ok || path != "/nix/store/x0hrbv5ypmvrz3432rcg8gc9q62ipkl9-source" || !Valid(path) {
		t.Errorf("%s, %t", path, ok)
	}
	for _, bad := range []string{"", "sha256-", "sha256-AAAA", "sha1-JXJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw=", "JXJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw="} {
		if _, ok := ParseNarHash(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}
