package realise

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// maxAlike is how many downloads from a host may fail in the same way before the others
// are not tried.
const maxAlike = 5

// A guard follows a round: it tells what becomes hopeless while that is so, and ends the
// round where going on is of no use.
type guard struct {
	*realisation
	end   context.CancelFunc
	last  bool // failed downloads are not tried again
	lost  map[string]bool
	alike map[string]int // downloads that failed, by host and how

	mu     sync.Mutex
	heard  map[string]time.Time // when builds began or printed something, where that matters
	silent []string             // those that were ended for it
}

// round calls Realise. whole says that all of what it was asked for was tried.
func (r *realisation) round(ctx context.Context, todo []string, at *rounds) (whole bool, err error) {
	within, end := context.WithCancel(ctx)
	defer end()
	g := &guard{
		realisation: r, end: end, last: at.retried == len(r.o.Retries),
		lost: map[string]bool{}, alike: map[string]int{}, heard: map[string]time.Time{},
	}
	r.watch.begin()
	if r.o.Silence > 0 {
		go g.listen(within)
	}
	whole, err = r.once(within, todo, func(e nix.Event) {
		r.watch.see(e, ctx.Err() != nil)
		r.logs.see(e)
		r.o.Emit(e)
		g.see(within, e)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, drv := range g.silent { // as Nix says it where it looks after that itself
		text := fmt.Sprintf("building of '%s' timed out after %.0f seconds of silence", drv, r.o.Silence.Seconds())
		e := nix.Event{Kind: nix.ErrorMessage, Time: time.Now(), Text: text}
		r.watch.see(e, false)
		r.o.Emit(e)
	}
	return whole, err
}

func (g *guard) see(ctx context.Context, e nix.Event) {
	switch e.Kind {
	case nix.BuildStarted, nix.BuildLine, nix.BuildStopped:
		g.mu.Lock()
		g.heard[e.Path] = time.Now()
		if e.Kind == nix.BuildStopped {
			delete(g.heard, e.Path)
		}
		g.mu.Unlock()
		if e.Kind == nix.BuildStarted {
			g.stop(ctx)
		}
		if e.Kind != nix.BuildLine {
			g.spare()
		}
	case nix.ErrorMessage:
		g.failed(ctx, e.Text)
	case nix.FetchStarted, nix.FetchStopped, nix.FetchCounted, nix.FetchProgress, nix.WarnMessage:
	}
}

// listen ends the round when a builder has printed nothing for too long.
func (g *guard) listen(ctx context.Context) {
	for {
		g.mu.Lock()
		now, next := time.Now(), g.o.Silence
		for drv, heard := range g.heard {
			left := g.o.Silence - now.Sub(heard)
			if left <= 0 {
				g.silent = append(g.silent, drv)
			}
			next = min(next, left)
		}
		quiet := len(g.silent) > 0
		g.mu.Unlock()
		if quiet {
			g.end()
			return
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

// failed takes a message of Nix: which targets can't be built any more is known then.
func (g *guard) failed(ctx context.Context, message string) {
	if nix.OnlyOthers(message) {
		return
	}
	f := g.failures
	for _, t := range g.targets {
		f.needs(t.DrvPath)
	}
	drv := f.subject(message)
	if g.lost[drv] || !f.watch.begun(drv) { // else it may still be built
		return
	}
	g.lost[drv] = true
	if f.fetch(failure{drv: drv, message: message}) {
		g.download(drv, message)
		if !g.last {
			return
		}
	}
	var hopeless []string
	for _, t := range g.targets {
		if !f.hopeless[t.DrvPath] && len(f.among(f.needs(t.DrvPath), drv)) > 0 {
			f.hopeless[t.DrvPath] = true
			hopeless = append(hopeless, t.Attr)
		}
	}
	if len(hopeless) == 0 {
		return
	}
	then := "everything else that is needed is still built"
	if g.o.FailFast {
		then = "the build ends with the other targets"
	}
	g.warn("cannot build %s any more: %s failed; %s", text.Some(hopeless, 5), job.DrvName(drv), then)
	g.stop(ctx)
}

// stop ends the round, if that is wanted, when there is no target that can still be built.
func (g *guard) stop(ctx context.Context) {
	if !g.o.FailFast || len(g.failures.hopeless) == 0 {
		return
	}
	hopeful := func(i int) bool { return !g.failures.hopeless[g.targets[i].DrvPath] }
	var valid map[string]bool
	for i := range g.targets {
		if !hopeful(i) {
			continue
		}
		if valid == nil {
			var err error
			if valid, err = g.valid(ctx); err != nil {
				return
			}
		}
		if !g.all(i, valid) {
			return
		}
	}
	g.end()
}

// How a download failed for which its host is to blame: what curl and Nix say, but not
// that a file is not there.
var (
	hostFailed = regexp.MustCompile(`curl: \(\d+\)[^\n]*|unable to download '[^'\n]*': [^\n]*|HTTP error [^\n]*`)
	fileGone   = regexp.MustCompile(`\b(?:404|410)\b`)
	// What differs between two that failed for the same.
	different = regexp.MustCompile(` ?['"]?\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+['"]?| (?:after|in) \d+ (?:ms|milliseconds)\b`)
)

// download counts downloads that fail alike. When they are too many, the host is given up
// for as long as nothing is tried again.
func (g *guard) download(drv, message string) {
	host := g.failures.node(drv).host
	if host == "" {
		return
	}
	said := strings.Join(append(slices.Clone(g.watch.log[drv]), message), "\n")
	all := hostFailed.FindAllString(said, -1)
	if len(all) == 0 || fileGone.MatchString(all[len(all)-1]) {
		return
	}
	how := brief(strings.TrimSpace(different.ReplaceAllString(all[len(all)-1], "")))
	g.alike[host+"\n"+how]++
	if g.alike[host+"\n"+how] != maxAlike {
		return
	}
	g.failures.dead[host] = fmt.Sprintf("cannot fetch everything from %s: %d downloads failed in the same way: %s", host, maxAlike, how)
	g.warn("%d downloads from %s failed in the same way (%s): the others from there are not tried now", maxAlike, host, how)
	g.spare()
}

// spare ends the round when nothing is being built but downloads from hosts that are given
// up.
func (g *guard) spare() {
	f := g.failures
	if len(f.dead) == 0 {
		return
	}
	inVain := false
	for drv := range g.watch.running {
		switch {
		case g.lost[drv]: // Nix has yet to say that it has ended
		case f.dead[f.node(drv).host] == "":
			return
		default:
			inVain = true
		}
	}
	if inVain {
		g.end()
	}
}

// brief returns the first line of foreign text that is quoted in a line.
func brief(said string) string {
	const longest = 300
	first, _, _ := strings.Cut(said, "\n")
	return text.Clip(first, longest)
}
