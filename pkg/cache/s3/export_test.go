package s3

import (
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

func (b *Bucket) core(t *testing.T) *minio.Core {
	t.Helper()
	core, err := newCore(&b.config)
	if err != nil {
		t.Fatal(err)
	}
	return core
}

// Names returns the names of all objects, of uploads that were begun too, that end in a key.
func (b *Bucket) Names(t *testing.T, key string) []string {
	t.Helper()
	var names []string
	add := func(name string) {
		if strings.HasSuffix(name, "/"+key) {
			names = append(names, name)
		}
	}
	for o := range b.core(t).ListObjectsIter(t.Context(), b.config.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		add(o.Key)
	}
	for u := range b.core(t).ListIncompleteUploads(t.Context(), b.config.Bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		add(u.Key + " (begun)")
		add(u.Key)
	}
	return names
}

// Put makes an object of any name.
func (b *Bucket) Put(t *testing.T, name, text string) {
	t.Helper()
	_, err := b.core(t).Client.PutObject(t.Context(), b.config.Bucket, name, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// Permit sets the policy of the bucket.
func (b *Bucket) Permit(t *testing.T, policy string) {
	t.Helper()
	if err := b.core(t).SetBucketPolicy(t.Context(), b.config.Bucket, policy); err != nil {
		t.Fatal(err)
	}
}

var (
	ContentRange = contentRange
	ObjectName   = objectName
	KeyOf        = keyOf
	SplitName    = splitName
)
