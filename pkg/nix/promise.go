package nix

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// A NoAnswerError says which substituters don't answer. It is returned with the answers of the
// others.
type NoAnswerError struct {
	Substituters []string
	warning      string
}

func (e *NoAnswerError) Error() string {
	all := make([]string, len(e.Substituters))
	for i, substituter := range e.Substituters {
		all[i] = Redact(substituter)
	}
	return fmt.Sprintf("no answer from %s: %s", strings.Join(all, ", "), e.warning)
}

// AnswerTimeout is how long a binary cache may take to answer a query, in each of two attempts.
// Nix's own timeout of many minutes is meant for downloads.
var AnswerTimeout = 10 * time.Second

// asked makes Nix query a binary cache rather than use remembered answers, because its paths
// can be deleted.
var asked = []Option{Set("narinfo-cache-positive-ttl", "0"), Set("narinfo-cache-negative-ttl", "0")}

// recently makes Nix use the answers of the last minute.
var recently = []Option{Set("narinfo-cache-positive-ttl", "60"), Set("narinfo-cache-negative-ttl", "60")}

// remembered makes Nix use all remembered answers.
var remembered = []Option{Set("narinfo-cache-positive-ttl", "604800"), Set("narinfo-cache-negative-ttl", "604800")}

// Remember returns the same Nix that sends each query to substituters once and keeps the answers
// in the directory dir, which is empty at first. If dir is "", Nix repeats its queries.
func (n *Nix) Remember(dir string) *Nix {
	with := *n
	if with.answers = dir; dir != "" {
		with.err = cmp.Or(n.err, fileName(dir))
	}
	return &with
}

// queries is how many queries a substituter gets at once, unless the user has set
// http-connections: more than downloads, because each is small.
const queries = 64

// asking returns the settings for a query.
func (n *Nix) asking(how []Option) *arguments {
	if n.answers != "" {
		how = remembered
	}
	seconds := strconv.Itoa(max(1, int(AnswerTimeout.Seconds())))
	how = append(slices.Clip(how), Set("connect-timeout", seconds), Set("stalled-download-timeout", seconds), Set("download-attempts", "2"))
	const initial = "25"
	if string(n.config["http-connections"].Value) == initial {
		how = append(how, Set("http-connections", strconv.Itoa(queries)))
	}
	return args().settings(how...)
}

// query prepares a program that queries substituters.
func (n *Nix) query(ctx context.Context, program literal, with *arguments) *child.Cmd {
	cmd := n.commandWithCredentials(ctx, program, with)
	if n.answers != "" {
		cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+n.answers, "NIX_CACHE_HOME="+n.answers)
	}
	return cmd
}

// muted matches Nix's warning about a binary cache without which it goes on.
var muted = lazyregexp.New(`(?m)^(?:warning: )?disabling binary cache '([^']*)'`)

// noAnswerError returns an error with the substituters that Nix's stderr says it went on
// without, or nil.
func noAnswerError(stderr string, substituters []string) error {
	stderr = text.Plain(stderr)
	e := &NoAnswerError{warning: lastWarning(redactText(stderr, substituters...))}
	for _, m := range muted().FindAllStringSubmatch(stderr, -1) {
		for _, substituter := range substituters {
			address, _, _ := strings.Cut(substituter, "?")
			same := len(substituters) == 1 || strings.TrimRight(address, "/") == strings.TrimRight(m[1], "/")
			if same && !slices.Contains(e.Substituters, substituter) {
				e.Substituters = append(e.Substituters, substituter)
			}
		}
	}
	if e.Substituters == nil {
		return nil
	}
	return e
}

// lastWarning returns the last warning in Nix's stderr.
func lastWarning(stderr string) string {
	const longest = 300
	last := ""
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "warning: "); ok {
			last = text
		}
	}
	return last[:min(len(last), longest)]
}

// SubstitutableClosures returns the paths whose whole closures the substituters have together.
// If substituters don't answer, the error is a *NoAnswerError.
func (n *Nix) SubstitutableClosures(ctx context.Context, paths []string, substituters ...string) (map[string]bool, error) {
	q, err := n.inquire(ctx, recently, substituters)
	if err != nil {
		return nil, err
	}
	fetched, lacking, err := q.missing(paths)
	q.Close()
	mute := q.noAnswer()
	if err != nil {
		return nil, err
	}
	var known map[string]PathInfo
	if len(lacking) > 0 {
		if known, err = n.substitutableInfo(ctx, fetched, substituters); err != nil {
			return nil, err
		}
	}
	broken := map[string]bool{}
	var isBroken func(path string) bool
	isBroken = func(path string) bool {
		is, seen := broken[path]
		if seen {
			return is
		}
		info, found := known[path]
		is = lacking[path] || !found && known != nil
		broken[path] = is // in case it refers to itself
		for _, reference := range info.References {
			is = isBroken(reference) || is
		}
		broken[path] = is
		return is
	}
	whole := map[string]bool{}
	for _, path := range paths {
		if fetched[path] && !isBroken(path) {
			whole[path] = true
		}
	}
	return whole, mute
}

// substitutableInfo returns the metadata of the paths that the substituters have.
func (n *Nix) substitutableInfo(ctx context.Context, paths map[string]bool, substituters []string) (map[string]PathInfo, error) {
	known := map[string]PathInfo{}
	for _, substituter := range substituters {
		var ask []string
		for path := range paths {
			if known[path].Path == "" {
				ask = append(ask, path)
			}
		}
		for _, piece := range chunks(ask) {
			with := n.asking(recently).add("path-info", "--json")
			if n.HasJSONFormat() {
				with.add("--json-format", "1")
			}
			cmd := n.query(ctx, "nix", with.add("--store").checked(valid.Address, substituter).operands(valid.StorePath, piece...))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, io.Discard
			if err := n.run(cmd); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				continue // another one may have them
			}
			infos, err := parsePathInfo(out.Bytes())
			if err != nil {
				return nil, fmt.Errorf("cannot read nix path-info: %w", err)
			}
			for path, info := range infos {
				if info.NarHash != "" { // else the substituter lacks the path
					known[path] = info
				}
			}
		}
	}
	return known, nil
}

// undelivered matches Nix's errors about a file that a binary cache lists but lacks. An Attic
// server whose storage lacks the file returns an internal error.
var undelivered = lazyregexp.New(`does not exist in binary cache|HTTP error (?:403|404|500)\b`)

// Delivers reports whether a binary cache has the contents of a path that it lists. Nix begins
// to download them, and is stopped.
func (n *Nix) Delivers(ctx context.Context, substituter, path string) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	with := n.asking(recently).add("store", "dump-path", "--store").checked(valid.Address, substituter)
	cmd := n.query(ctx, "nix", with.operands(valid.StorePath, path))
	stderr := &tail{limit: 4 << 10}
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	_, reading := io.ReadFull(out, make([]byte, 1))
	if reading == nil {
		cancel()
		_ = out.Close()
		_ = cmd.Wait() // it was stopped
		return true, nil
	}
	err = failure(cmd, cmd.Wait(), stderr.String())
	switch {
	case undelivered().MatchString(text.Plain(stderr.String())):
		return false, nil
	case err == nil:
		err = errors.New("it is empty")
	}
	return false, fmt.Errorf("cannot query %s: %w", path, redactErr(err, substituter))
}

// removeAll removes a directory with a store, whose directories may be read-only.
func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory of ours
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
