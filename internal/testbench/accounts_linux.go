package testbench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The entries of /etc/passwd and /etc/group where a Daemon or an SSHD runs.
const (
	userID      = 1001 // as on GitHub's runners
	buildersID  = 30000
	buildersMax = 8
)

// useAccounts makes the accounts in this mount namespace root, nobody, sshd,
// those that Nix builds as, and user. Its files are in dir.
func useAccounts(dir, user, home string) (leave func(), err error) {
	passwd := "root:*:0:0::/root:/bin/sh\n" +
		"sshd:*:100:65534::/run/sshd:/bin/false\n" +
		"nobody:*:65534:65534::/nonexistent:/bin/false\n" +
		fmt.Sprintf("%s:*:%d:%d::%s:/bin/sh\n", user, userID, userID, home)
	var builders []string
	for i := 1; i <= buildersMax; i++ {
		name := fmt.Sprintf("nixbld%d", i)
		builders = append(builders, name)
		passwd += fmt.Sprintf("%s:*:%d:%d::/var/empty:/bin/false\n", name, buildersID+i, buildersID)
	}
	group := "root:*:0:\nnogroup:*:65534:\n" +
		fmt.Sprintf("%s:*:%d:\n", user, userID) +
		fmt.Sprintf("nixbld:*:%d:%s\n", buildersID, strings.Join(builders, ","))
	var over []string
	leave = func() {
		for _, file := range over {
			_ = unix.Unmount(file, unix.MNT_DETACH)
		}
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		file, etc := filepath.Join(dir, name), filepath.Join("/etc", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return leave, err
		}
		if err := unix.Mount(file, etc, "", unix.MS_BIND, ""); err != nil {
			return leave, fmt.Errorf("replace %s: %w", etc, err)
		}
		over = append(over, etc)
	}
	return leave, nil
}

// reach lets all users of this mount namespace get to path, as far as it is
// theirs to read. A directory of the tests' own becomes passable for
// everybody. One of the machine, like root's home, stays as it is: here, and
// only here, a passable one with the same entries replaces it, in which new
// entries are lost.
func reach(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		dir := path[:i]
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return err
		case !info.IsDir() || info.Mode()&0o001 != 0:
		case strings.HasPrefix(dir, filepath.Clean(os.TempDir())+"/"):
			if err := os.Chmod(dir, info.Mode().Perm()|0o055); err != nil {
				return err
			}
		default:
			if err := replaceDirectory(dir); err != nil {
				return fmt.Errorf("let others pass %s: %w", dir, err)
			}
		}
	}
	return nil
}

func replaceDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, entry := range entries {
		from, to := fmt.Sprintf("/proc/self/fd/%d/%s", fd, entry.Name()), filepath.Join(dir, entry.Name())
		var err error
		switch {
		case entry.Type()&os.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case entry.IsDir():
			if err = os.Mkdir(to, 0o755); err == nil {
				err = unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
			}
		default:
			if err = os.WriteFile(to, nil, 0o600); err == nil {
				err = unix.Mount(from, to, "", unix.MS_BIND, "")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// needsOtherUsers is for a test that runs programs as other users, which only root may.
func needsOtherUsers(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		NeedsRoot(t, errors.New("programs run as other users"))
	}
}
