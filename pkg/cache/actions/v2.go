package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

type v2 struct {
	config Config
	*caller
	stores *http.Client // of uploads
}

func newV2(config Config, calls *caller) *v2 {
	// Sent bytes may still wait in the buffers of a slow line, hence the longer time.
	return &v2{config, calls, &http.Client{Transport: &httpcall.Transport{
		Next: config.Transport, Stall: 3 * config.Stall, MaxAnswer: maxAnswer, AfterFunc: config.afterFunc,
	}}}
}

// FinalizeCacheEntryUpload takes the fields of CreateCacheEntry and the size, which as an
// int64 of protobuf's JSON is a string.
type (
	createRequest struct {
		Key     string `json:"key"`
		Version string `json:"version"`
	}
	createAnswer struct {
		OK        bool   `json:"ok"`
		UploadURL string `json:"signed_upload_url"`
		Message   string `json:"message"`
	}
	finalizeRequest struct {
		Key     string `json:"key"`
		Version string `json:"version"`
		Size    string `json:"size_bytes"`
	}
	finalizeAnswer struct {
		OK      bool   `json:"ok"`
		Message string `json:"message"`
	}
	findRequest struct {
		Key      string   `json:"key"`
		Prefixes []string `json:"restore_keys"`
		Version  string   `json:"version"`
	}
	findAnswer struct {
		OK          bool   `json:"ok"`
		DownloadURL string `json:"signed_download_url"`
		Key         string `json:"matched_key"`
	}
)

func (s *v2) call(ctx context.Context, method string, request, answer any) error {
	return s.ask(ctx, call{
		Call: httpcall.Call{
			Method:  http.MethodPost,
			Address: strings.TrimSuffix(s.config.URL, "/") + "/twirp/github.actions.results.api.v1.CacheService/" + method,
			Header:  http.Header{},
			JSON:    request,
		},
		name:    method,
		creates: method == "CreateCacheEntry",
	}, answer)
}

// find sends the key as the first prefix too, because sources differ on whether the key
// alone counts.
func (s *v2) find(ctx context.Context, key string, prefixes []string) (entry, bool, error) {
	var answer findAnswer
	request := findRequest{key, append([]string{key}, prefixes...), s.config.Version}
	if err := s.call(ctx, "GetCacheEntryDownloadURL", request, &answer); err != nil {
		return entry{}, false, err
	}
	return entry{answer.Key, answer.DownloadURL}, answer.OK && answer.DownloadURL != "", nil
}

func (s *v2) save(ctx context.Context, key string, body *source) error {
	var created createAnswer
	if err := s.call(ctx, "CreateCacheEntry", createRequest{key, s.config.Version}, &created); err != nil {
		return err
	}
	if !created.OK {
		return fmt.Errorf("CreateCacheEntry: %w", s.notOK(created.Message))
	}
	start := time.Now()
	size, err := s.upload(ctx, created.UploadURL, body)
	if err != nil {
		var refused *storageError
		if errors.As(err, &refused) && refused.Status == http.StatusForbidden {
			// There is no way to get another address for a reserved key.
			return fmt.Errorf("upload: %w after %s; an address for uploads is valid for about an hour", err, time.Since(start).Round(time.Second))
		}
		return fmt.Errorf("upload: %w", err)
	}
	return s.finalize(ctx, key, size)
}

// finalize repeats the call while the service does not know the uploaded blob yet. If it
// fails, a lookup shows whether the entry exists nevertheless, by a try whose answer was
// lost.
func (s *v2) finalize(ctx context.Context, key string, size int64) error {
	var answer finalizeAnswer
	request := finalizeRequest{key, s.config.Version, strconv.FormatInt(size, 10)}
	var err error
	for try := range s.config.Retries + 1 {
		if try > 0 {
			if err := httpcall.Sleep(ctx, httpcall.Linear(2*s.config.Wait)(try-1)); err != nil {
				return err
			}
		}
		if err = s.call(ctx, "FinalizeCacheEntryUpload", request, &answer); !isNotFound(err) {
			break
		}
	}
	if err == nil && !answer.OK {
		err = fmt.Errorf("FinalizeCacheEntryUpload: %w", s.notOK(answer.Message))
	}
	if err != nil {
		if e, ok, _ := s.find(ctx, key, nil); ok && e.key == key {
			return nil
		}
	}
	return err
}

func isNotFound(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}
