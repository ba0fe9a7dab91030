package nix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// chained are derivations, the output of each of which refers to that of the one before.
const chained = `
let
  sh = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; args = [ "-c" text ]; };
in
rec {
  first = sh "first" "echo 1 >$out";
  second = sh "second" "echo ${first} >$out";
  third = sh "third" "echo ${second} $out >$out";
  alone = sh "alone" "echo alone >$out";
  absent = sh "absent" "echo absent >$out";
}`

// chain makes a directory a binary cache with their outputs, and returns these by name.
func chain(t *testing.T, n *Nix, dir string) map[string]string {
	t.Helper()
	outs := map[string]string{}
	var paths []string
	for name, drv := range instantiate(t, n, chained) {
		realise(t, n, drv)
		outputs, err := n.Outputs(t.Context(), drv)
		if err != nil {
			t.Fatal(err)
		}
		outs[name] = outputs[drv]["out"]
		if name != "absent" {
			paths = append(paths, outs[name])
		}
	}
	if _, err := n.Copy(t.Context(), "file://"+dir, paths); err != nil {
		t.Fatal(err)
	}
	return outs
}

func narinfo(dir, path string) string {
	hash, _, _ := strings.Cut(filepath.Base(path), "-")
	return filepath.Join(dir, hash+".narinfo")
}

// serve serves a directory that only the test can see.
func serve(t *testing.T, dir string) http.Handler {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return http.FileServer(http.Dir(fmt.Sprintf("/proc/self/fd/%d", f.Fd())))
}

// A closure is substitutable only if each of its paths is.
func TestSubstitutableClosures(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir, other := t.TempDir(), t.TempDir()
		outs := chain(t, n, dir)
		server := httptest.NewServer(serve(t, dir))
		defer server.Close()
		if _, err := n.Copy(t.Context(), "file://"+other, []string{outs["first"]}); err != nil {
			t.Fatal(err)
		}
		all := []string{outs["first"], outs["second"], outs["third"], outs["alone"], outs["absent"]}
		check := func(what string, want []string, substituters ...string) {
			t.Helper()
			got, err := n.SubstitutableClosures(t.Context(), all, substituters...)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for _, name := range []string{"first", "second", "third", "alone", "absent"} {
				if got[outs[name]] {
					names = append(names, name)
				}
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("%s:\n%s", what, diff)
			}
		}
		check("all is there", []string{"first", "second", "third", "alone"}, "file://"+dir)
		check("likewise", []string{"first", "second", "third", "alone"}, server.URL)
		if err := os.Remove(narinfo(dir, outs["first"])); err != nil {
			t.Fatal(err)
		}
		check("without the first", []string{"alone"}, "file://"+dir)
		check("which another has", []string{"first", "second", "third", "alone"}, "file://"+dir, "file://"+other)
		check("with one that has nothing", []string{"alone"}, "file:///nix/none", "file://"+dir)
		check("by nobody", []string{})
	})
}

// A binary cache may lack a file that it lists.
func TestDelivers(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		outs := chain(t, n, dir)
		files := serve(t, dir)
		status := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status > 0 && strings.HasPrefix(r.URL.Path, "/nar/") {
				w.WriteHeader(status)
				return
			}
			files.ServeHTTP(w, r)
		}))
		defer server.Close()
		check := func(what, substituter string, want bool) {
			t.Helper()
			if got, err := n.Delivers(t.Context(), substituter, outs["third"]); err != nil || got != want {
				t.Errorf("%s, %s: %t, %v", what, substituter, got, err)
			}
		}
		check("it is there", "file://"+dir, true)
		check("it is there", server.URL, true)
		for _, status = range []int{http.StatusNotFound, http.StatusForbidden, http.StatusInternalServerError} {
			check("it is refused", server.URL, false)
		}
		status = http.StatusBadRequest // an unknown answer
		if got, err := n.Delivers(t.Context(), server.URL, outs["third"]); err == nil || got {
			t.Errorf("asked in vain: %t, %v", got, err)
		}
		status = 0
		if err := os.RemoveAll(filepath.Join(dir, "nar")); err != nil {
			t.Fatal(err)
		}
		check("it is gone", "file://"+dir, false)
		check("it is gone", server.URL, false)
	})
}

// A substituter that accepts a connection and never answers is not waited for.
func TestNoAnswer(t *testing.T) {
	defer func(timeout time.Duration) { AnswerTimeout = timeout }(AnswerTimeout)
	AnswerTimeout = time.Second
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	mute := fmt.Sprintf("http://%s", listener.Addr())
	t.Run("each", func(t *testing.T) {
		eachNix(t, func(t *testing.T, n *Nix) {
			n = n.WithOptions(Set("fallback", "true")) // as everywhere
			dir := t.TempDir()
			outs := chain(t, n, dir)
			paths := slices.Sorted(func(yield func(string) bool) {
				for _, out := range outs {
					if !yield(out) {
						return
					}
				}
			})
			for what, ask := range map[string]func(context.Context, []string, ...string) (map[string]bool, error){"Substitutable": n.substitutable, "SubstitutableClosures": n.SubstitutableClosures} {
				got, err := ask(t.Context(), paths, mute+"/?priority=10", "file://"+dir)
				var without *NoAnswerError
				if !errors.As(err, &without) || len(without.Substituters) != 1 || without.Substituters[0] != mute+"/?priority=10" || !got[outs["third"]] || got[outs["absent"]] {
					t.Errorf("%s: %d paths, %v", what, len(got), err)
				}
			}
			if _, err := n.TrustedPaths(t.Context(), paths, mute); err == nil {
				t.Error("it has said who signed")
			}
			if delivers, err := n.Delivers(t.Context(), mute, outs["third"]); err == nil || delivers {
				t.Errorf("it delivers: %t, %v", delivers, err)
			}
		})
	})
}
