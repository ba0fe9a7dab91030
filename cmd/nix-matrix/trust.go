package main

import (
	"bufio"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/action"
)

// trust has all that decides what this job may take from others and leave for them.
func (a *app) trust() action.Trust {
	t := a.action.Trust()
	t.Heads, t.Sealed, t.Shared = a.heads, a.seal != nil, !a.inActions()
	return t
}

// keeps reports whether later runs may reuse what this job makes, and says once why not.
func (a *app) keeps() bool {
	err := a.trust().MayKeep()
	if err != nil {
		a.kept.Do(func() { a.show.Printf("nothing is kept for later runs: %v", err) })
	}
	return err == nil
}

// heads returns the commits of the checkouts that a discovery looks into, and an empty
// text where it asks for something else of a checkout.
func (d *discovery) heads() []string {
	all := heads(d.directories()...)
	for _, installable := range d.installables {
		ref, _, _ := strings.Cut(installable, "#")
		ref, text, _ := strings.Cut(ref, "?")
		if scheme, _, ok := strings.Cut(ref, ":"); ok && scheme != "git+file" && scheme != "path" {
			continue // there is none
		}
		query, err := url.ParseQuery(text)
		if err != nil || query.Has("ref") || query.Has("rev") {
			all = append(all, "")
		}
	}
	return all
}

// heads returns the commits that the checkouts around directories are at, each once, and
// an empty text for one whose commit can't be read. A directory may be in none.
func heads(dirs ...string) []string {
	var all []string
	for _, dir := range dirs {
		if head, ok := headOf(dir); ok && !slices.Contains(all, head) {
			all = append(all, head)
		}
	}
	return all
}

var commitPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// headOf reads the files of git, which as a program would do what a checkout's own
// configuration says.
func headOf(dir string) (commit string, ok bool) {
	dir, err := filepath.EvalSymlinks(dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return "", true
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(filepath.Join(dir, ".git"))
		switch {
		case errors.Is(err, os.ErrNotExist) && dir == filepath.Dir(dir):
			return "", false
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return "", true
		}
		git := filepath.Join(dir, ".git")
		if !info.IsDir() { // a submodule, or one of several work trees
			text, _ := strings.CutPrefix(gitFile(git), "gitdir: ")
			if git = text; !filepath.IsAbs(git) {
				git = filepath.Join(dir, text)
			}
		}
		return resolveHead(git), true
	}
}

// resolveHead returns the commit of HEAD, or an empty text.
func resolveHead(git string) string {
	common := gitFile(filepath.Join(git, "commondir"))
	if !filepath.IsAbs(common) {
		common = filepath.Join(git, common)
	}
	const deepest = 5 // as in git
	text := gitFile(filepath.Join(git, "HEAD"))
	for range deepest {
		if commitPattern.MatchString(text) {
			return text
		}
		ref, ok := strings.CutPrefix(text, "ref: ")
		if !ok || !strings.HasPrefix(ref, "refs/") || !filepath.IsLocal(ref) {
			return ""
		}
		if text = gitFile(filepath.Join(git, ref)); text == "" {
			text = gitFile(filepath.Join(common, ref))
		}
		if text == "" {
			text = packedRef(filepath.Join(common, "packed-refs"), ref)
		}
	}
	return ""
}

// gitFile reads a short file without its end of line; what can't be read is empty.
func gitFile(name string) string {
	f := openPlain(name)
	if f == nil {
		return ""
	}
	defer f.Close()
	const most = 4 << 10
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(data), "\n")
}

// packedRef looks a ref up among those that git has put into one file.
func packedRef(name, ref string) string {
	f := openPlain(name)
	if f == nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if commit, found := strings.CutSuffix(lines.Text(), " "+ref); found {
			return commit
		}
	}
	return ""
}

// openPlain opens a regular file, or returns nil.
func openPlain(name string) *os.File {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil
	}
	return f
}
