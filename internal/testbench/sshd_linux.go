package testbench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// SSHDOptions say what machine SSHD makes.
type SSHDOptions struct {
	Store   string // the directory that is its /nix, a new one if empty
	Nix     string // its version, the newest of NixVersions if empty
	Trusted bool   // its daemon trusts the user, and so takes any path
	Config  string // further lines of its nix.conf
}

// Machine is one to build on, reached over ssh. It has a store and a daemon of
// its own, and a user to log in as.
type Machine struct {
	User, Host string
	Port       int
	Key        string // the file with the user's private key, root's; chown gives it to another
	KnownHosts string // a line of ssh's known_hosts with the machine's key
	Store      string // the directory that is its /nix
	dir        string
}

// SSHD starts a machine. It is on this one, with its own mounts and process
// ids: its /nix is not that of the test, and its user's files are not hidden
// from root here. It takes root, and ends with the test.
func SSHD(t testing.TB, o SSHDOptions) *Machine {
	t.Helper()
	needsOtherUsers(t)
	const user = "builder"
	nix := NixPath(t, nixVersion(o.Nix))
	sshd, keygen, sh := Path(t, "bin/sshd"), Path(t, "bin/ssh-keygen"), Program(t, "sh")
	ctx := context.WithoutCancel(t.Context())
	etc, home, keys := t.TempDir(), t.TempDir(), t.TempDir()
	m := &Machine{User: user, Host: "127.0.0.1", Port: freePort(t), Key: filepath.Join(keys, "key"), Store: o.Store, dir: keys}
	if m.Store == "" {
		m.Store = t.TempDir()
	}
	if err := os.MkdirAll(m.Store, 0o755); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(etc, "host")
	for _, key := range []string{m.Key, host} {
		if output, err := exec.CommandContext(ctx, keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, output)
		}
	}
	hostKey, err := os.ReadFile(host + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	m.KnownHosts = fmt.Sprintf("[%s]:%d %s", m.Host, m.Port, strings.TrimSpace(string(hostKey)))
	write(t, m.KnownHostsFile(), m.KnownHosts+"\n")
	if err := os.Rename(m.Key+".pub", filepath.Join(etc, "authorized_keys")); err != nil {
		t.Fatal(err)
	}
	writeNixConf(t, etc, nix, user, o.Trusted, o.Config)
	makeHome(t, home)
	config := filepath.Join(etc, "sshd_config")
	write(t, config, fmt.Sprintf(`
ListenAddress %[2]s:%[3]d
HostKey %[1]s/host
AuthorizedKeysFile %[1]s/authorized_keys
AllowUsers %[4]s
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
SetEnv PATH=%[5]s:/usr/bin:/bin NIX_CONF_DIR=%[1]s
`, etc, m.Host, m.Port, user, nix))

	cmd := exec.CommandContext(ctx, sh, "-c", `"$0/nix-store" --init && { "$0/nix-daemon" & exec "$@"; }`,
		nix, sshd, "-D", "-e", "-f", config)
	cmd.Env = daemonEnv(etc)
	cmd.SysProcAttr = alone()
	output := collect(cmd)
	started, ended := make(chan error), make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := enterMachine(m.Store, etc, user, home, keys)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		<-ended // since the programs would end with the thread
	}()
	if err := <-started; err != nil {
		t.Fatalf("start a machine, which needs root: %v", err)
	}
	over := endWith(t, cmd, output)
	await(t, over, "unix", daemonSocket(cmd.Process.Pid))
	await(t, over, "tcp", local(m.Port))
	return m
}

// enterMachine sets up the mounts of a machine for the calling thread.
func enterMachine(store, etc, user, home, keys string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := os.MkdirAll("/nix", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(store, "/nix", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("make %s its /nix: %w", store, err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	if err := os.Mkdir("/run/sshd", 0o755); err != nil { // sshd confines itself to it
		return err
	}
	if _, err := useAccounts(etc, user, home); err != nil {
		return err
	}
	for _, path := range []string{Prefix(), etc, home, keys} {
		if err := reach(path); err != nil {
			return err
		}
	}
	return nil
}

// KnownHostsFile is a file with the line KnownHosts.
func (m *Machine) KnownHostsFile() string { return filepath.Join(m.dir, "known_hosts") }

// SSHOptions are the options of ssh by which it gets to the machine and nowhere
// else, whatever this machine's ssh is configured to do. They are for
// NIX_SSHOPTS, too: no word has a space.
func (m *Machine) SSHOptions() []string {
	return []string{
		"-F", "none", "-p", fmt.Sprint(m.Port), "-i", m.Key,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + m.KnownHostsFile(),
	}
}

// Address is the store as Nix names it, less the port, which SSHOptions have:
// ssh-ng://USER@HOST.
func (m *Machine) Address() string { return "ssh-ng://" + m.User + "@" + m.Host }
