package nix

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// Each version prints the status with which a binary cache refused an upload.
func TestCopyRefused(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := n.output(t.Context(), "nix-store", raw("--add", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch {
				case r.Method == http.MethodPut:
					w.WriteHeader(status)
				case r.URL.Path == "/nix-cache-info":
					_, _ = io.WriteString(w, "StoreDir: /nix/store\n")
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			}))
			defer server.Close()
			_, err := n.Copy(t.Context(), server.URL+"?compression=none", lines(out))
			var failed *Error
			if !errors.As(err, &failed) || failed.HTTPStatus() != status {
				t.Errorf("want %d, got %v", status, err)
			}
		}
	})
}
