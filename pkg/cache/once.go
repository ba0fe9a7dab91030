package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// tries is how many keys SaveOnce has for a blob.
const tries = 5

// SaveOnce stores a blob whose key is made from its content, and returns its key. A key may be
// lost, because another job reserved it and never finished, or taken by another blob. So there
// are several, one for each try, and a blob under a taken key counts if same reports that it is
// the same.
func SaveOnce(ctx context.Context, to Cache, key func(try int) string, body io.ReaderAt, size int64, same func(Blob) bool) (string, error) {
	for try := range tries {
		k := key(try)
		err := to.Save(ctx, k, body, size)
		if err == nil {
			return k, nil
		}
		if !errors.Is(err, ErrExists) {
			return "", err
		}
		if blob, err := to.Open(ctx, k); err == nil && same(blob) {
			return k, nil
		}
	}
	return "", fmt.Errorf("%w: all of %s to %s", ErrExists, key(0), key(tries-1))
}
