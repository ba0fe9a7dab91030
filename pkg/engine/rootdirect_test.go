package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

const serveDirect = "serve-direct"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "sudo" {
		os.Exit(sudo(os.Args[1:]))
	}
	if len(os.Args) > 2 {
		actAs(os.Args[1], os.Args[2:])
	}
	testbench.PrivateProcess(m)
}

// actAs makes the test binary another program: the one that runs as root, one that is killed,
// or one that waits for the processes of a killed one.
func actAs(command string, args []string) {
	var err error
	switch command {
	case serveDirect:
		err = ServeDirect(context.Background(), os.Stdin, os.Stdout, args[0], args[1])
	case restoreCommand:
		err = restoreSaved(context.Background(), args[0], args[1])
	case reapCommand:
		os.Exit(reap(args))
	case orphanCommand:
		orphan(args[0], args[1])
	case holdLock:
		holdLocks(args[0])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sudo makes any user root, and passes on no environment.
func sudo(args []string) int {
	os.Unsetenv("GOTRACEBACK") // Go itself set it
	if len(args) < 3 || args[0] != "-n" || args[1] != "--" || !filepath.IsAbs(args[2]) || len(os.Environ()) > 0 {
		fmt.Fprintf(os.Stderr, "sudo: wrong usage: %q, %q\n", args, os.Environ())
		return 1
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0)); err != nil {
		fmt.Fprintln(os.Stderr, "sudo: a password is required")
		return 1
	}
	err := syscall.Exec(args[2], args[2:], []string{"HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	fmt.Fprintln(os.Stderr, "sudo:", err)
	return 1
}

// multiUser returns a store of root's, another user who may be root without a password, and the
// command with which that user restores.
func multiUser(t *testing.T, c *closure) (n *nix.Nix, user *testbench.MultiUser, restore func(mode os.FileMode) *exec.Cmd) {
	t.Helper()
	n = nixtest.Newest(t)
	bin := t.TempDir()
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	self := filepath.Join(bin, "self")
	must(t, os.WriteFile(self, program, 0o755))
	file := filepath.Join(bin, "closure")
	c.save(t, file)
	m := testbench.Daemon(t, testbench.DaemonOptions{Trusted: true, Reach: []string{bin}})
	return n, m, func(mode os.FileMode) *exec.Cmd {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(bin, "sudo"), program, 0o755))
		must(t, os.Chmod(filepath.Join(bin, "sudo"), mode))
		cmd := exec.CommandContext(t.Context(), self, restoreCommand, file, "direct")
		cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		cmd.Dir = "/"
		m.AsUser(cmd)
		return cmd
	}
}

// The engine that works as root has the contract of the others.
func TestDirectAsRootEngine(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, filepath.Join(bin, "sudo")))
	n := nixtest.Newest(t)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	testStores(t, n, func(t *testing.T, n *nix.Nix) Engine {
		e, err := DirectAsRoot(t.Context(), n, self, serveDirect)
		must(t, err)
		return e
	})
}

// A user who may not write to the store restores as root, and the files are root's.
func TestDirectAsRoot(t *testing.T) {
	c := kinds(t)
	n, user, restore := multiUser(t, c)
	out, err := restore(os.ModeSetuid | 0o755).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cannot use the direct engine: ") {
		t.Fatalf("%v\n%s", err, out)
	}
	user.AwaitIdle(t)
	c.check(t, n, Engine{})
	for _, path := range c.paths() {
		info, err := os.Lstat(path)
		must(t, err)
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
			t.Errorf("%s belongs to %d", path, uid)
		}
	}
	if names := nixtest.InStore(t); len(names) != len(c.Infos) {
		t.Errorf("the store has %q", names)
	}

	// If sudo fails, its message is the reason.
	if out, err := restore(0o755).CombinedOutput(); err == nil || !strings.Contains(string(out), "cannot use the direct engine as root: sudo: a password is required") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A user's own store needs no root, although only root may move read-only directories.
func TestDirectOfUser(t *testing.T) {
	c := kinds(t)
	_, user, restore := multiUser(t, c)
	root := filepath.Join(user.Home, "root")
	cmd := restore(0o755)
	cmd.Env = append(cmd.Env, "NIX_CONFIG=extra-experimental-features = nix-command\nstore = "+root)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "cannot use") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range c.paths() {
		checkMetadata(t, filepath.Join(root, path))
		info, err := os.Lstat(filepath.Join(root, path))
		must(t, err)
		if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != user.UID {
			t.Errorf("%s belongs to %d", path, uid)
		}
	}
	nixtest.Run(t, "nix-store", "--store", root, "--verify", "--check-contents")
	nixtest.Run(t, "nix-store", append([]string{"--store", root, "--check-validity"}, c.paths()...)...)
	if names := nixtest.InStore(t); len(names) != 0 {
		t.Errorf("the store has %q", names)
	}
}

