package niks3

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// NAR opens the NAR of a path, uncompressed. It may be called by several goroutines.
type NAR func(ctx context.Context, storePath string) (io.ReadCloser, error)

// Stats count what a push has sent.
type Stats struct {
	Paths int   // that the cache lacked
	Bytes int64 // of their NARs
}

// The types of objects.
const (
	typeNarinfo = "narinfo"
	typeNAR     = "nar"
)

// object is a file of the cache, as the server wants to have it described.
type object struct {
	Key     string   `json:"key"`
	Type    string   `json:"type"`
	Refs    []string `json:"refs"`
	NarSize *int64   `json:"nar_size,omitempty"`
}

// pendingObject is an object that the bucket lacks.
type pendingObject struct {
	Type      string `json:"type"`
	Address   string `json:"presigned_url"`
	Multipart *struct {
		ID    string   `json:"upload_id"`
		Parts []string `json:"part_urls"`
	} `json:"multipart_info"`
}

// A PathError is the reason why a path was not pushed.
type PathError struct {
	StorePath string
	Err       error
}

func (e *PathError) Error() string { return fmt.Sprintf("push %s: %v", e.StorePath, e.Err) }

func (e *PathError) Unwrap() error { return e.Err }

// Push makes the closures of the roots complete in the cache, which keeps them until its garbage collection
// finds them too old. infos has all paths of the closures. After a root has failed, the others are still
// tried, unless the reason is one that they share. The Stats count what has arrived, with an error too.
func (c *Cache) Push(ctx context.Context, infos map[string]nix.PathInfo, roots []string, nar NAR) (Stats, error) {
	p := &push{cache: c, infos: infos, nar: nar}
	tops := p.tops(roots)
	var first error
	failed := 0
	for _, root := range tops {
		err := p.root(ctx, root)
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = &PathError{root, err}
		}
		if ctx.Err() != nil || !ofOne(err) {
			break
		}
	}
	if failed > 1 {
		first = fmt.Errorf("%w (and %d more paths)", first, failed-1)
	}
	return p.stats, first
}

// ofOne reports whether an error is about one path, and not about the token, the server or the storage.
func ofOne(err error) bool {
	var unreadable *narError
	status := Status(err)
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests:
		return false
	}
	return errors.As(err, &unreadable) || status >= 400 && status < 500
}

// push is the state of a Push.
type push struct {
	cache *Cache
	infos map[string]nix.PathInfo
	nar   NAR

	mu    sync.Mutex
	stats Stats
}

// tops returns the roots that are in no closure of another one, sorted, without those that are complete.
func (p *push) tops(roots []string) []string {
	roots = slices.Compact(slices.Sorted(slices.Values(roots)))
	inner := map[string]bool{}
	for _, root := range roots {
		if inner[root] {
			continue
		}
		for path := range p.closure(root, nil) {
			inner[path] = inner[path] || path != root
		}
	}
	p.cache.mu.Lock()
	defer p.cache.mu.Unlock()
	return slices.DeleteFunc(roots, func(root string) bool { return inner[root] || p.cache.done[root] })
}

// closure returns the paths that a root reaches, with itself, but not beyond those that are done.
func (p *push) closure(root string, done map[string]bool) map[string]bool {
	reached := map[string]bool{}
	next := []string{root}
	for len(next) > 0 {
		path := next[len(next)-1]
		next = next[:len(next)-1]
		if reached[path] || done[path] {
			continue
		}
		reached[path] = true
		next = append(next, p.infos[path].References...)
	}
	return reached
}

// pendingID is the id of a closure that is being pushed, which becomes part of an address.
var pendingID = lazyregexp.New(`^[A-Za-z0-9_-]{1,100}$`)

