package nix

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/testbench"
)

// eachNix runs a test with each version of Nix in parallel, each on an empty store in memory and
// in a mount namespace with its own programs, home and temporary directory, whose places
// TestMain has put into the environment.
func eachNix(t *testing.T, test func(*testing.T, *Nix)) {
	t.Helper()
	eachOf(t, testbench.NixVersions, test)
}

// eachImplementation runs a test also with the stand-ins for other implementations.
func eachImplementation(t *testing.T, test func(*testing.T, *Nix)) {
	t.Helper()
	eachOf(t, slices.Concat(testbench.NixVersions, testbench.NixForks), test)
}

// eachDaemon runs a test with each kind of daemon.
func eachDaemon(t *testing.T, test func(*testing.T, *Nix)) {
	t.Helper()
	eachOf(t, slices.Concat(testbench.NixVersions, []string{"lix"}), test)
}

func eachOf(t *testing.T, versions []string, test func(*testing.T, *Nix)) {
	t.Helper()
	for _, version := range versions {
		path := testbench.NixPath(t, version)
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testbench.PrivateNix(t)
			mount(t, "tmpfs", places["TMPDIR"])
			mount(t, t.TempDir(), places["HOME"])
			mount(t, path, places["PATH"])
			testbench.UseStore(t, t.TempDir())
			test(t, find(t, version))
		})
	}
}

func mount(t *testing.T, what, at string) {
	t.Helper()
	var flags uintptr = unix.MS_BIND
	if what == "tmpfs" {
		flags = 0
	}
	if err := unix.Mount(what, at, what, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
}

var found sync.Map // Nix by version, because Find takes a while

func find(t *testing.T, version string) *Nix {
	t.Helper()
	if n, ok := found.Load(version); ok {
		return n.(*Nix)
	}
	n, err := Find(t.Context(), io.Discard, Config{})
	if err != nil {
		t.Fatal(err)
	}
	found.Store(version, n)
	return n
}

// places are directories by the environment variable that names them.
var places = map[string]string{"PATH": "bin", "HOME": "home", "TMPDIR": "tmp"}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nix-matrix-test-")
	check(err)
	check(os.Setenv("NIX_MATRIX_TESTBENCH", testbench.Prefix())) // it depends on HOME
	for variable, name := range places {
		places[variable] = filepath.Join(dir, name)
		check(os.Mkdir(places[variable], 0o755))
	}
	check(os.Setenv("PATH", places["PATH"]+string(os.PathListSeparator)+os.Getenv("PATH")))
	check(os.Setenv("HOME", places["HOME"]))
	check(os.Setenv("XDG_CACHE_HOME", places["HOME"]))
	check(os.Setenv("TMPDIR", places["TMPDIR"]))
	check(os.Setenv("NIX_CONFIG", "download-attempts = 1\nextra-platforms = aarch64-linux i686-linux"))
	code := m.Run()
	check(os.RemoveAll(dir))
	os.Exit(code)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// raw returns unchecked arguments.
func raw(words ...string) *arguments { return &arguments{words: words} }

// program puts a shell script at the front of PATH.
func program(t *testing.T, name, text string) {
	t.Helper()
	dir := t.TempDir()
	script(t, dir, name, text)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func script(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		if version := filepath.Base(t.Name()); n.System != "x86_64-linux" || !strings.HasPrefix(n.Number, version+".") {
			t.Errorf("Nix %s for %s", n.Version, n.System)
		}
		got := n.Setting("extra-platforms")
		slices.Sort(got)
		if diff := cmp.Diff([]string{"aarch64-linux", "i686-linux"}, got); diff != "" {
			t.Error(diff)
		}
		if got := n.Setting("no-such-setting"); got != nil {
			t.Errorf("a setting that there is not is %q", got)
		}
		if got := n.Setting("cores"); got != nil {
			t.Errorf("a setting that is no list is %q", got)
		}
	})
}

