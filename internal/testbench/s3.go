package testbench

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// S3 serves an empty bucket by the S3 protocol and gives host:port, for the
// store s3://BUCKET?endpoint=HOST:PORT&scheme=http&region=us-east-1. It asks
// for no right credentials, but Nix wants to have some: AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY. Of the NixVersions only 2.34 speaks the protocol, the
// others are built without it. What is in the bucket is gone with the test.
func S3(t testing.TB, bucket string) (endpoint string) {
	t.Helper()
	program := Path(t, "bin/gofakes3")
	endpoint = local(freePort(t))
	start(t, exec.CommandContext(context.WithoutCancel(t.Context()), program,
		"-backend", "memory", "-initialbucket", bucket, "-host", endpoint, "-quiet"), "tcp", endpoint)
	return endpoint
}

// S3ReadOnly is another endpoint of a server, which refuses all requests that write, as a server does
// of credentials that may only read.
func S3ReadOnly(t testing.TB, endpoint string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: endpoint})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			proxy.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>")
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// The credentials of VersityGW and MinIO.
const (
	VersityUser   = "AKIATESTBENCH"
	VersitySecret = "secret-of-the-testbench"
)

// MinIO serves empty buckets like [VersityGW], by a third server. started is false if this testbench has none:
// it takes long to compile, so it is made ready only when it is named.
func MinIO(t testing.TB, buckets ...string) (endpoint string, started bool) {
	t.Helper()
	program := filepath.Join(Prefix(), "bin", "minio")
	if _, err := os.Stat(program); err != nil {
		return "", false
	}
	dir := t.TempDir()
	for _, bucket := range buckets {
		if err := os.Mkdir(filepath.Join(dir, bucket), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	endpoint = local(freePort(t))
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "server", "--quiet", "--address", endpoint, dir)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+VersityUser, "MINIO_ROOT_PASSWORD="+VersitySecret)
	start(t, cmd, "tcp", endpoint)
	return endpoint, true
}

// VersityGW serves empty buckets like [S3], out of files, by another server, which checks
// credentials and signatures and creates objects conditionally also from several parts.
func VersityGW(t testing.TB, buckets ...string) (endpoint string) {
	t.Helper()
	program := Path(t, "bin/versitygw")
	dir := t.TempDir()
	for _, bucket := range buckets {
		if err := os.MkdirAll(filepath.Join(dir, "files", bucket), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "metadata"), 0o755); err != nil {
		t.Fatal(err)
	}
	endpoint = local(freePort(t))
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--quiet", "--port", endpoint, "--keep-alive",
		"posix", "--sidecar", filepath.Join(dir, "metadata"), filepath.Join(dir, "files"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+VersityUser, "ROOT_SECRET_KEY="+VersitySecret)
	start(t, cmd, "tcp", endpoint)
	return endpoint
}