// root pushes the closure of a root.
func (p *push) root(ctx context.Context, root string) error {
	c := p.cache
	c.mu.Lock()
	done := maps.Clone(c.done)
	c.mu.Unlock()
	paths := p.closure(root, done)
	request := struct {
		Closure string   `json:"closure"`
		Objects []object `json:"objects"`
	}{Closure: narinfoKey(root)}
	types, of := map[string]string{}, map[string]*nix.PathInfo{} // by key
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		info, ok := p.infos[path]
		if !ok {
			return fmt.Errorf("the store does not know %s, to which it refers", path)
		}
		objects, err := objectsOf(&info)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if types[o.Key] == "" { // two paths may have the same NAR
				types[o.Key], of[o.Key] = o.Type, &info
				request.Objects = append(request.Objects, o)
			}
		}
	}
	var answer struct {
		ID      string                   `json:"id"`
		Pending map[string]pendingObject `json:"pending_objects"`
	}
	err := c.untilFree(ctx, func() error {
		return c.ask(ctx, call{method: http.MethodPost, name: "api/pending_closures", json: request}, &answer)
	})
	if err != nil {
		return err
	}
	if !pendingID().MatchString(answer.ID) {
		return fmt.Errorf("the server's answer has no id of the upload. Is the address that of a niks3 server?")
	}
	for key, pending := range answer.Pending {
		if want := types[key]; want == "" || pending.Type != "" && pending.Type != want {
			return fmt.Errorf("the server asks for an object that nobody offers: %s", valid.Quote(key))
		}
	}
	if err := p.upload(ctx, answer.Pending, types, of); err != nil {
		return err
	}
	closure := "api/pending_closures/" + answer.ID
	if err := p.describe(ctx, closure, answer.Pending, types, of); err != nil {
		return err
	}
	if err := c.ask(ctx, call{method: http.MethodPost, name: closure + "/complete", json: struct{}{}}, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.done, paths)
	return nil
}

// upload sends the NARs that the bucket lacks.
func (p *push) upload(ctx context.Context, pending map[string]pendingObject, types map[string]string, of map[string]*nix.PathInfo) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.cache.options.Jobs)
	for _, key := range slices.Sorted(maps.Keys(pending)) {
		if types[key] != typeNAR {
			continue
		}
		info, object := of[key], pending[key]
		group.Go(func() error {
			if err := p.cache.uploadNAR(ctx, key, info, &object, p.nar); err != nil {
				return fmt.Errorf("cannot upload the NAR of %s: %w", info.Path, err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.stats.Paths++
			p.stats.Bytes += info.NarSize
			return nil
		})
	}
	return group.Wait()
}

// describe has the server sign the narinfos that the bucket lacks, and uploads them.
func (p *push) describe(ctx context.Context, closure string, pending map[string]pendingObject, types map[string]string, of map[string]*nix.PathInfo) error {
	c := p.cache
	infos := map[string]*metadata{}
	for key := range pending {
		if types[key] == typeNarinfo {
			infos[key] = metadataOf(of[key])
		}
	}
	if len(infos) == 0 {
		return nil
	}
	var answer struct {
		Signatures map[string][]string `json:"signatures"`
	}
	request := struct {
		Narinfos map[string]*metadata `json:"narinfos"`
	}{infos}
	if err := c.ask(ctx, call{method: http.MethodPost, name: closure + "/sign", json: request}, &answer); err != nil {
		return fmt.Errorf("cannot have the paths signed: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.options.Jobs)
	for key, info := range infos {
		group.Go(func() error {
			text, err := info.narinfo(answer.Signatures[key])
			if err == nil {
				_, err = c.put(ctx, pending[key].Address, http.Header{"Content-Type": {"text/x-nix-narinfo"}, "Content-Encoding": {"zstd"}}, compressed(text))
			}
			if err != nil {
				return fmt.Errorf("cannot upload the narinfo of %s: %w", info.StorePath, err)
			}
			return nil
		})
	}
	return group.Wait()
}

const storeDir = "/nix/store"

// objectsOf returns the objects of a path: its narinfo and its NAR.
func objectsOf(info *nix.PathInfo) ([]object, error) {
	if err := valid.StorePath(info.Path); err != nil || path.Dir(info.Path) != storeDir {
		return nil, fmt.Errorf("%s is not a store path in %s, the store of the cache", valid.Quote(info.Path), storeDir)
	}
	if err := valid.All(valid.StorePath, info.References...); err != nil {
		return nil, err
	}
	hash, err := hex.DecodeString(info.NarHash)
	if err != nil || len(hash) != narHashSize || info.NarSize <= 0 {
		return nil, fmt.Errorf("the store has no NAR hash and size of %s", info.Path)
	}
	nar := narKey(hash)
	refs := []string{nar}
	for _, reference := range info.References {
		refs = append(refs, narinfoKey(reference))
	}
	return []object{
		{Key: narinfoKey(info.Path), Type: typeNarinfo, Refs: refs},
		{Key: nar, Type: typeNAR, Refs: []string{}, NarSize: &info.NarSize},
	}, nil
}

const narHashSize = 32 // bytes of SHA-256

func narKey(hash []byte) string { return "nar/" + nixbase32.EncodeToString(hash) + ".nar.zst" }

// narinfoKey returns the key of a store path's narinfo.
func narinfoKey(storePath string) string {
	hash, _, _ := strings.Cut(path.Base(storePath), "-")
	return hash + ".narinfo"
}
