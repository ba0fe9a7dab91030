package s3

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
)

const (
	// markName is the metadata by which a save knows the object that it has created.
	markName = "nix-matrix-save"
	// probeName ends the name of the object with which a process finds out what the server honours.
	probeName = ".conditional"
	// reserved begins the name, in its scope, of the object that reserves a key.
	reserved = ".reserved/"
	// cleanTime is how long a failed save may take to remove what it has left.
	cleanTime = 30 * time.Second
	// probeTime is how long it may take to find out what the server honours.
	probeTime = time.Minute
)

// A creation is how a server creates objects.
type creation int

const (
	creationUnknown     creation = iota
	creationConditional          // it refuses to create an object that there is
	creationAnyway               // it replaces the object
)

// Save is of [cache.Cache].
func (c *scoped) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := cache.CheckSave(key, size); err != nil {
		return err
	}
	return c.saveBody(ctx, key, cache.Whole(body, size))
}

// SaveGrowing is of [cache.SaveGrowing].
func (c *scoped) SaveGrowing(ctx context.Context, key string, body cache.Growing) error {
	if err := cache.CheckKey(key); err != nil {
		return err
	}
	return c.saveBody(ctx, key, body)
}

func (c *scoped) saveBody(ctx context.Context, key string, body cache.Growing) error {
	err := ctx.Err()
	if err == nil && c.config.Credentials.Anonymous() {
		return fmt.Errorf("cannot save %s: %w", key, &readOnlyError{fmt.Errorf("there are no credentials for %s", c.config.Address)})
	}
	if err == nil {
		err = c.save(ctx, key, &source{Growing: body})
	}
	switch {
	case err == nil:
		return nil
	case isTaken(err):
		err = cache.ErrExists
	default:
		err = c.named(err)
	}
	if errors.Is(err, cache.ErrReadOnly) {
		c.warn("Nothing is saved in the S3 cache", err)
	}
	return fmt.Errorf("cannot save %s: %w", key, err)
}

func (c *scoped) save(ctx context.Context, key string, from *source) error {
	how, err := c.probe(ctx)
	if err != nil {
		return err
	}
	s := &saving{Bucket: c.Bucket, dir: c.dirs[0], name: c.dirs[0] + objectName(key), mark: rand.Text(), from: from, how: how}
	if s.size, _, err = from.Grown(ctx, c.config.PartSize+1); err != nil {
		return err
	}
	if s.size <= c.config.PartSize {
		return s.whole(ctx)
	}
	return s.parts(ctx)
}

// LastWins is of [cache.LastWins]. It asks the server unless that is known.
func (c *scoped) LastWins() bool {
	if c.config.Credentials.Anonymous() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	how, err := c.probe(ctx)
	return err == nil && how == creationAnyway
}

// probe finds out, once, how the server creates objects: it creates one twice.
func (c *scoped) probe(ctx context.Context) (creation, error) {
	c.probing.Lock()
	defer c.probing.Unlock()
	if c.creates != creationUnknown {
		return c.creates, nil
	}
	how := creationAnyway
	for range 2 { // the first time, it may not be there
		s := &saving{
			Bucket: c.Bucket, name: c.classDir(c.own) + probeName, mark: rand.Text(),
			from: &source{Growing: cache.Whole(strings.NewReader("1"), 1)}, size: 1, how: creationConditional,
		}
		err := s.put(ctx)
		if isTaken(err) {
			how = creationConditional
			break
		}
		if isUnsupported(err) {
			break
		}
		if err != nil {
			return creationUnknown, err
		}
	}
	c.creates = how
	if how == creationAnyway {
		c.warn("The S3 server does not create objects conditionally", errors.New(
			"it ignores If-None-Match, so jobs that save at the same time replace each other's objects; claims take some seconds longer. Use a server that honours it"))
	}
	return how, nil
}

// A saving creates one object.
type saving struct {
	*Bucket
	dir  string // of its scope
	name string
	mark string // by which it knows its object
	from *source
	size int64 // of what is there
	how  creation
}

// whole creates an object with one request.
func (s *saving) whole(ctx context.Context) error {
	if s.how == creationAnyway {
		if err := s.absent(ctx); err != nil {
			return err
		}
	}
	return s.put(ctx)
}

func (s *saving) options() minio.PutObjectOptions {
	o := minio.PutObjectOptions{
		UserMetadata: map[string]string{markName: s.mark}, ContentType: "application/octet-stream",
		DisableContentSha256: true,
	}
	if s.how == creationConditional {
		o.SetMatchETagExcept("*")
	}
	return o
}

// retry is that of the bucket, but ends with an error of the body.
func (s *saving) retry(ctx context.Context, what string, call func(try int) error) error {
	return s.Bucket.retry(ctx, what, func(try int) error {
		err := call(try)
		if failed := s.from.failed.Load(); err != nil && failed != nil {
			return &bodyError{*failed}
		}
		return err
	})
}

// put sends the object.
func (s *saving) put(ctx context.Context) error {
	err := s.retry(ctx, "put", func(try int) error {
		_, err := s.client.PutObject(ctx, s.config.Bucket, s.name, s.from.part(0, s.size), s.size, "", "", s.options())
		return s.unlessOwn(ctx, try, err)
	})
	if err != nil && answer(err) == nil && ctx.Err() == nil && s.own(ctx) {
		return nil // all answers were lost
	}
	return err
}

