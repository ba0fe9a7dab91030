package nix

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// substitutable asks substituters one question.
func (n *Nix) substitutable(ctx context.Context, paths []string, substituters ...string) (map[string]bool, error) {
	q, err := n.Inquire(ctx, substituters...)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	return q.Substitutable(paths)
}

// All questions go over one connection to a binary cache, and none is answered from the local store.
func TestInquiry(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		outs := chain(t, n, dir)
		files := serve(t, dir)
		var infos []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/nix-cache-info" {
				infos = append(infos, r.RemoteAddr)
			}
			files.ServeHTTP(w, r)
		}))
		defer server.Close()
		q, err := n.Inquire(t.Context(), server.URL)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct{ paths, want []string }{
			{[]string{outs["second"], outs["absent"]}, []string{outs["first"], outs["second"]}},
			{[]string{outs["alone"]}, []string{outs["alone"]}},
			{[]string{outs["absent"]}, nil},
			{nil, nil},
		} {
			want := map[string]bool{}
			for _, path := range test.want {
				want[path] = true
			}
			got, err := q.Substitutable(test.paths)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("%q: %v\n%s", test.paths, err, diff)
			}
		}
		q.Close()
		if len(infos) != 1 {
			t.Errorf("it begins %d times", len(infos))
		}
		if left, err := filepath.Glob(filepath.Join(os.TempDir(), "nix-matrix-empty-*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
		if _, err := q.Substitutable([]string{outs["first"]}); err == nil {
			t.Error("it answers after its end")
		}
	})
}

// An error has no password of an address, and names no directory of ours.
func TestInquiryError(t *testing.T) {
	program(t, "nix-daemon", `echo "error: can't reach https://user:s3cr3t@host/nix-cache-info" >&2; exit 1`)
	_, err := new(Nix).substitutable(t.Context(), []string{aPath}, "https://user:s3cr3t@host?a=b")
	if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "can't reach https://user:xxxxx@host") || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

// The log of an Inquiry is bounded.
func TestLimitedBuffer(t *testing.T) {
	var b limitedBuffer
	for range 100 {
		b.add(fmt.Sprintf("%65536d", 0))
	}
	if len(b.String()) != 1<<20 {
		t.Errorf("%d bytes", len(b.String()))
	}
}
