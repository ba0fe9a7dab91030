package testbench

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// start starts a server and waits until it listens. It is ended by its process
// when the test ends, and what it wrote is shown if the test failed.
func start(t testing.TB, cmd *exec.Cmd, network, address string) {
	t.Helper()
	output := collect(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	endWith(t, cmd, output)
	await(t, network, address)
}

// collect has a program that is not started yet write to the buffer.
func collect(cmd *exec.Cmd) *bytes.Buffer {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	return &output
}

func endWith(t testing.TB, cmd *exec.Cmd, output *bytes.Buffer) {
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", cmd, output)
		}
	})
}

// await waits until a server listens.
func await(t testing.TB, network, address string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens at %s: %v", address, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