func TestFindNone(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(t.Context(), nil, Config{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "install") {
		t.Errorf("without Nix: %v", err)
	}
	program(t, "nix-store", "")
	for script, want := range map[string]string{
		"echo 'error: no such luck' >&2; exit 1": "no such luck",
		"echo something else":                    "something else",
		"echo nix '(Nix)' 2.7.0":                 "2.7.0 is too old",
	} {
		program(t, "nix", script)
		if _, err := Find(t.Context(), nil, Config{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %q", script, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("NIX_CONFIG", "cores = 1")
	t.Setenv("NIX_REMOTE", "daemon")
	t.Setenv("AWS_REGION", "eu")
	for _, secret := range []string{"ACTIONS_RUNTIME_TOKEN", "INPUT_JOB", "ATTIC_TOKEN", "CACHIX_AUTH_TOKEN", "NIX_MATRIX_ENV"} {
		t.Setenv(secret, "s3cr3t")
	}
	n := &Nix{env: Environ(), conf: "netrc-file = /a", secrets: []string{"AWS_SECRET_ACCESS_KEY=s3cr3t"}}
	last := func(cmd *child.Cmd, name string) string { // the last of two variables of a name counts
		value := ""
		for _, variable := range cmd.Env {
			if strings.HasPrefix(variable, name+"=") {
				value = variable
			}
		}
		return value
	}
	plain, withCredentials := n.WithOptions(Set("a", "b c")).command(t.Context(), "nix", raw("eval")), n.WithStore("ssh-ng://host").commandWithCredentials(t.Context(), "nix", raw("copy"))
	for _, test := range []struct{ got, want string }{
		{last(plain, "NIX_CONFIG"), "NIX_CONFIG=cores = 1\nnetrc-file = /a\nextra-experimental-features = nix-command flakes"},
		{last(plain, "NIX_REMOTE"), "NIX_REMOTE=daemon"},
		{last(plain, "AWS_REGION"), "AWS_REGION=eu"},
		{strings.Join(plain.Args, " "), "nix --option a b c eval"},
		{last(plain, "AWS_SECRET_ACCESS_KEY"), ""},
		{last(withCredentials, "AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY=s3cr3t"},
		{last(withCredentials, "NIX_REMOTE"), "NIX_REMOTE=ssh-ng://host"},
		{last(n.command(t.Context(), "nix", raw()), "NIX_REMOTE"), "NIX_REMOTE=daemon"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	if strings.Contains(strings.Join(plain.Env, "\n"), "s3cr3t") {
		t.Errorf("a secret is in %q", plain.Env)
	}
}

const missingDrv = "/nix/store/00000000000000000000000000000000-missing.drv"

func TestMessage(t *testing.T) {
	for _, test := range []struct{ what, said, want string }{
		{"nothing", "", ""},
		{"no error", "warning: a\nb\n", "warning: a\nb"},
		{"one line", "warning: a\n\x1b[31;1merror:\x1b[0m b\n", "b"},
		{"the innermost", "error: a\n\n       … while b\n\n       error: c\n       d\n", "c\nd"},
		{"no advice", "error: a\n(use '--show-trace' to show detailed location information)\n", "a"},
		{"its own indentation", "error:\n       … while calling 'x'\n         at /f.nix:1:2:\n            1| x\n              |  ^\n", "… while calling 'x'\n  at /f.nix:1:2:\n     1| x\n       |  ^"},
		{
			"what something else needs, of 2.34", "building 'x'...\n" +
				"error: Cannot build '" + missingDrv + "'.\n       Reason: builder failed with exit code 7.\n       Last 1 log lines:\n       > no good\n" +
				"building 'y'...\nerror:\n       … while calling the 'import' builtin\n         at " + missingDrv + "\n\n" +
				"       error: Cannot build '/nix/store/y.drv'.\n       Reason: 1 dependency failed.\n",
			"Cannot build '" + missingDrv + "'.\nReason: builder failed with exit code 7.\nLast 1 log lines:\n> no good\nCannot build '/nix/store/y.drv'.\nReason: 1 dependency failed.",
		},
		{
			"what something else needs, of 2.8", "error: builder for '" + missingDrv + "' failed with exit code 7;\n       last 1 log lines:\n       > error: no good\n" +
				"error: 1 dependencies of derivation '/nix/store/y.drv' failed to build\n(use '--show-trace' to show detailed location information)\n",
			"builder for '" + missingDrv + "' failed with exit code 7;\nlast 1 log lines:\n> error: no good\n1 dependencies of derivation '/nix/store/y.drv' failed to build",
		},
		{"a word of a line", "builder: 2 errors\nno error: none\n", "builder: 2 errors\nno error: none"},
	} {
		if got := Message(test.said); got != test.want {
			t.Errorf("%s: got %q, want %q", test.what, got, test.want)
		}
	}
}

func TestError(t *testing.T) {
	n := &Nix{}
	program(t, "speaks", "echo 'error: boom' >&2; exit 3")
	program(t, "silent", "exit 3")
	for name, want := range map[string]string{"speaks": "speaks: boom", "silent": "silent: exit status 3"} {
		_, err := n.output(t.Context(), literal(name), raw())
		var failed *Error
		if !errors.As(err, &failed) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The stderr of a program goes to the log, and its end into the error.
func TestLog(t *testing.T) {
	var log strings.Builder
	n := &Nix{log: &log}
	program(t, "speaks", "echo warning >&2; echo 'error: boom' >&2; exit 3")
	err := n.run(n.command(t.Context(), "speaks", raw()))
	if err == nil || err.Error() != "speaks: boom" || log.String() != "warning\nerror: boom\n" {
		t.Errorf("got %v and the log %q", err, &log)
	}
}

func TestTail(t *testing.T) {
	k := &tail{limit: 4}
	want := ""
	for _, piece := range []string{"", "ab", "c", "defghijklmnop", "q", "rs", "tuv", "wxyz0"} {
		if n, err := k.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
		want += piece
		if got := k.String(); got != want[max(0, len(want)-4):] {
			t.Errorf("after %q it is %q", want, got)
		}
		if len(k.data) > 8 {
			t.Errorf("it keeps %d bytes", len(k.data))
		}
	}
}

func TestChunks(t *testing.T) {
	for count, want := range map[int][]int{0: nil, 1: {1}, 2000: {2000}, 2001: {2000, 1}, 4500: {2000, 2000, 500}} {
		paths := make([]string, count)
		for i := range paths {
			paths[i] = string(rune(i))
		}
		var sizes []int
		var all []string
		for _, piece := range chunks(paths) {
			sizes = append(sizes, len(piece))
			all = append(all, piece...)
		}
		if !cmp.Equal(sizes, want) || !slices.Equal(all, paths) {
			t.Errorf("%d paths make pieces of %v, want %v", count, sizes, want)
		}
	}
}

func TestOpenEnd(t *testing.T) {
	const text = "0123456789abcdefgh"
	for size := 1; size <= len(text); size++ {
		var dst strings.Builder
		o := &openEnd{w: &dst}
		for piece := range slices.Chunk([]byte(text), size) {
			if n, err := o.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if dst.String() != "0123456789" || string(o.end[:o.have]) != "abcdefgh" {
			t.Errorf("in pieces of %d: %q and %q", size, &dst, o.end[:o.have])
		}
	}
	o := &openEnd{w: io.Discard}
	if _, err := o.Write([]byte("short")); err != nil || o.have != 5 {
		t.Errorf("%d bytes kept, %v", o.have, err)
	}
}

func TestRedact(t *testing.T) {
	for address, want := range map[string]string{
		"":                             "",
		"https://host/path?a=b":        "https://host/path?a=b",
		"https://user@host":            "https://user@host",
		"https://user:s3cr3t@host/p":   "https://user:xxxxx@host/p",
		"https://user:s3/cr3t@host/p":  "https://user:xxxxx@host/p",
		"https://user:12/s3cr3t@host":  "https://user:xxxxx@host",
		"https://user:s3@cr3t@host/p":  "https://user:xxxxx@host/p",
		"https://user:%zzs3cr3t@host":  "https://user:xxxxx@host",
		"https://:s3cr3t@host":         "https://:xxxxx@host",
		"https://user:s3cr3t@ho st":    "https://user:xxxxx@ho st",
		"user:s3cr3t@host":             "user:xxxxx@host",
		"ssh-ng://git@host":            "ssh-ng://git@host",
		"file:///srv/a@b:c":            "file:///srv/a@b:c",
		"file:///srv/a:b@c":            "file:///srv/a:b@c",
		"s3://bucket?endpoint=a.b:900": "s3://bucket?endpoint=a.b:900",
	} {
		if got := Redact(address); got != want {
			t.Errorf("Redact(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestRedactErr(t *testing.T) {
	const address = "https://user:p%40ss@host/p?compression=zstd"
	err := error(&Error{Program: "nix", Message: "can't reach " + address + ", https://user:p%40ss@host/p/nix-cache-info, with p@ss", Err: os.ErrInvalid})
	got := redactErr(err, "file:///x", address, "https://user@host", "https://user:@host")
	want := "nix: can't reach https://user:xxxxx@host/p?compression=zstd, https://user:xxxxx@host/p/nix-cache-info, with xxxxx"
	if got.Error() != want || !errors.Is(got, os.ErrInvalid) {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	if redactErr(nil, address) != nil {
		t.Error("no error becomes one")
	}
	if got := redactErr(io.EOF, address); got != io.EOF {
		t.Errorf("another error becomes %v", got)
	}
}

// Neither an evaluator nor a builder sees secrets.
func TestSecretsStayHere(t *testing.T) {
	hidden := []string{
		"ACTIONS_RUNTIME_TOKEN", "ATTIC_TOKEN", "CACHIX_AUTH_TOKEN", "CACHIX_SIGNING_KEY", "NIX_MATRIX_SIGNING_KEY", "INPUT_JOB",
	}
	for _, name := range append(hidden, "AWS_ACCESS_KEY_ID") {
		t.Setenv(name, "s3cr3t")
	}
	env := strings.Join(Environ(), "\n")
	for _, name := range hidden {
		if strings.Contains(env, name+"=") {
			t.Errorf("%s is handed on", name)
		}
	}
	if !strings.Contains(env, "\nAWS_ACCESS_KEY_ID=s3cr3t") {
		t.Error("nix copy does not get the credentials for s3")
	}
}

// A program that may take no time at all to stop is stopped, too.
func TestShortestGrace(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := (&Nix{grace: 1}).program(ctx, "sleep", raw("60"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("it was not stopped")
	}
}

// A process that is left behind with the streams does no harm; the error names a signal.
func TestEnds(t *testing.T) {
	n := &Nix{}
	cmd := n.command(t.Context(), "sh", raw("-c", "sleep 60 & echo $! >&2; exit 0"))
	cmd.WaitDelay = time.Millisecond
	var said strings.Builder
	cmd.Stderr = &said
	if err := n.run(cmd); err != nil {
		t.Errorf("a process was left behind: %v", err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(said.String())); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	err := n.run(n.command(t.Context(), "sh", raw("-c", "echo trace >&2; kill -KILL $$")))
	if err == nil || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), "memory") {
		t.Errorf("killed: %v", err)
	}
}
