package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/internal/testbench"
)

// pipefail has bash fail with any part of a pipe.
var pipefail = []string{"-o", "pipefail", "-c"}

// official runs the client of actions/cache, with all of /nix as what it carries.
func (b *bench) official(ctx context.Context, s *service, env []string, command string) (*metered, error) {
	script, err := filepath.Abs("pkg/cache/actions/actionstest/testdata/cache.mjs")
	if err != nil {
		return nil, err
	}
	temp := filepath.Join(b.dir, "official")
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o755)); err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	env = append(append(env, s.environ()...), "RUNNER_TEMP="+temp, "GITHUB_WORKSPACE="+temp,
		"CLIENT="+filepath.Join(testbench.Prefix(), "npm/node_modules/@actions/cache/lib/cache.js"))
	const key = "official"
	m, err := b.meter(ctx, nil, env, "node", script, command, key, "/nix")
	if err != nil {
		return nil, err
	}
	last := m.stdout[strings.LastIndexByte(strings.TrimSpace(m.stdout), '\n')+1:]
	if done := map[string]string{"save": "saved 1\n", "restore": "restored " + key + "\n"}[command]; last != done {
		return nil, fmt.Errorf("@actions/cache %s: %s%s", command, m.stdout, m.stderr)
	}
	return m, nil
}

// tar writes all of /nix to a file, and gives its size in bytes.
func (b *bench) tar(ctx context.Context, env []string) (*metered, int64, error) {
	file := filepath.Join(b.dir, "tar.zst")
	defer os.Remove(file)
	m, err := b.meter(ctx, nil, env, "bash", append(pipefail, "tar -c -f - -C / nix | zstd -q -3 -T0 -o "+file)...)
	if err != nil {
		return nil, 0, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, 0, err
	}
	return m, info.Size(), nil
}

// The files of a service that others than we restore a closure from.
const (
	exportFile  = "export.zst"
	binaryCache = "binary-cache"
)

// offer puts a closure into these files.
func (b *bench) offer(ctx context.Context, s *service, env []string, root string) error {
	const export = "nix-store --export $(nix-store --query --requisites %s) | zstd -q -3 -T0 -o %s"
	_, err := b.run(ctx, b.dir, env, "bash", append(pipefail, fmt.Sprintf(export, root, filepath.Join(s.dir, exportFile)))...)
	if err != nil {
		return err
	}
	to := "file://" + filepath.Join(s.dir, binaryCache) + "?compression=zstd&parallel-compression=true"
	_, err = b.run(ctx, b.dir, env, "nix", "copy", "--to", to, root)
	return err
}

func (b *bench) nixCopy(ctx context.Context, s *service, env []string, root string) (*metered, error) {
	return b.meter(ctx, nil, env, "nix", "copy", "--from", s.url+"/files/"+binaryCache, root)
}

func (b *bench) nixImport(ctx context.Context, s *service, env []string) (*metered, error) {
	body, err := get(ctx, s.url+"/files/"+exportFile)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return b.meter(ctx, body, env, "bash", append(pipefail, "zstd -dc | nix-store --import")...)
}

func get(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", address, resp.Status)
	}
	return resp.Body, nil
}
