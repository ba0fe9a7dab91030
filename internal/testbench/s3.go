package testbench

import (
	"context"
	"os/exec"
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
