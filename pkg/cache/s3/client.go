package s3

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// client has the requests that are sent, as functions: a value of the client's own type would bring
// all of its hundred methods into the program, 1.5 MB of them.
type client struct {
	GetObject               func(ctx context.Context, bucket, object string, o minio.GetObjectOptions) (io.ReadCloser, minio.ObjectInfo, http.Header, error)
	StatObject              func(ctx context.Context, bucket, object string, o minio.StatObjectOptions) (minio.ObjectInfo, error)
	ListObjectsIter         func(ctx context.Context, bucket string, o minio.ListObjectsOptions) iter.Seq[minio.ObjectInfo]
	RemoveObject            func(ctx context.Context, bucket, object string, o minio.RemoveObjectOptions) error
	PutObject               func(ctx context.Context, bucket, object string, data io.Reader, size int64, md5, sha256 string, o minio.PutObjectOptions) (minio.UploadInfo, error)
	NewMultipartUpload      func(ctx context.Context, bucket, object string, o minio.PutObjectOptions) (string, error)
	PutObjectPart           func(ctx context.Context, bucket, object, id string, part int, data io.Reader, size int64, o minio.PutObjectPartOptions) (minio.ObjectPart, error)
	CompleteMultipartUpload func(ctx context.Context, bucket, object, id string, parts []minio.CompletePart, o minio.PutObjectOptions) (minio.UploadInfo, error)
	AbortMultipartUpload    func(ctx context.Context, bucket, object, id string) error
}

// newCore returns the client of a config.
func newCore(c *Config) (*minio.Core, error) {
	creds := credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	if !c.Credentials.Anonymous() {
		creds = credentials.New(&credentials.Static{Value: *c.Credentials.secret})
	}
	core, err := minio.NewCore(cmp.Or(c.Endpoint, "s3.amazonaws.com"), &minio.Options{
		Creds: creds, Secure: !c.Plain, Region: c.Region, MaxRetries: 1,
		Transport: &transport{next: c.Transport, stall: c.Stall},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use the endpoint %s: %w", c.Endpoint, err)
	}
	core.SetAppInfo(httpcall.UserAgent, "1")
	return core, nil
}

func newClient(core *minio.Core) client {
	return client{
		GetObject: core.GetObject, StatObject: core.StatObject, ListObjectsIter: core.ListObjectsIter, RemoveObject: core.RemoveObject,
		PutObject: core.PutObject, NewMultipartUpload: core.NewMultipartUpload, PutObjectPart: core.PutObjectPart,
		CompleteMultipartUpload: core.CompleteMultipartUpload, AbortMultipartUpload: core.AbortMultipartUpload,
	}
}
