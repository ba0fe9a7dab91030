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

// Programs returns the directory of Nix's programs on this process's PATH, without symlinks.
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

// TrustPrograms makes this process, which runs as root for another user, run Nix's programs
// from dir and clears its environment. dir is the result of [Programs] in the other user's
// process. It is an error if anybody but root could have changed the programs.
func TrustPrograms(dir string) error {
	if fileName(dir) != nil || strings.ContainsRune(dir, filepath.ListSeparator) {
		return fmt.Errorf("invalid directory for PATH %s", valid.Quote(dir))
	}
	for _, program := range []string{"nix", "nix-store", "nix-daemon"} {
		file, err := filepath.EvalSymlinks(filepath.Join(dir, program))
		if err != nil {
			return fmt.Errorf("cannot find Nix's programs: %w", err)
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

// belongsToRoot returns an error unless only root can replace a file and the directories above
// it. In a sticky directory such as /nix/store others may write, but not change root's files.
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
			return fmt.Errorf("cannot run %s as root: others may change %s", path, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}
