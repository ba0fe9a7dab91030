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
	await(t, endWith(t, cmd, output), network, address)
}

// collect has a program that is not started yet write to the buffer.
func collect(cmd *exec.Cmd) *bytes.Buffer {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	return &output
}

// endWith ends a program when the test ends. The channel is closed when the program has ended.
func endWith(t testing.TB, cmd *exec.Cmd, output *bytes.Buffer) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s wrote:\n%s", cmd, output)
		}
	})
	return ended
}

// await waits until a server listens, which no server says in a way that all have, or has ended.
func await(t testing.TB, ended <-chan struct{}, network, address string) {
	t.Helper()
	const pause = 10 * time.Millisecond
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), network, address)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("nothing listens at %s: %v", address, err)
		case <-time.After(pause):
		}
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
