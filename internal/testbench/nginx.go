package testbench

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
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
	start(t, exec.CommandContext(context.WithoutCancel(t.Context()), program, "-c", config, "-p", etc, "-e", "stderr"), "tcp", local(port))
	return "http://" + local(port)
}