// The process that runs as root ends with its client, and leaves nothing.
func TestDirectAsRootKilled(t *testing.T) {
	c := kinds(t)
	n, user, restore := multiUser(t, c)
	random := testbench.Random(t)
	for range 5 {
		lines, kill, wait := startReaped(t, restore(os.ModeSetuid|0o755))
		_, err := lines.ReadString('\n')
		must(t, err)
		time.Sleep(time.Duration(random.IntN(int(300 * time.Millisecond)))) // the moment that is tested
		kill()
		_ = wait()
		user.AwaitIdle(t)
		must(t, noTempDir(t))
		nixtest.Verify(t)
	}
	out, err := restore(os.ModeSetuid | 0o755).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	user.AwaitIdle(t)
	c.checkBut(t, n, func(info *nix.PathInfo) { info.Signatures = nil })
}

func noTempDir(t *testing.T) error {
	t.Helper()
	for _, name := range nixtest.InStore(t) {
		if strings.HasSuffix(name, tempSuffix) {
			return fmt.Errorf("%s is left", name)
		}
	}
	return nil
}

// Programs that others than root could have changed are not run as root.
func TestTrustPrograms(t *testing.T) {
	dir := t.TempDir()
	for _, program := range []string{"nix", "nix-store", "nix-daemon"} {
		must(t, os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"), 0o755))
	}
	var out bytes.Buffer
	if err := ServeDirect(t.Context(), strings.NewReader(""), &out, filepath.Join(dir, "none"), ""); err == nil {
		t.Error("a missing program was run")
	}
	for name, change := range map[string]func(){
		"of others":   func() { must(t, os.Chown(filepath.Join(dir, "nix-store"), 1001, 1001)) },
		"writable":    func() { must(t, os.Chmod(filepath.Join(dir, "nix-store"), 0o777)) },
		"a directory": func() { must(t, os.Chmod(dir, 0o777)) },
		"a link": func() {
			must(t, os.WriteFile(dir+"/other", nil, 0o777))
			must(t, os.Chmod(dir+"/other", 0o777))
			must(t, os.Remove(dir+"/nix"))
			must(t, os.Symlink("other", dir+"/nix"))
		},
	} {
		change()
		out.Reset()
		err := ServeDirect(t.Context(), strings.NewReader(""), &out, dir, "")
		if err == nil || !strings.Contains(err.Error(), "others may change") || !strings.Contains(out.String(), err.Error()) {
			t.Errorf("%s: %v, %q", name, err, out.String())
		}
		must(t, os.Chown(filepath.Join(dir, "nix-store"), 0, 0))
		must(t, os.Chmod(filepath.Join(dir, "nix-store"), 0o755))
		must(t, os.Chmod(dir, 0o755))
	}
}

// talk sends messages to a server of the direct engine's sink and returns its answers.
func talk(t *testing.T, e Engine, messages ...[]byte) (answers string, err error) {
	t.Helper()
	in := io.Reader(bytes.NewReader(bytes.Join(messages, nil)))
	out := &untilFinished{finished: make(chan struct{})}
	if len(messages) > 0 && messages[len(messages)-1][0] == msgFinish {
		in = io.MultiReader(in, out.wait()) // the client waits for the answer
	}
	err = serve(t.Context(), e, bufio.NewReader(in), &messenger{w: out})
	r := bufio.NewReader(&out.Buffer)
	for {
		m, err := receive(r, func() []byte { return make([]byte, chunkSize) })
		if err != nil {
			break
		}
		if m.kind != msgTaken {
			answers += fmt.Sprintf("%c%d:%s ", m.kind, m.number, m.data)
		}
	}
	return answers, err
}

// untilFinished keeps answers. The reader that wait returns ends with the last one.
type untilFinished struct {
	bytes.Buffer
	finished chan struct{}
}

func (u *untilFinished) Write(p []byte) (int, error) {
	if p[0] == msgFinish {
		defer close(u.finished)
	}
	return u.Buffer.Write(p)
}

func (u *untilFinished) wait() io.Reader {
	return readerFunc(func([]byte) (int, error) { <-u.finished; return 0, io.EOF })
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func said(kind byte, number uint32, data []byte) []byte {
	var b bytes.Buffer
	if err := (&messenger{w: &b}).send(append(head(nil, kind, number), data...)); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// With any messages from the pipe, only complete paths become valid, and nothing is left.
func TestServeHostile(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	e := mustDirect(t, n)
	infos, err := json.Marshal(c.Infos)
	must(t, err)
	begin := said(msgBegin, 0, infos)
	evil, err := json.Marshal([]nix.PathInfo{{Path: "/nix/store/../../etc/passwd", NarHash: strings.Repeat("0", 64)}})
	must(t, err)
	nar := c.NARs[c.Infos[0].Path]
	var first []byte
	for piece := range slices.Chunk(nar, chunkSize) {
		first = append(first, said(msgData, 0, piece)...)
	}
	first = append(first, said(msgEnd, 0, nil)...)
	for name, test := range map[string]struct {
		messages [][]byte
		fails    bool
		answers  string // their beginning
	}{
		"nothing":            {nil, false, ""},
		"just a beginning":   {[][]byte{begin}, false, "b0: "},
		"a path":             {[][]byte{begin, first, said(msgFinish, 0, []byte("[0]"))}, false, "b0: e0: f0: "},
		"no beginning":       {[][]byte{first}, true, ""},
		"no JSON":            {[][]byte{said(msgBegin, 0, []byte("{"))}, true, ""},
		"two beginnings":     {[][]byte{begin, begin}, true, "b0: "},
		"a hostile path":     {[][]byte{said(msgBegin, 0, evil)}, true, "b0:cannot restore"},
		"no such number":     {[][]byte{begin, said(msgData, uint32(len(c.Infos)), nil)}, true, "b0: "},
		"a NAR cut":          {[][]byte{begin, said(msgData, 0, nar[:10]), said(msgEnd, 0, nil)}, false, "b0: e0:"},
		"a NAR broken":       {[][]byte{begin, said(msgData, 0, nar[:10]), said(msgBroken, 0, nil)}, false, "b0: e0:"},
		"a NAR without end":  {[][]byte{begin, said(msgData, 0, nar[:10])}, false, "b0: e0:"},
		"no NAR":             {[][]byte{begin, said(msgData, 0, bytes.Repeat([]byte("x"), chunkSize)), said(msgData, 0, bytes.Repeat([]byte("x"), chunkSize)), said(msgEnd, 0, nil)}, false, "b0: e0:"},
		"finish what is not": {[][]byte{begin, said(msgFinish, 0, []byte("[3]"))}, false, "b0: f0:rename"},
		"finish nothing":     {[][]byte{begin, said(msgFinish, 0, []byte("[-1]"))}, true, "b0: "},
		"finish too early":   {[][]byte{begin, said(msgData, 0, nar[:10]), said(msgFinish, 0, []byte("[0]"))}, true, "b0: "},
		"unknown":            {[][]byte{begin, said('?', 0, nil)}, true, "b0: "},
		"a cut message":      {[][]byte{begin[:len(begin)-1]}, true, ""},
		"a huge message":     {[][]byte{begin, append(head(nil, msgData, 0)[:headSize-4], 0xff, 0xff, 0xff, 0xff)}, true, "b0: "},
	} {
		nixtest.UseMemory(t, "")
		answers, err := talk(t, e, test.messages...)
		if (err != nil) != test.fails || !strings.HasPrefix(answers, test.answers) {
			t.Errorf("%s: %v, %q", name, err, answers)
		}
		valid, err := n.Valid(t.Context(), c.paths()...)
		must(t, err)
		if names := nixtest.InStore(t); len(names) != len(valid) || (len(valid) > 0) != (name == "a path") {
			t.Errorf("%s: %d paths are valid, the store has %q", name, len(valid), names)
		}
	}
}

// stuck is a sink that takes nothing of a NAR.
type stuck struct{ Sink }

func (stuck) Add(ctx context.Context, _ nix.PathInfo, _ io.Reader) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (stuck) Close() error { return nil }

// A client that sends more of a NAR than it may is refused: the process never waits for a path before it reads on.
func TestServeWindow(t *testing.T) {
	e := Engine{Begin: func(context.Context, []nix.PathInfo) (Sink, error) { return stuck{}, nil }}
	messages := [][]byte{said(msgBegin, 0, []byte(`[{}]`))}
	for range window {
		messages = append(messages, said(msgData, 0, []byte("part")))
	}
	if _, err := talk(t, e, messages...); err != nil {
		t.Errorf("as much as it may: %v", err)
	}
	if _, err := talk(t, e, append(messages, said(msgData, 0, nil))...); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("more: %v", err)
	}
}
