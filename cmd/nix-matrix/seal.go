package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/pack"
)

// What is sealed, for the seal to be bound to.
const (
	planDocument       = "plan"
	resultDocument     = "result"
	logDocument        = "log"
	evaluationDocument = "evaluation"
	recordDocument     = "record"
)

// loadSeal makes the key that everything cached or uploaded is sealed with, if there
// is a secret for it.
func (a *app) loadSeal() error {
	secret := strings.TrimSpace(a.getenv(encryptionVariable))
	if secret == "" {
		key, err := a.gitCryptKey()
		if err != nil || key == nil {
			return err
		}
		secret = "git-crypt " + base64.StdEncoding.EncodeToString(key) // however its lines were broken
	}
	var err error
	if a.seal, err = pack.NewKey(secret); err != nil {
		return usagef("encryption_key (%s): %w", encryptionVariable, err)
	}
	return nil
}

// gitCryptKey is the key for what git-crypt has encrypted, nil if there is none.
func (a *app) gitCryptKey() ([]byte, error) {
	text := strings.Join(strings.Fields(a.getenv(gitCryptVariable)), "")
	if text == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !strings.HasPrefix(string(key), "\x00GITCRYPTKEY") {
		return nil, usagef("git_crypt_key (%s) is not the base64 of a key of git-crypt: make it with git-crypt export-key /dev/stdout | base64", gitCryptVariable)
	}
	return key, nil
}

// sealLogs seals the logs in a directory, where there is a key.
func (a *app) sealLogs(dir string) error {
	if a.seal == nil {
		return nil
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is ours
	for _, log := range logs {
		if err := a.sealFile(log); err != nil {
			return fmt.Errorf("seal the log %s: %w", log, err)
		}
	}
	return nil
}

// sealFile puts a sealed file in a file's place.
func (a *app) sealFile(name string) (err error) {
	plain, err := os.Open(name)
	if err != nil {
		return err
	}
	defer plain.Close()
	sealed, err := os.CreateTemp(filepath.Dir(name), ".nix-matrix-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(sealed.Name())
		}
	}()
	w, err := a.seal.NewWriter(sealed, logDocument)
	if err == nil {
		_, err = io.Copy(w, plain)
		err = errors.Join(err, w.Close())
	}
	if err = errors.Join(err, sealed.Close()); err != nil {
		return err
	}
	return os.Rename(sealed.Name(), name)
}

func newUnseal(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unseal FILE",
		Short: "Show a plan, a result or a log that was sealed",
		Long: `Prints a file out of an artifact that was sealed: a plan, a result, or the log of
what failed. The secret encryption_key is taken from the environment variable
NIX_MATRIX_ENCRYPTION_KEY, or, where the workflow has only that one, git_crypt_key from
NIX_MATRIX_GIT_CRYPT_KEY.`,
		Example: `  NIX_MATRIX_ENCRYPTION_KEY=$(pass ci/nix-matrix) nix-matrix unseal plan.json | jq .`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("unseal takes one file")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.loadSeal(); err != nil {
				return err
			}
			return a.unseal(args[0])
		},
	}
}

// unseal prints a sealed file, whichever document it is.
func (a *app) unseal(name string) error {
	for _, document := range []string{planDocument, resultDocument, logDocument} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := a.seal.NewReader(f, document)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		// The first piece tells whether it is this document.
		opened := bufio.NewReader(r)
		if _, err := opened.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if _, err := opened.WriteTo(a.streams.out); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("%s: %w: it was changed or cut off, or is neither a plan nor a result nor a log", name, pack.ErrSeal)
}
