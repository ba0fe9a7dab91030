package actions

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// storageVersion is the version of Azure's protocol for blobs that uploads speak: three requests of it.
const storageVersion = "2021-12-02"

// upload makes an Azure block blob at the signed address, and returns its size: with one request if
// it is small, else of blocks that travel in parallel and are committed last.
func (s *v2) upload(ctx context.Context, address string, body *source) (int64, error) {
	size, _, err := body.Grown(ctx, s.config.BlockSize+1)
	if err != nil {
		return 0, err
	}
	if size <= s.config.BlockSize {
		return size, s.put(ctx, address, "", io.NewSectionReader(body, 0, size))
	}
	blob := uuid.NewString()
	var ids []string
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(s.config.Parallel)
	for offset := int64(0); groupCtx.Err() == nil; offset += s.config.BlockSize {
		if size, _, err = body.Grown(groupCtx, offset+s.config.BlockSize); err != nil || offset >= size {
			break
		}
		id := blockID(blob, len(ids))
		ids = append(ids, id)
		block := io.NewSectionReader(body, offset, min(s.config.BlockSize, size-offset))
		group.Go(func() error {
			return s.put(groupCtx, address, "comp=block&blockid="+url.QueryEscape(id), block)
		})
	}
	if err := cmp.Or(group.Wait(), err); err != nil {
		return 0, err
	}
	list := strings.NewReader(`<?xml version="1.0" encoding="utf-8"?><BlockList><Latest>` + strings.Join(ids, "</Latest><Latest>") + "</Latest></BlockList>")
	return size, s.put(ctx, address, "comp=blocklist", io.NewSectionReader(list, 0, list.Size()))
}

// put sends a blob, or, as the operation says, a block or the list of blocks. The address has a query, which is signed.
func (s *v2) put(ctx context.Context, address, operation string, body *io.SectionReader) error {
	to := call{Call: httpcall.Call{Method: http.MethodPut, Address: address, Header: http.Header{
		"Content-Type": {"application/octet-stream"},
		"X-Ms-Version": {storageVersion},
	}}}
	if operation == "" {
		to.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	} else {
		to.Address += "&" + operation
	}
	to.upload(body)
	policy := &httpcall.Policy{
		Retries:  s.config.Retries,
		Pause:    httpcall.Exponential(s.config.Wait, s.config.Timeout),
		Spread:   true,
		MaxPause: s.config.Timeout,
		Failed: func(_ *http.Response, err error, _ time.Duration) {
			s.config.Log.Info("the storage of the Actions cache failed", "error", err)
		},
	}
	return policy.Ask(ctx, s.stores, to.Call, nil, func(resp *http.Response, _ []byte) error {
		return &storageError{httpcall.NewStatusError(resp, resp.Header.Get("X-Ms-Error-Code"), "", "")}
	})
}

// A storageError is an answer of the blob storage that says no.
type storageError struct{ *httpcall.StatusError }

func (e *storageError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the blob storage answers %d %s", e.Status, e.Code))
}

// blockID returns an id of the official client's form. Azure takes any, but servers that
// imitate it read the number in it.
func blockID(blob string, number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s%012d", blob, number))
}
