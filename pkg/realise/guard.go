package realise

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// maxSameFailures is how many downloads from a host may fail in the same way before the others
// are not tried.
const maxSameFailures = 5

// A guard follows a round: it reports targets as soon as they are hopeless, and ends a round
// that is of no more use.
type guard struct {
	*realisation
	end          context.CancelFunc
	last         bool // failed downloads are not retried any more
	lost         map[string]bool
	sameFailures map[string]int // failed downloads, by host and message

	mu         sync.Mutex
	lastOutput map[string]time.Time // of running builds, the start if there is none
	silent     []string             // builds that are stopped for their silence
}

// round calls Realise. whole says that all requested outputs were tried.
func (r *realisation) round(ctx context.Context, todo []string, state *rounds) (whole bool, err error) {
	within, end := context.WithCancel(ctx)
	defer end()
	g := &guard{
		realisation: r, end: end, last: state.retried == len(r.o.Retries),
		lost: map[string]bool{}, sameFailures: map[string]int{}, lastOutput: map[string]time.Time{},
	}
	r.watch.startRound()
	if r.o.Silence > 0 {
		go g.watchSilence(within)
	}
	whole, err = r.realiseOnce(within, todo, func(e nix.Event) {
		r.watch.see(e, ctx.Err() != nil)
		r.logs.see(e)
		r.o.Emit(e)
		g.see(within, e)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, drv := range g.silent { // Nix's message where it has the setting itself
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
		g.lastOutput[e.Path] = time.Now()
		if e.Kind == nix.BuildStopped {
			delete(g.lastOutput, e.Path)
		}
		g.mu.Unlock()
		if e.Kind == nix.BuildStarted {
			g.endIfHopeless(ctx)
		}
		if e.Kind != nix.BuildLine {
			g.endDoomed()
		}
	case nix.ErrorMessage:
		g.onError(ctx, e.Text)
	case nix.FetchStarted, nix.FetchStopped, nix.FetchCounted, nix.FetchProgress, nix.WarnMessage:
	}
}

// watchSilence ends the round when a builder has printed nothing for too long.
func (g *guard) watchSilence(ctx context.Context) {
	for {
		g.mu.Lock()
		now, next := time.Now(), g.o.Silence
		for drv, heard := range g.lastOutput {
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

// onError handles an error message of Nix, and reports the targets that cannot be built any
// more.
func (g *guard) onError(ctx context.Context, message string) {
	if nix.OnlyOthers(message) {
		return
	}
	f := g.failures
	for _, t := range g.targets {
		f.needs(t.DrvPath)
	}
	drv := f.subject(message)
	if g.lost[drv] || !f.watch.started(drv) { // it may still be built
		return
	}
	g.lost[drv] = true
	if f.isDownload(failure{drv: drv, message: message}) {
		g.countDownload(drv, message)
		if !g.last {
			return
		}
	}
	var hopeless []string
	for _, t := range g.targets {
		if !f.hopeless[t.DrvPath] && len(f.matching(f.needs(t.DrvPath), drv)) > 0 {
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
	g.endIfHopeless(ctx)
}

// endIfHopeless ends the round, with FailFast, when no target can be built any more.
func (g *guard) endIfHopeless(ctx context.Context) {
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
		if !g.allValid(i, valid) {
			return
		}
	}
	g.end()
}

// Messages of curl and Nix about downloads that failed because of their host. A missing file is
// not the host's failure.
var (
	hostFailed = lazyregexp.New(`curl: \(\d+\)[^\n]*|unable to download '[^'\n]*': [^\n]*|HTTP error [^\n]*`)
	fileGone   = lazyregexp.New(`\b(?:404|410)\b`)
	// varying matches the parts that differ between messages about the same failure.
	varying = lazyregexp.New(` ?['"]?\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+['"]?| (?:after|in) \d+ (?:ms|milliseconds)\b`)
)

// countDownload counts failed downloads with the same message. When they are too many, the
// host is given up until the next retry.
func (g *guard) countDownload(drv, message string) {
	host := g.failures.node(drv).host
	if host == "" {
		return
	}
	said := strings.Join(append(slices.Clone(g.watch.log[drv]), message), "\n")
	all := hostFailed().FindAllString(said, -1)
	if len(all) == 0 || fileGone().MatchString(all[len(all)-1]) {
		return
	}
	how := firstLine(strings.TrimSpace(varying().ReplaceAllString(all[len(all)-1], "")))
	g.sameFailures[host+"\n"+how]++
	if g.sameFailures[host+"\n"+how] != maxSameFailures {
		return
	}
	g.failures.deadHosts[host] = fmt.Sprintf("cannot fetch everything from %s: %d downloads failed in the same way: %s", host, maxSameFailures, how)
	g.warn("%d downloads from %s failed in the same way (%s): the others from there are not tried now", maxSameFailures, host, how)
	g.endDoomed()
}

// endDoomed ends the round when only downloads from hosts that are given up are running.
func (g *guard) endDoomed() {
	f := g.failures
	if len(f.deadHosts) == 0 {
		return
	}
	inVain := false
	for drv := range g.watch.running {
		switch {
		case g.lost[drv]: // Nix has not reported its end yet
		case f.deadHosts[f.node(drv).host] == "":
			return
		default:
			inVain = true
		}
	}
	if inVain {
		g.end()
	}
}

// firstLine returns the first line of foreign text, cut for a message.
func firstLine(said string) string {
	const longest = 300
	first, _, _ := strings.Cut(said, "\n")
	return text.Clip(first, longest)
}
