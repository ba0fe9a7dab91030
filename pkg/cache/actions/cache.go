package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/org/nix-matrix/pkg/cache"
)

// service is the part in which the two protocols differ.
type service interface {
	// find asks for key, exactly or as a prefix, then for the prefixes in order.
	find(ctx context.Context, key string, prefixes []string) (e entry, ok bool, err error)
	save(ctx context.Context, key string, body *source) error
}

// entry is an entry that the service has. The address to download it from is a secret.
type entry struct{ key, address string }

type client struct {
	config   Config
	invalid  error
	service  service
	download *http.Client
	budget   budget
}

// New returns the cache of a config. An invalid config makes every use of the cache
// fail.
func New(config Config) cache.Cache {
	config = config.withDefaults()
	calls := newCaller(config)
	c := &client{
		config:   config,
		invalid:  config.check(),
		download: &http.Client{Transport: config.Transport},
		budget:   budget{free: config.Prefetch, idle: config.Parallel},
	}
	if config.Protocol == V1 {
		c.service = &v1{config, calls}
	} else {
		c.service = newV2(config, calls)
	}
	return c
}

// Format prints the config.
func (c *client) Format(f fmt.State, verb rune) { c.config.Format(f, verb) }

func (c *client) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := c.may(c.config.DenyRead, cache.CheckOpen(key, prefixes)); err != nil {
		return nil, err
	}
	e, err := c.find(ctx, key, prefixes)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", key, err)
	}
	b := c.blob(&e)
	if err := b.measure(ctx, 0, c.config.Small); err != nil {
		return nil, err
	}
	return b, nil
}

func (c *client) blob(e *entry) *blob {
	return &blob{client: c, key: e.key, address: &e.address, size: unknown, renewing: make(chan struct{}, 1)}
}

// OpenTail is of [cache.OpenTail].
func (c *client) OpenTail(ctx context.Context, key string, size, tail int64) (cache.Blob, error) {
	if err := c.may(c.config.DenyRead, cache.CheckOpen(key, nil)); err != nil {
		return nil, err
	}
	e, err := c.find(ctx, key, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", key, err)
	}
	b := c.blob(&e)
	if tail = min(max(tail, 1), size); size <= c.config.Small {
		tail = size
	}
	err = b.measure(ctx, size-tail, tail)
	if b.size != unknown && b.size != size || errors.Is(err, io.ErrUnexpectedEOF) && b.size == unknown {
		return nil, cache.WrongSize(key, max(b.size, 0), size)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (c *client) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := c.may(c.config.DenyWrite, cache.CheckSave(key, size)); err != nil {
		return err
	}
	return c.save(ctx, key, cache.Whole(body, size))
}

// SaveGrowing is of [cache.SaveGrowing]. v1 must know the size before.
func (c *client) SaveGrowing(ctx context.Context, key string, body cache.Growing) error {
	if err := c.may(c.config.DenyWrite, cache.CheckKey(key)); err != nil {
		return err
	}
	if c.config.Protocol == V1 {
		return fmt.Errorf("cannot save %s before it is complete: %w", key, errors.ErrUnsupported)
	}
	return c.save(ctx, key, body)
}

func (c *client) save(ctx context.Context, key string, body cache.Growing) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source := &source{Growing: body, cancel: cancel}
	if err := c.service.save(ctx, key, source); err != nil {
		if failure := source.failure.Load(); failure != nil {
			err = *failure
		}
		return fmt.Errorf("cannot save %s: %w", key, err)
	}
	return nil
}

// LastWins is of [cache.LastWins]: act, which speaks v1, does not refuse to reserve a key twice.
func (c *client) LastWins() bool { return c.config.Protocol == V1 }

// may returns an error if the service need not be asked.
func (c *client) may(denied bool, keys error) error {
	switch {
	case c.invalid != nil:
		return c.invalid
	case keys != nil:
		return keys
	case denied:
		return fmt.Errorf("the job's token or its cache mode does not allow it: %w", cache.ErrReadOnly)
	}
	return nil
}

// find holds the service to the contract. Some servers take the key for a prefix too, and
// so does each that gets it among the prefixes. If that hides the entry that the
// prefixes alone would find, they take another request.
func (c *client) find(ctx context.Context, key string, prefixes []string) (entry, error) {
	e, ok, err := c.service.find(ctx, key, prefixes)
	if err == nil && ok && e.key != key && strings.HasPrefix(e.key, key) && len(prefixes) > 0 {
		e, ok, err = c.service.find(ctx, prefixes[0], prefixes[1:])
	}
	if err != nil {
		return entry{}, err
	}
	if ok && e.key == key {
		return e, nil
	}
	for _, prefix := range prefixes {
		if ok && strings.HasPrefix(e.key, prefix) {
			return e, nil
		}
	}
	return entry{}, cache.ErrMiss
}

// source is the body of a save. Its first failure ends the save, because no retry makes a
// body readable.
type source struct {
	cache.Growing
	cancel  context.CancelFunc // of the save
	failure atomic.Pointer[error]
}

func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.Growing.ReadAt(p, offset)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	err = fmt.Errorf("cannot read the blob: %w", err)
	s.failure.CompareAndSwap(nil, &err)
	s.cancel()
	return n, err
}
