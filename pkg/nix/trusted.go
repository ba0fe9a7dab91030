package nix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/org/nix-matrix/internal/valid"
)

// Programs gives the directory that this process has Nix's programs from, as it is
// without symlinks.
func Programs() (string, error) {
	program, err := exec.LookPath("nix-store")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return "", err
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return "", err
	}
	return filepath.Dir(program), nil
}

// TrustPrograms has this process run Nix's programs from dir, which [Programs] gave to
// another one, and forget its environment. It is for one that runs as root for
// somebody else: nobody but root may have been able to change them.
func TrustPrograms(dir string) error {
	if fileName(dir) != nil || strings.ContainsRune(dir, filepath.ListSeparator) {
		return fmt.Errorf("%s can't be a directory of PATH", valid.Quote(dir))
	}
	for _, program := range []string{"nix", "nix-store", "nix-daemon"} {
		file, err := filepath.EvalSymlinks(filepath.Join(dir, program))
		if err != nil {
			return fmt.Errorf("look for Nix's programs: %w", err)
		}
		for _, path := range []string{filepath.Join(dir, "."), file} {
			if err := belongsToRoot(path); err != nil {
				return err
			}
		}
	}
	os.Clearenv()
	return os.Setenv("PATH", dir)
}

// belongsToRoot says whether a file, and all directories that it lies in, can be
// replaced by root alone. In one like /nix/store others may write, but not change what
// is root's.
func belongsToRoot(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is not an absolute path", valid.Quote(path))
	}
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		writable := info.Mode()&0o022 != 0 && (at == path || info.Mode()&os.ModeSticky == 0)
		if !ok || owner.Uid != 0 || writable || info.Mode()&os.ModeSymlink != 0 {
			return fmt.Errorf("%s is not run as root: others than root may change %s", path, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}
