package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/substituter"
	"github.com/org/nix-matrix/pkg/text"
)

// A serving is the command serve.
type serving struct {
	userBuild
	listen   string
	priority int
	key      string // file
	idle     time.Duration
	until    int // process
}

const (
	// serveAddress is any free port of loopback.
	serveAddress = "127.0.0.1:0"
	// servePriority is that of a substituter after cache.nixos.org (40) and Cachix (41).
	servePriority = "50"
	// lookAgain is how often a server looks whether the process with which it ends is there.
	lookAgain = time.Second
	// serveMemory is the memory of a server, in bytes, as far as the garbage collector decides.
	serveMemory = 240 << 20
)

func newServe(a *app) *cobra.Command {
	s := &serving{userBuild: userBuild{app: a}}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve store paths of the cache to Nix, on demand",
		Long: `Serves the store paths that "nix-matrix save" has saved, as a substituter on loopback:
Nix fetches from it what a build needs, and nothing else. It prints the URL of the
substituter, and serves until it is interrupted, which is its normal end.

A Nix daemon must trust this user (trusted-users in nix.conf), because the paths have
no signatures. Otherwise an administrator can name the URL with a fixed port in
trusted-substituters, and in trusted-public-keys the public key that --key prints.

What may be restored may be served: see restore. A path that the cache has lost is
built. With "fallback = true", no fault of this server makes a build fail.`,
		Example: `  nix-matrix serve
  nix build --option extra-substituters 'URL' --option fallback true   # the URL that serve prints

  nix-matrix serve --cache dir:/srv/cache --listen 127.0.0.1:5005 --key ./serve.key
  nix-matrix serve --json | jq -r .nix_config`,
		Args: noArguments("serve takes no arguments, and %q is one; Nix asks for what it needs"),
		RunE: func(cmd *cobra.Command, _ []string) error { return s.serve(cmd.Context()) },
	}
	addFlag(cmd, flagvalue.Text(&s.listen, "ADDRESS", serveAddress), "listen", "address and port on loopback; with port 0, any free one, and a URL that cannot be guessed")
	addFlag(cmd, flagvalue.Number(&s.priority, "N", servePriority, 1, 1<<16), "priority", "priority among the substituters, of which lower ones are asked first; that of cache.nixos.org is 40")
	addFlag(cmd, flagvalue.Text(&s.key, "FILE", ""), "key", "sign with the secret key in this file, which is made if there is none")
	addFlag(cmd, flagvalue.Time(&s.idle, ""), "idle", "end after so long without a request, such as 6h; default: never")
	addFlag(cmd, flagvalue.Number(&s.until, "PID", "0", 0, 1<<30), "until", "")
	_ = cmd.Flags().MarkHidden("until")
	addFlag(cmd, flagvalue.Bool(&s.json, false), "json", "print the URL and the settings of Nix as JSON")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

// A served is what serve prints as JSON.
type served struct {
	URL       string `json:"url"`
	Trusted   bool   `json:"trusted"` // the URL makes Nix take paths without a signature
	PublicKey string `json:"public_key,omitempty"`
	NixConfig string `json:"nix_config"` // lines for NIX_CONFIG or nix.conf
}

func (s *serving) serve(ctx context.Context) error {
	a := s.app
	debug.SetMemoryLimit(serveMemory)
	user, _, err := s.open(ctx, nil)
	if err != nil {
		return err
	}
	server := &substituter.Server{Priority: s.priority, Idle: s.idle}
	says := served{Trusted: s.key == "" && user.AcceptsUnsigned()}
	if s.key != "" {
		if server.Key, err = signingKey(s.key); err != nil {
			return err
		}
		says.PublicKey = server.Key.ToPublicKey().String()
	}
	listener, err := substituter.Listen(ctx, s.listen)
	if err != nil {
		return usage.Errorf("cannot listen on %s: %w", s.listen, err)
	}
	defer listener.Close()
	if strings.HasSuffix(s.listen, ":0") {
		server.Name = strings.ToLower(rand.Text())
	}
	paths, err := user.OnDemand(ctx)
	if err != nil {
		return err
	}
	defer paths.Close()
	server.Store = paths
	query := "?priority=" + strconv.Itoa(s.priority)
	if says.Trusted {
		query = "?trusted=true&priority=" + strconv.Itoa(s.priority)
	}
	says.URL = server.URL(listener) + query
	says.NixConfig = says.config()
	if err := s.announce(&says); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if s.until > 0 {
		go endWith(ctx, s.until, stop)
	}
	err = server.Serve(ctx, listener)
	count, bytes := server.Served()
	a.log.Printf("served %s (%s)", text.Plural(int(count), "store path"), text.Size(bytes))
	if errors.Is(err, substituter.ErrIdle) {
		return nil
	}
	return err
}

// config returns the settings of Nix that use the server.
func (s *served) config() string {
	config := "extra-substituters = " + s.URL + "\n"
	if s.PublicKey != "" {
		config += "extra-trusted-public-keys = " + s.PublicKey + "\n"
	}
	return config + "fallback = true\n"
}

// announce prints how to use the server, and closes the output, so that a reader of all of it goes on.
func (s *serving) announce(says *served) (err error) {
	if out, ok := s.app.streams.out.(io.Closer); ok {
		defer func() { err = errors.Join(err, out.Close()) }()
	}
	if s.json {
		return s.app.printJSON(says)
	}
	if err := s.app.print(says.URL + "\n"); err != nil {
		return err
	}
	s.app.log.Printf("Nix fetches from there with these lines in nix.conf or in NIX_CONFIG:\n%s", says.NixConfig)
	return nil
}

// endWith calls stop when there is no process of this number.
func endWith(ctx context.Context, pid int, stop func()) {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			stop()
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// maxKey is the most bytes of a file with a key.
const maxKey = 4 << 10

// signingKey reads the secret key in a file, or makes one and writes it there.
func signingKey(file string) (*substituter.Key, error) {
	data, err := documents.ReadFile(file, maxKey)
	if err == nil {
		key, err := signature.LoadSecretKey(strings.TrimSpace(string(data)))
		if err != nil {
			return nil, usage.Errorf("cannot read the key in %s: it is not NAME:BASE64, as nix-store --generate-binary-cache-key makes it", file)
		}
		return &key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	key, _, err := signature.GenerateKeypair("nix-matrix-serve-1", rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(key.String() + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the key: %w", err)
	}
	return &key, nil
}
