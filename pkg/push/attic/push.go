package attic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

const (
	// A request for missing paths has 35 bytes per path; servers take 2 MB, their
	// proxies 1 MB, and a database 32,000 parameters.
	batch = 1000
	// The description of an upload goes into a header if it is smaller than preambleFrom.
	preambleFrom = 4 << 10
	preambleMost = 1 << 20
	// Uploads of this many bytes wait for the server's consent, at the cost of a
	// round trip.
	consentFrom = 1 << 20
	// After so many failures of the server in a row, no more paths are tried.
	maxFailures = 16
)

// A Path is a valid store path, with its entry in the store's database.
type Path struct {
	StorePath  string
	NarHash    string   // SHA-256, base16
	NarSize    int64    // bytes
	References []string // store paths, with itself if it refers to itself
	Deriver    string   // store path, or empty
	CA         string   // content address, or empty
	Signatures []string // NAME:BASE64
}

// Stats count paths. Their sum is the number of different paths given to Push.
type Stats struct {
	Uploaded     int
	Deduplicated int // their NAR was known to the server, under another path or cache
	Present      int // in the cache before
	Filtered     int // signed by the key of an upstream cache
	Failed       int
	Bytes        int64 // of the uploaded NARs
}

// A PathError is the reason why a path was not pushed.
type PathError struct {
	StorePath string
	Err       error
}

func (e *PathError) Error() string { return fmt.Sprintf("push %s: %v", e.StorePath, e.Err) }

func (e *PathError) Unwrap() error { return e.Err }

// A PushError has the paths that were not pushed, in the order they were given.
type PushError struct {
	Cache  string
	Failed []*PathError
}

func (e *PushError) Error() string {
	text := fmt.Sprintf("Attic cache %s: %v", e.Cache, e.Failed[0])
	if more := len(e.Failed) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more paths)", more)
	}
	return text
}

// Unwrap returns the *PathErrors.
func (e *PushError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, failed := range e.Failed {
		errs[i] = failed
	}
	return errs
}

// Push uploads the paths that the cache lacks, several at a time, in the order
// given: with references first, a cancelled push leaves few paths without their
// references. After a path has failed, the others are still tried, unless the
// reason is the token (the error is ErrToken), or the server fails again and
// again. If paths fail, the error is a *PushError, and all other paths are in
// the cache or an upstream one.
func (c *Cache) Push(ctx context.Context, paths []Path, nar NAR) (Stats, error) {
	p := &push{cache: c, nar: nar}
	var items []*item
	seen := make(map[string]bool, len(paths))
	for i := range paths {
		path := &paths[i]
		if seen[path.StorePath] {
			continue
		}
		seen[path.StorePath] = true
		if slices.ContainsFunc(path.Signatures, c.signedUpstream) {
			p.stats.Filtered++
			continue
		}
		items = append(items, c.item(path))
	}
	if err := c.findMissing(ctx, items); err != nil {
		p.stats.Failed = len(items)
		return p.stats, fmt.Errorf("cannot ask Attic cache %s for missing paths: %w", c.options.Cache, err)
	}
	var group errgroup.Group
	group.SetLimit(c.options.Jobs)
	for _, item := range items {
		switch {
		case item.err != nil:
		case !item.missing:
			p.present()
		default:
			group.Go(func() error {
				item.err = p.item(ctx, item)
				return nil
			})
		}
	}
	_ = group.Wait() // the errors are in the items
	all := &PushError{Cache: c.options.Cache}
	for _, item := range items {
		if item.err != nil {
			all.Failed = append(all.Failed, &PathError{item.path.StorePath, item.err})
		}
	}
	p.stats.Failed = len(all.Failed)
	if p.stats.Failed > 0 {
		return p.stats, all
	}
	return p.stats, nil
}

func (c *Cache) signedUpstream(signature string) bool {
	name, _, _ := strings.Cut(signature, ":")
	return c.Upstream(name)
}

// item is a path to push.
type item struct {
	path    *Path
	hash    string
	info    []byte // JSON
	missing bool
	err     error
}

// narInfo is the description of an upload.
type narInfo struct {
	Cache      string   `json:"cache"`
	Hash       string   `json:"store_path_hash"`
	StorePath  string   `json:"store_path"`
	References []string `json:"references"` // base names, sorted
	System     *string  `json:"system"`
	Deriver    *string  `json:"deriver"` // base name
	Signatures []string `json:"sigs"`
	CA         *string  `json:"ca"`
	NarHash    string   `json:"nar_hash"` // sha256:<base16>
	NarSize    int64    `json:"nar_size"`
}

// From attic/src/nix_store/mod.rs.
var baseName = lazyregexp.New(`^[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+$`)