// unlessOwn returns the error of a creation, or nil if it was refused because an earlier try of it
// came through.
func (s *saving) unlessOwn(ctx context.Context, try int, err error) error {
	resp := answer(err)
	if try > 0 && resp != nil && (isTaken(err) || resp.StatusCode == http.StatusNotFound) && s.own(ctx) {
		return nil
	}
	return err
}

// own reports whether there is an object that this save has created.
func (s *saving) own(ctx context.Context) bool {
	info, err := s.client.StatObject(ctx, s.config.Bucket, s.name, minio.StatObjectOptions{})
	if err != nil {
		return false
	}
	for name, value := range info.UserMetadata {
		if strings.EqualFold(name, markName) && value == s.mark {
			return true
		}
	}
	return false
}

// absent returns [cache.ErrExists] if there is an object of that name.
func (s *saving) absent(ctx context.Context) error {
	err := s.retry(ctx, "head", func(int) error {
		_, err := s.client.StatObject(ctx, s.config.Bucket, s.name, minio.StatObjectOptions{})
		return err
	})
	switch {
	case err == nil:
		return cache.ErrExists
	case isMissing(err), isStatus(err, http.StatusForbidden): // who may write and not read finds out later
		return nil
	}
	return err
}

// parts creates an object of several parts, which is reserved meanwhile.
func (s *saving) parts(ctx context.Context) (err error) {
	if err := s.absent(ctx); err != nil { // before much is sent in vain
		return err
	}
	if s.how == creationConditional {
		reservation := &saving{
			Bucket: s.Bucket, name: s.dir + reserved + s.name[len(s.dir):], mark: s.mark,
			from: &source{Growing: cache.Whole(strings.NewReader("1"), 1)}, size: 1, how: s.how,
		}
		if err := reservation.reserve(ctx); err != nil {
			return err
		}
		defer s.clean(ctx, func(ctx context.Context) error { return s.remove(ctx, reservation.name) })
		if err := s.absent(ctx); err != nil { // another one was quicker, and has removed its reservation
			return err
		}
	}
	var id string
	options := s.options()
	err = s.retry(ctx, "start of an upload", func(int) error {
		o := minio.PutObjectOptions{UserMetadata: options.UserMetadata, ContentType: options.ContentType}
		id, err = s.client.NewMultipartUpload(ctx, s.config.Bucket, s.name, o)
		return err
	})
	if err != nil {
		return err
	}
	parts, err := s.send(ctx, id)
	if err == nil {
		err = s.complete(ctx, id, parts)
	}
	if err != nil {
		s.clean(ctx, func(ctx context.Context) error {
			return s.Bucket.retry(ctx, "abort", func(int) error {
				return s.client.AbortMultipartUpload(ctx, s.config.Bucket, s.name, id)
			})
		})
	}
	return err
}

// reserve creates the object that reserves a key, in place of one whose process was killed.
func (s *saving) reserve(ctx context.Context) error {
	err := s.put(ctx)
	if !isTaken(err) {
		return err
	}
	info, failed := s.client.StatObject(ctx, s.config.Bucket, s.name, minio.StatObjectOptions{})
	if failed != nil || time.Since(info.LastModified) < s.config.Reserve {
		return err
	}
	if err := s.remove(ctx, s.name); err != nil {
		return err
	}
	return s.put(ctx)
}

// send sends the parts.
func (s *saving) send(ctx context.Context, id string) ([]minio.CompletePart, error) {
	size := s.config.PartSize
	const most = 10_000 // that the protocol allows
	for s.size > size*most {
		size *= 2
	}
	var sent []*minio.CompletePart
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(s.config.Parallel)
	var err error
	for offset := int64(0); groupCtx.Err() == nil; offset += size {
		if s.size, _, err = s.from.Grown(groupCtx, offset+size); err != nil || offset >= s.size {
			break
		}
		length := min(size, s.size-offset)
		part := &minio.CompletePart{PartNumber: len(sent) + 1}
		sent = append(sent, part)
		group.Go(func() error {
			return s.retry(groupCtx, "part", func(int) error {
				done, err := s.client.PutObjectPart(groupCtx, s.config.Bucket, s.name, id, part.PartNumber, s.from.part(offset, length), length,
					minio.PutObjectPartOptions{DisableContentSha256: true})
				part.ETag = done.ETag
				return err
			})
		})
	}
	if err := cmp.Or(group.Wait(), err); err != nil {
		return nil, err
	}
	parts := make([]minio.CompletePart, len(sent))
	for i, part := range sent {
		parts[i] = *part
	}
	return parts, nil
}

// complete makes the object of the parts visible.
func (s *saving) complete(ctx context.Context, id string, parts []minio.CompletePart) error {
	options := minio.PutObjectOptions{}
	if s.how == creationConditional {
		options.SetMatchETagExcept("*")
	}
	call := func(try int) error {
		_, err := s.client.CompleteMultipartUpload(ctx, s.config.Bucket, s.name, id, parts, options)
		return s.unlessOwn(ctx, try, err)
	}
	err := s.retry(ctx, "end of an upload", call)
	if isUnsupported(err) && s.how == creationConditional {
		options = minio.PutObjectOptions{} // the reservation keeps others away
		err = s.retry(ctx, "end of an upload", call)
	}
	if err != nil && answer(err) == nil && ctx.Err() == nil && s.own(ctx) {
		return nil
	}
	return err
}

// clean removes what a save has left, also when its context has ended.
func (s *saving) clean(ctx context.Context, remove func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if err := remove(ctx); err != nil {
		s.config.Log.Info("a save in the S3 cache has left something", "object", s.name, "error", s.named(err))
	}
}
