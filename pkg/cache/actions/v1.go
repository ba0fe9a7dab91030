package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

type v1 struct {
	config Config
	*caller
}

type (
	reserveRequest struct {
		Key     string `json:"key"`
		Version string `json:"version"`
		Size    int64  `json:"cacheSize"`
	}
	reserveAnswer struct {
		ID int64 `json:"cacheId"`
	}
	commitRequest struct {
		Size int64 `json:"size"`
	}
	cacheEntry struct {
		Key     string `json:"cacheKey"`
		Archive string `json:"archiveLocation"`
	}
)

func (s *v1) call(name, method, path string) call {
	return call{name: name, Call: httpcall.Call{
		Method:  method,
		Address: strings.TrimSuffix(s.config.URL, "/") + "/_apis/artifactcache/" + path,
		Header:  http.Header{"Accept": {"application/json;api-version=6.0-preview.1"}},
	}}
}

func (s *v1) find(ctx context.Context, key string, prefixes []string) (entry, bool, error) {
	keys := append([]string{key}, prefixes...)
	query := url.Values{"keys": {strings.Join(keys, ",")}, "version": {s.config.Version}}
	var answer cacheEntry
	if err := s.ask(ctx, s.call("look up", http.MethodGet, "cache?"+query.Encode()), &answer); err != nil {
		return entry{}, false, err
	}
	return entry{answer.Key, answer.Archive}, answer.Archive != "", nil
}

func (s *v1) save(ctx context.Context, key string, body *source) error {
	if !s.config.DenyRead {
		// act does not refuse to reserve a key twice.
		switch e, ok, err := s.find(ctx, key, nil); {
		case err != nil && !errors.Is(err, cache.ErrReadOnly):
			return err
		case ok && e.key == key:
			return cache.ErrExists
		}
	}
	size, _, err := body.Grown(ctx, math.MaxInt64)
	if err != nil {
		return err
	}
	reserve := s.call("reserve", http.MethodPost, "caches")
	reserve.JSON, reserve.creates = reserveRequest{key, s.config.Version, size}, true
	var reserved reserveAnswer
	if err := s.ask(ctx, reserve, &reserved); err != nil {
		return err
	}
	if reserved.ID == 0 {
		return errors.New("reserve: the server's answer has no number")
	}
	path := fmt.Sprintf("caches/%d", reserved.ID)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(s.config.Parallel)
	for offset := int64(0); offset < size && groupCtx.Err() == nil; offset += s.config.BlockSize {
		group.Go(func() error {
			upload := s.call("upload", http.MethodPatch, path)
			upload.upload(io.NewSectionReader(body, offset, min(s.config.BlockSize, size-offset)))
			upload.Header.Set("Content-Type", "application/octet-stream")
			upload.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", offset, offset+upload.Size-1))
			return s.ask(groupCtx, upload, nil)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	commit := s.call("commit", http.MethodPost, path)
	commit.JSON = commitRequest{size}
	return s.ask(ctx, commit, nil)
}
