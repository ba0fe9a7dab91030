package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/text"
)

// preinstalled are the large trees of GitHub's own runner images that neither a build by Nix nor a later
// step needs. Programs that talk to clouds are not among them.
var preinstalled = []string{
	"/usr/local/lib/android",
	"/usr/share/dotnet",
	"/opt/ghc", "/usr/local/.ghcup",
	"/usr/share/swift",
	"/opt/hostedtoolcache/CodeQL", "/opt/hostedtoolcache/go", "/opt/hostedtoolcache/PyPy", "/opt/hostedtoolcache/Ruby",
	"/usr/local/share/powershell", "/usr/local/share/chromium", "/usr/local/share/boost",
	"/usr/local/julia*", "/usr/share/miniconda", "/usr/lib/jvm",
}

// buildSpace is the space for builds, in bytes: how much they write is not known before.
const buildSpace = 10 << 30

// makeRoom warns if the disk may be too small for an entry, and removes preinstalled files if it may. It
// runs beside the build, which does not wait for its end, because this process cannot stop a program that
// runs as root.
func (w *Worker) makeRoom(ctx context.Context, store *nix.Nix, targets []realise.Target) {
	if w.Env.Remote != "" {
		return
	}
	if w.Reclaim == "true" {
		w.reclaim(ctx, store)
	}
	if w.short(ctx, store, targets) && w.Reclaim == "auto" {
		w.reclaim(ctx, store)
	}
}

// short reports whether the disk may be too small, and warns if it is likely.
func (w *Worker) short(ctx context.Context, store *nix.Nix, targets []realise.Target) bool {
	need, err := store.Forecast(ctx, realise.Wanted(targets))
	if err != nil {
		return false // the build fails with the same error
	}
	free, err := store.FreeSpace()
	if err != nil || free >= need+buildSpace/10 {
		return err == nil && w.Hosted && free < need+buildSpace
	}
	w.Log.Warn("The disk may be too small", fmt.Errorf("%s is free at /nix/store, and %s will be fetched, without the outputs of builds", text.Size(free), text.Size(need)))
	return true
}

// reclaim removes the preinstalled trees, on GitHub's own runners only.
func (w *Worker) reclaim(ctx context.Context, store *nix.Nix) {
	if !w.Hosted || runtime.GOOS != "linux" {
		return
	}
	var trees []string
	for _, pattern := range preinstalled {
		found, _ := filepath.Glob(pattern) // the patterns are valid
		trees = append(trees, found...)
	}
	trees = slices.DeleteFunc(trees, func(tree string) bool {
		info, err := os.Lstat(tree)
		return err != nil || !info.IsDir() // a symlink stays, because its target may be in use
	})
	if len(trees) == 0 {
		return
	}
	before, _ := store.FreeSpace()
	w.Log.Printf("making room: removing %s", strings.Join(trees, " "))
	args := append([]string{"rm", "-rf", "--one-file-system", "--"}, trees...)
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	cmd := child.Command(ctx, time.Second, "nice", append([]string{"-n", "19"}, args...)...)
	cmd.Env = nix.Environ()
	if err := cmd.Run(); err != nil {
		if ctx.Err() == nil {
			w.Log.Warn("Cannot remove preinstalled files", err)
		}
		return
	}
	after, _ := store.FreeSpace()
	w.Log.Printf("made room: %s more is free", text.Size(max(0, after-before)))
}
