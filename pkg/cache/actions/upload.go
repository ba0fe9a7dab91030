package actions

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// upload makes an Azure block blob at the signed address: with one request if
// it is small, else of blocks that travel in parallel and are committed last.
func (s *v2) upload(ctx context.Context, address string, body *source) error {
	sends := &http.Client{Transport: s.config.Transport}
	client, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: sends,
		Telemetry: policy.TelemetryOptions{ApplicationID: httpcall.UserAgent},
		Retry: policy.RetryOptions{
			MaxRetries:    orNegative(s.config.Retries),
			RetryDelay:    s.config.Wait,
			MaxRetryDelay: s.config.Timeout,
			TryTimeout:    blockTimeout,
		},
		PerRetryPolicies: []policy.Policy{&uploadStalls{3 * s.config.Stall, sends, s.config.afterFunc}},
	}})
	if err != nil {
		return err
	}
	if body.size <= s.config.BlockSize {
		_, err := client.Upload(ctx, streaming.NopCloser(body.block(0, body.size)), nil)
		return err
	}
	blob := uuid.NewString()
	var ids []string
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(s.config.Parallel)
	for offset := int64(0); offset < body.size && groupCtx.Err() == nil; offset += s.config.BlockSize {
		id := blockID(blob, len(ids))
		ids = append(ids, id)
		group.Go(func() error {
			block := streaming.NopCloser(body.block(offset, s.config.BlockSize))
			_, err := client.StageBlock(groupCtx, id, block, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = client.CommitBlockList(ctx, ids, nil)
	return err
}

// blockID returns an id of the official client's form. Azure takes any, but servers that
// imitate it read the number in it.
func blockID(blob string, number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s%012d", blob, number))
}

// orNegative returns a number of retries for the Azure SDK: 0 stands for its default, less
// than 0 for none.
func orNegative(retries int) int32 {
	if retries <= 0 {
		return -1
	}
	return int32(min(retries, math.MaxInt32))
}