func (c *Cache) item(p *Path) *item {
	i := &item{path: p}
	base := path.Base(p.StorePath)
	if path.Dir(p.StorePath) != c.storeDir || !baseName().MatchString(base) {
		i.err = fmt.Errorf("it is not a store path in the cache's store %s", c.storeDir)
		return i
	}
	i.hash = base[:32]
	if hash, err := hex.DecodeString(p.NarHash); err != nil || len(hash) != sha256.Size {
		i.err = fmt.Errorf("its NAR hash is not valid: %q", p.NarHash)
		return i
	}
	if p.NarSize <= 0 {
		i.err = fmt.Errorf("its NAR's size is not valid: %d", p.NarSize)
		return i
	}
	info := narInfo{
		Cache:      c.options.Cache,
		Hash:       i.hash,
		StorePath:  p.StorePath,
		References: make([]string, 0, len(p.References)),
		Signatures: append([]string{}, p.Signatures...),
		NarHash:    "sha256:" + p.NarHash,
		NarSize:    p.NarSize,
	}
	for _, reference := range p.References {
		info.References = append(info.References, path.Base(reference))
	}
	slices.Sort(info.References)
	info.References = slices.Compact(info.References)
	if deriver := path.Base(p.Deriver); baseName().MatchString(deriver) { // or it is not known
		info.Deriver = &deriver
	}
	if p.CA != "" {
		info.CA = &p.CA
	}
	var err error
	if i.info, err = json.Marshal(info); err != nil {
		i.err = err
	} else if len(i.info) > preambleMost {
		i.err = fmt.Errorf("it has too many references: the description of %d bytes is longer than Attic takes", len(i.info))
	}
	return i
}

// findMissing asks the cache which of the items it lacks.
func (c *Cache) findMissing(ctx context.Context, items []*item) error {
	asked := slices.DeleteFunc(slices.Clone(items), func(i *item) bool { return i.err != nil })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.options.Jobs)
	for some := range slices.Chunk(asked, batch) {
		group.Go(func() error {
			hashes := make([]string, len(some))
			for n, item := range some {
				hashes[n] = item.hash
			}
			missing, err := c.missing(ctx, hashes, c.options.Retries)
			for _, item := range some {
				item.missing = missing[item.hash]
			}
			return err
		})
	}
	return group.Wait()
}

func (c *Cache) missing(ctx context.Context, hashes []string, retries int) (map[string]bool, error) {
	question := struct {
		Cache  string   `json:"cache"`
		Hashes []string `json:"store_path_hashes"`
	}{c.options.Cache, hashes}
	var answer struct {
		Missing *[]string `json:"missing_paths"`
	}
	err := c.ask(ctx, call{method: http.MethodPost, name: "get-missing-paths", json: question, retries: retries}, &answer)
	if err == nil && answer.Missing == nil {
		err = errors.New("the server's answer has no missing_paths: is the address that of an Attic server?")
	}
	if err != nil {
		return nil, err
	}
	missing := make(map[string]bool, len(*answer.Missing))
	for _, hash := range *answer.Missing {
		missing[hash] = true
	}
	return missing, nil
}

// upload sends an item. It reports whether the server knew the NAR before.
func (c *Cache) upload(ctx context.Context, i *item, nar NAR) (known bool, err error) {
	body := &upload{path: i.path, open: nar}
	header := http.Header{}
	if len(i.info) < preambleFrom {
		header.Set("X-Attic-Nar-Info", string(i.info))
		if i.path.NarSize >= consentFrom {
			header.Set("Expect", "100-continue")
		}
	} else {
		header.Set("X-Attic-Nar-Info-Preamble-Size", strconv.Itoa(len(i.info)))
		body.preamble = i.info
	}
	var answer struct {
		Kind string `json:"kind"`
	}
	err = c.ask(ctx, call{
		method: http.MethodPut, name: "upload-path", header: header, upload: body, retries: c.options.Retries,
		arrived: func() bool {
			missing, err := c.missing(ctx, []string{i.hash}, 0)
			return err == nil && !missing[i.hash]
		},
	}, &answer)
	if errors.Is(err, errArrived) {
		return false, nil
	}
	return answer.Kind == "Deduplicated", err
}

// push is the state of a Push.
type push struct {
	cache *Cache
	nar   NAR

	mu     sync.Mutex
	stats  Stats
	inARow int   // failures of the server
	ended  error // the reason why no more paths are tried
}

func (p *push) present() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Present++
}

// item uploads an item, and ends the push if no other can succeed.
func (p *push) item(ctx context.Context, i *item) error {
	if err := p.mayTry(ctx); err != nil {
		return fmt.Errorf("not tried: %w", err)
	}
	known, err := p.cache.upload(ctx, i, p.nar)

	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.inARow = 0
		if known {
			p.stats.Deduplicated++
		} else {
			p.stats.Uploaded++
			p.stats.Bytes += i.path.NarSize
		}
	case errors.Is(err, ErrToken):
		p.ended = err
	case isTrouble(err):
		if p.inARow++; p.inARow == maxFailures && p.ended == nil {
			p.ended = fmt.Errorf("the server failed %d paths in a row", maxFailures)
		}
	}
	return err
}

func (p *push) mayTry(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// isTrouble reports whether an upload failed for a reason that other paths share.
func isTrouble(err error) bool {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.Status >= 500 || refused.Status == http.StatusTooManyRequests
	}
	var unreadable *narError
	return !errors.As(err, &unreadable)
}
