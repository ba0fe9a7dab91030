package testbench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Nginx serves dir on a free port of this machine, as an http binary cache that
// takes PUT, and gives its address. It wants user:password when auth is not
// empty, an htpasswd line. It ends with the test.
func Nginx(t testing.TB, dir, auth string) string {
	t.Helper()
	program := Path(t, "bin/nginx")
	etc := t.TempDir()
	port := freePort(t)
	restrict := ""
	if auth != "" {
		write(t, filepath.Join(etc, "htpasswd"), auth+"\n")
		restrict = `auth_basic cache; auth_basic_user_file "` + filepath.Join(etc, "htpasswd") + `";`
	}
	config := filepath.Join(etc, "nginx.conf")
	write(t, config, fmt.Sprintf(`
user root;
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr warn;
events { }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen 127.0.0.1:%[2]d;
		root %[3]s;
		client_max_body_size 0;
		location / { dav_methods PUT; create_full_put_path on; %[4]s }
	}
}
`, etc, port, dir, restrict))
	start(t, exec.CommandContext(context.WithoutCancel(t.Context()), program, "-c", config, "-p", etc, "-e", "stderr"), port)
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// start starts a server and waits until it listens. It is ended by its process
// when the test ends.
func start(t testing.TB, cmd *exec.Cmd, port int) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", cmd.Path, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

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
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
