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

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/text"
)

// preinstalled are the large trees of GitHub's own runner images that neither a
// build by Nix nor a step after it has any use for: not what talks to clouds.
var preinstalled = []string{
	"/usr/local/lib/android",
	"/usr/share/dotnet",
	"/opt/ghc", "/usr/local/.ghcup",
	"/usr/share/swift",
	"/opt/hostedtoolcache/CodeQL", "/opt/hostedtoolcache/go", "/opt/hostedtoolcache/PyPy", "/opt/hostedtoolcache/Ruby",
	"/usr/local/share/powershell", "/usr/local/share/chromium", "/usr/local/share/boost",
	"/usr/local/julia*", "/usr/share/miniconda", "/usr/lib/jvm",
}

// spare is the room that builds need besides what is fetched, in bytes: nobody
// knows how much they will write.
const spare = 10 << 30

// makeRoom foresees whether the room for an entry will be short, says so, and
// removes what is preinstalled if it may, all while the build goes on and no longer
// than that. Nobody waits for it: what runs as root can't be ended by us.
func (w *Worker) makeRoom(ctx context.Context, store *nix.Nix, targets []realise.Target) {
	if w.Env.Remote != "" {
		return
	}
	if w.Reclaim == "true" {
		w.reclaim(ctx)
	}
	if w.short(ctx, store, targets) && w.Reclaim == "auto" {
		w.reclaim(ctx)
	}
}

// short foresees whether there is too little room, and says so.
func (w *Worker) short(ctx context.Context, store *nix.Nix, targets []realise.Target) bool {
	need, err := store.Forecast(ctx, realise.Wanted(targets))
	if err != nil {
		return false // the build itself will say what is wrong
	}
	free, err := freeSpace("/nix/store")
	if err != nil || free >= need+spare/10 {
		return err == nil && w.Hosted && free < need+spare
	}
	w.Log.Warn("The disk may be too small", fmt.Errorf("%s is free at /nix/store, and %s will be fetched, besides what is built", text.Size(free), text.Size(need)))
	return true
}

func freeSpace(dir string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil //nolint:gosec,unconvert // no disk is that large; the type differs by system
}

// reclaim removes the trees that are preinstalled on GitHub's own runners, and
// nowhere else.
func (w *Worker) reclaim(ctx context.Context) {
	if !w.Hosted || runtime.GOOS != "linux" {
		return
	}
	var trees []string
	for _, pattern := range preinstalled {
		found, _ := filepath.Glob(pattern) // the patterns are ours
		trees = append(trees, found...)
	}
	trees = slices.DeleteFunc(trees, func(tree string) bool {
		info, err := os.Lstat(tree)
		return err != nil || !info.IsDir() // a link stays: what it points to may be in use
	})
	if len(trees) == 0 {
		return
	}
	before, _ := freeSpace("/nix/store")
	w.Log.Printf("making room: removing %s", strings.Join(trees, " "))
	args := append([]string{"rm", "-rf", "--one-file-system", "--"}, trees...)
	if os.Geteuid() != 0 {
		args = append([]string{"sudo", "-n"}, args...)
	}
	cmd := child.Command(ctx, time.Second, "nice", append([]string{"-n", "19"}, args...)...)
	cmd.Env = nix.Environ()
	if err := cmd.Run(); err != nil {
		if ctx.Err() == nil {
			w.Log.Warn("What is preinstalled could not be removed", err)
		}
		return
	}
	after, _ := freeSpace("/nix/store")
	w.Log.Printf("made room: %s more is free", text.Size(max(0, after-before)))
}
