package nix

import (
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	for name, in := range map[string]struct{ nix, step bool }{
		"GITHUB_TOKEN": {false, true}, "GH_TOKEN": {false, true}, "GH_ENTERPRISE_TOKEN": {false, true}, "GITHUB_ENTERPRISE_TOKEN": {false, true},
		"GITHUB_ENV": {false, true}, "GITHUB_PATH": {false, true}, "GITHUB_OUTPUT": {false, true}, "GITHUB_STATE": {false, true}, "GITHUB_STEP_SUMMARY": {false, true},
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": {false, true}, "ACTIONS_ID_TOKEN_REQUEST_URL": {false, true},
		"ACTIONS_RUNTIME_TOKEN": {false, false}, "ACTIONS_RESULTS_URL": {false, false}, "INPUT_SETUP": {false, false}, "ATTIC_TOKEN": {false, false},
		"CACHIX_AUTH_TOKEN": {false, false}, "NIKS3_AUTH_TOKEN": {false, false}, "CACHIX_SIGNING_KEY": {false, false}, "NIX_MATRIX_NETRC": {false, false}, "NIX_MATRIX_ENV": {false, false},
		"GITHUB_SHA": {true, true}, "GITHUB_WORKSPACE": {true, true}, "MY_GITHUB_TOKEN": {true, true}, "NIX_CONFIG": {true, true}, "AWS_ACCESS_KEY_ID": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "value")
			if got := slices.Contains(Environ(), name+"=value"); got != in.nix {
				t.Errorf("Nix gets it: %t", got)
			}
			if got := slices.Contains(StepEnviron(), name+"=value"); got != in.step {
				t.Errorf("a step gets it: %t", got)
			}
		})
	}
}

func TestLocalAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"/home/me": true, "/": true, "path:/home/me": true, "file:///etc/passwd": true, "file:/etc/passwd": true, "git+file:///srv/x": true, "hg+file:/srv/x": true,
		"tarball+file:///x.tar": true, "/nix/store/../../etc": true, "/nix/store": true, "file:///nix/store/../x": true,
		"": false, "./sub": false, "sub": false, "../sub": false, "/nix/store/00000000000000000000000000000000-source": false,
		"https://example.org/x.tar.gz": false, "git+ssh://git@example.org/x": false, "ssh://git@example.org/x": false, "github:NixOS/nixpkgs": false,
	} {
		if got := local(address); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}
