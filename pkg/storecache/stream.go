package storecache

import (
	"context"
	"io"

	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// addressed reports whether all paths of a segment have a content address, so that no store refuses them.
func (s *segment) addressed() bool {
	for _, n := range s.records {
		if s.pack.Index.Records[n].CA == "" {
			return false
		}
	}
	return true
}

// stream adds the paths of a segment without waiting for the store after each: derivations are many and
// small.
func (w *transfer) stream(ctx context.Context, to engine.Streamer, f *fetch, records *pack.Reader) error {
	from := []*Pack{f.pack}
	left := len(f.records)
	sent := map[string]bool{}
	next := func() (nix.PathInfo, io.Reader, error) {
		for ; left > 0; left-- {
			rec, err := records.Next()
			if err != nil {
				return nix.PathInfo{}, nil, err
			}
			info := pathInfo(rec)
			if ok, err := w.ready(ctx, &info, sent); err != nil {
				return info, nil, err
			} else if !ok {
				continue
			}
			content, err := checked(&info, records)
			if err != nil {
				return info, nil, err
			}
			left--
			sent[info.Path] = true
			return info, content, nil
		}
		return nix.PathInfo{}, nil, io.EOF
	}
	err := to.AddStream(next, func(info nix.PathInfo) { w.added(from, &info) })
	if err != nil {
		_, err = w.failed(ctx, err, from)
		return err
	}
	w.read(records.BytesRead)
	return nil
}
