package testbench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// DaemonOptions say how Nix is installed for several users.
type DaemonOptions struct {
	Nix     string   // the daemon's version, the newest of NixVersions if empty
	Trusted bool     // the user is among trusted-users
	Config  string   // further lines of nix.conf
	Reach   []string // what the user has to get to beside Nix: see MultiUser
}

// MultiUser is Nix as most machines have it: a store that belongs to root, a
// daemon that changes it, which builds as users of the group nixbld, and
// somebody who has to ask the daemon.
//
// The user gets to a directory that is closed, as those of a test are and
// root's home is, only if Reach names it or something in it. The user may not
// write there.
type MultiUser struct {
	User    string // runner
	UID     int    // of the user's only group, too
	Home    string // the user's own directory
	ConfDir string // has the nix.conf of the daemon and the user
	PID     int    // of the daemon; with it, all that it does ends
	// As is a program that runs another as the user: As PROGRAM ARGUMENT….
	// It sets HOME, USER, LOGNAME, TMPDIR and NIX_CONF_DIR, and NIX_REMOTE to
	// daemon unless it is set.
	As string
}

// Daemon starts a nix-daemon for the store that is now /nix, after UseStore. In
// this mount namespace, /etc/passwd and /etc/group are then of Nix and the user
// alone. It takes root, and ends with the test.
func Daemon(t testing.TB, o DaemonOptions) *MultiUser {
	t.Helper()
	needsOtherUsers(t)
	const user = "runner"
	nix := NixPath(t, nixVersion(o.Nix))
	etc, home := t.TempDir(), t.TempDir()
	m := &MultiUser{User: user, UID: userID, Home: home, ConfDir: etc, As: filepath.Join(etc, "as-"+user)}
	writeNixConf(t, etc, nix, user, o.Trusted, o.Config)
	writeProgram(t, m.As, fmt.Sprintf(`#!/bin/sh
export HOME=%[1]s USER=%[2]s LOGNAME=%[2]s TMPDIR=%[1]s/tmp NIX_CONF_DIR=%[3]s NIX_REMOTE="${NIX_REMOTE-daemon}"
exec %[4]s --reuid %[5]d --regid %[5]d --clear-groups -- "$@"
`, home, user, etc, Program(t, "setpriv"), userID))
	makeHome(t, home)

	leave, err := useAccounts(etc, user, home)
	t.Cleanup(leave)
	if err != nil {
		t.Fatalf("tests with several users need root and PrivateNix: %v", err)
	}
	for _, path := range append([]string{Prefix(), etc, home}, o.Reach...) {
		if err := reach(path); err != nil {
			t.Fatal(err)
		}
	}
	// The store is there before somebody looks at it without the daemon.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), Program(t, "sh"), "-c",
		`"$0/nix-store" --init && exec "$0/nix-daemon"`, nix)
	cmd.Env = daemonEnv(etc)
	cmd.SysProcAttr = alone()
	output := collect(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, endWith(t, cmd, output), "unix", daemonSocket(cmd.Process.Pid))
	m.PID = cmd.Process.Pid
	return m
}

// AsUser has a program that is not started yet run as the user.
func (m *MultiUser) AsUser(cmd *exec.Cmd) {
	cmd.Args = append([]string{m.As, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = m.As
}

// AwaitIdle returns when the daemon serves nobody any more: each client that was connected before has
// been served or is gone, and the process that served that connection has ended. The daemon
// itself does not have the store open.
func (m *MultiUser) AwaitIdle(t testing.TB) {
	t.Helper()
	// Connections are accepted in their order, each by a process of its own. So with an
	// answer on the last one, the processes of all others have been started.
	conn, err := net.Dial("unix", daemonSocket(m.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := binary.Write(conn, binary.LittleEndian, uint64(0x6e697863)); err != nil { // of nix/daemon.go
		t.Fatal(err)
	}
	if err := binary.Read(conn, binary.LittleEndian, new(uint64)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", m.PID))
		if err != nil {
			t.Fatal(err)
		}
		if len(children) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// alone starts a program with process ids of its own. They all end with it, however
// they left its group or session; and Nix, which kills all that run as a user
// that it built as, kills none of another test.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
}

// daemonSocket is how everybody gets to the socket of a nix-daemon that runs in
// the mount namespace of a process.
func daemonSocket(pid int) string {
	return fmt.Sprintf("/proc/%d/root/nix/var/nix/daemon-socket/socket", pid)
}

// daemonEnv is the environment without what Nix would read there.
func daemonEnv(conf string) []string {
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "NIX_") {
			env = append(env, variable)
		}
	}
	return append(env, "NIX_CONF_DIR="+conf)
}

func nixVersion(version string) string {
	if version == "" {
		return NixVersions[0]
	}
	return version
}

// writeNixConf makes dir a NIX_CONF_DIR for a daemon and its users.
func writeNixConf(t testing.TB, dir, nix, user string, trusted bool, more string) {
	t.Helper()
	trust := "root"
	if trusted {
		trust += " " + user
	}
	write(t, filepath.Join(dir, "nix.conf"), fmt.Sprintf("include %s\nbuild-users-group = nixbld\ntrusted-users = %s\n%s\n",
		filepath.Join(filepath.Dir(nix), "etc", "nix.conf"), trust, more))
}

// writeProgram writes a script that can be run at once: had another goroutine
// started a program meanwhile, that would have the file open for writing.
func writeProgram(t testing.TB, file, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// makeHome makes a directory the user's, with one in it for temporary files.
func makeHome(t testing.TB, dir string) {
	t.Helper()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, tmp} {
		if err := os.Chown(dir, userID, userID); err != nil {
			t.Fatalf("tests with several users need root: %v", err)
		}
	}
}
