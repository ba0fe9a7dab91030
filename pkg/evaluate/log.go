package evaluate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/text"
)

var (
	// fetchedPath matches Nix's line about a path that an import from a derivation needs.
	fetchedPath = lazyregexp.New(`^copying path '/nix/store/[^']+' from '`)
	// ignoredSetting matches Nix's warning about a setting in nixConfig, and configAdvice the next
	// line, whose advice nobody can follow here.
	ignoredSetting = lazyregexp.New(`ignoring untrusted flake configuration setting '([^'\n]+)'`)
	configAdvice   = lazyregexp.New(`^Pass '--accept-flake-config' to trust it`)
	// gitProgress matches the lines with which git fetch reports its progress, and the refs that
	// it has updated.
	gitProgress = lazyregexp.New(`^(?:remote: )?(?:Enumerating|Counting|Compressing|Receiving|Resolving|Unpacking|Updating|Filtering) (?:objects|deltas|files|content): ` +
		`|^remote: Total \d+ \(delta |^From \S+$` +
		`|^ [ *+t=-] (?:\[new (?:branch|tag|ref)\]|\[tag update\]|[0-9a-f]{7,64}\.{2,3}[0-9a-f]{7,64}|branch|tag) .* -> `)
)

// other handles a line of an evaluator that is no event. All lines from an error on are shown
// with the target or the error.
func (w *worker) other(line string) {
	line = text.Clip(line, maxLogLine)
	w.dying = w.dying || strings.HasPrefix(text.Plain(line), "error:")
	if w.dying {
		return
	}
	if fetchedPath().MatchString(line) {
		w.pool.fetched++
		return
	}
	if m := ignoredSetting().FindStringSubmatch(line); m != nil {
		w.pool.ignore(text.Clip(text.Line(m[1]), maxShown))
		return
	}
	if configAdvice().MatchString(line) {
		return
	}
	progress := false
	for part := range strings.SplitSeq(line, "\r") { // git overwrites its line
		part = text.Plain(part)
		switch {
		case gitProgress().MatchString(part):
			progress = true
		case strings.TrimSpace(part) != "" || !progress:
			w.log(part)
		}
	}
}

// Limits of the evaluators' own lines in the log.
const (
	maxLogLines = 5000    // in total
	maxLogLine  = 4 << 10 // bytes
)

// log logs a line that an evaluator has printed of its own, unless another one has printed it
// as often before.
func (w *worker) log(line string) {
	p := w.pool
	if p.logged > maxLogLines {
		return
	}
	w.lineCounts[line]++
	if w.lineCounts[line] <= p.lineCounts[line] {
		return
	}
	p.lineCounts[line] = w.lineCounts[line]
	if p.logged++; p.logged > maxLogLines {
		line = fmt.Sprintf("The evaluators print more than %d lines: the rest is not shown.", maxLogLines)
	}
	if p.o.Log != nil {
		p.o.Log(line)
	}
}

// cacheSettings are the settings in nixConfig that --accept-flake-config is about.
var cacheSettings = []string{"substituters", "extra-substituters", "trusted-public-keys", "extra-trusted-public-keys"}

// ignore notes a setting in nixConfig that Nix ignores.
func (d *evaluation) ignore(setting string) {
	const most = 1000
	used := d.o.UsesFlakeCaches && slices.Contains(cacheSettings, setting)
	if !used && len(d.ignored) < most && !slices.Contains(d.ignored, setting) {
		d.ignored = append(d.ignored, setting)
	}
}

// logNoise logs in a line each how many paths were fetched, and which settings of the flake are
// ignored.
func (d *evaluation) logNoise() {
	if d.o.Log == nil {
		return
	}
	if d.fetched > 0 {
		d.o.Log(fmt.Sprintf("fetched %s from substituters for the evaluation", text.Plural(d.fetched, "store path")))
	}
	if len(d.ignored) == 0 {
		return
	}
	line := "ignoring settings in the flake's nixConfig: " + someOf(d.ignored)
	if slices.ContainsFunc(d.ignored, func(setting string) bool { return slices.Contains(cacheSettings, setting) }) {
		line += ". To fetch from its binary caches, set --accept-flake-config (input accept_flake_config): each author of a change to flake.nix, in a pull request too, then chooses binary caches that the run trusts"
	}
	d.o.Log(line)
}
