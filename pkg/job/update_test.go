package job

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodLock = `{"nodes": {"root": {"inputs": {"nixpkgs": "nixpkgs", "indirect": "indirect"}},
	"nixpkgs": {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "x", "narHash": "y"}, "original": {"type": "github", "owner": "nixos", "repo": "nixpkgs", "ref": "z"}},
	"indirect": {"locked": {"type": "github", "owner": "a", "repo": "b"}, "original": {"type": "indirect", "id": "b"}}}, "root": "root", "version": 7}`

func TestUpdate(t *testing.T) {
	good := func() *Update {
		return &Update{
			Version: Version, ID: "a", Created: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), Run: 7, Attempt: 1, Commit: strings.Repeat("0", 40),
			LockFile: "sub/flake.lock", Lock: goodLock, Title: "flake.lock: update nixpkgs", Message: "- nixpkgs\n", Body: "# a\nb",
		}
	}
	data, err := good().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseUpdate(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good(), got); diff != "" {
		t.Errorf("- want + got:\n%s", diff)
	}
	for name, change := range map[string]func(*Update){
		"another version":        func(u *Update) { u.Version = 9 },
		"an id that is none":     func(u *Update) { u.ID = "../a" },
		"a short commit":         func(u *Update) { u.Commit = "0123" },
		"a ref":                  func(u *Update) { u.Commit = "refs/pull/7/head" },
		"no file":                func(u *Update) { u.LockFile = "" },
		"another file":           func(u *Update) { u.LockFile = ".github/workflows/ci.yml" },
		"a file outside":         func(u *Update) { u.LockFile = "../flake.lock" },
		"an absolute file":       func(u *Update) { u.LockFile = "/flake.lock" },
		"a file in .git":         func(u *Update) { u.LockFile = "sub/.GIT/flake.lock" },
		"a file with a newline":  func(u *Update) { u.LockFile = "a\n/flake.lock" },
		"a lock that is no JSON": func(u *Update) { u.Lock = "{" },
		"a lock without inputs":  func(u *Update) { u.Lock = `{"root": "root"}` },
		"too large a lock":       func(u *Update) { u.Lock = goodLock + strings.Repeat(" ", MaxLock) },
		"another owner":          func(u *Update) { u.Lock = strings.Replace(goodLock, `"owner": "NixOS"`, `"owner": "evil"`, 1) },
		"another host": func(u *Update) {
			u.Lock = strings.Replace(goodLock, `"owner": "NixOS"`, `"owner": "NixOS", "host": "evil.example"`, 1)
		},
		"another kind": func(u *Update) {
			u.Lock = strings.Replace(goodLock, `"type": "github", "owner": "NixOS"`, `"type": "tarball", "owner": "NixOS"`, 1)
		},
		"no title":           func(u *Update) { u.Title = " " },
		"two lines of title": func(u *Update) { u.Title = "a\nb" },
		"a hidden title":     func(u *Update) { u.Title = "a\u202e" },
		"a long title":       func(u *Update) { u.Title = strings.Repeat("a", 300) },
		"a long message":     func(u *Update) { u.Message = strings.Repeat("a", MaxText+1) },
		"a long body":        func(u *Update) { u.Body = strings.Repeat("é", MaxBody+1) },
	} {
		t.Run(name, func(t *testing.T) {
			u := good()
			change(u)
			data, err := u.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseUpdate(data); err == nil {
				t.Error("it is taken")
			}
		})
	}
}
