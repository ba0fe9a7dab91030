package evaluate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Advice is added only where it helps. The scripts for whole commands check it against the
// messages of each version of Nix.
func TestAdvice(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{".git/HEAD", "sub/flake.nix", "new file.nix", "theme/x.nix"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, ".gitmodules"), []byte("[submodule \"theme\"]\n\turl = x\n\tpath = theme\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const source = "path '/nix/store/0123456789abcdfghijklmnpqrsvwxyz-source/"
	for _, test := range []struct{ flake, message, want string }{
		{root, source + "new file.nix' does not exist", "git add 'new file.nix'"},
		{root + "/sub?x=y", source + "new file.nix' does not exist", "git add"},
		{"git+file://" + root + "?dir=sub", source + "theme/x.nix' does not exist", "theme is a submodule, which"},
		{root, source + "themes/x.nix' does not exist", ""},
		{root, source + "gone.nix' does not exist", ""},
		{root, source + "../../etc/passwd' does not exist", ""},
		{root, "Failed to fetch git repository 'file://" + root + "/theme'", "not checked out"},
		{root, "Failed to fetch git repository 'file://" + root + "/sub'", ""},
		{"path:" + root, source + "new file.nix' does not exist", ""},
		{"github:a/b", source + "new file.nix' does not exist", ""},
		{"github:a/b", source + "flake.nix' does not exist", "-f (input file)"},
		{"", source + "flake.nix' does not exist", ""},
	} {
		if got := advice(test.flake, test.message); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %s: %q, want %q", test.flake, test.message, got, test.want)
		}
	}
}
