package documents

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
)

// A Sighting is what a lookup shows of a unit: its newest done document or else, or as well, its
// newest claim. Lookups lag, so what it does not show may exist.
type Sighting struct {
	// DoneKey is the key of the done document, empty if there is none, and DoneAttempt and DoneTry
	// are the parts of it, -1 if it has none. Done is nil if the document is Broken.
	DoneKey              string
	DoneAttempt, DoneTry int
	Done                 *job.Done
	Broken               error

	// Claimed says that there is a claim of this attempt. Holder is nil if it cannot be read.
	Claimed   bool
	Try, Beat int
	Holder    *job.Claim
}

// claimKey returns the key of a claim of this attempt.
func (s *Store) claimKey(unit string, try, beat int) job.ClaimKey {
	return job.ClaimKey{ID: s.ID, Run: s.Run, Attempt: s.Attempt, Unit: unit, Try: try, Beat: beat}
}

// SaveClaim claims a unit, or renews the claim. If somebody else holds it, the error is
// [cache.ErrExists]; see [cache.LastWins] for the exception.
func (s *Store) SaveClaim(ctx context.Context, unit string, try, beat int, holder *job.Claim) error {
	data, err := json.Marshal(holder)
	if err != nil {
		return fmt.Errorf("cannot write the claim: %w", err)
	}
	key := s.claimKey(unit, try, beat)
	data = s.Seal.Seal(claimName+" "+key.Prefix(), data)
	return s.Cache.Save(ctx, key.String(), bytes.NewReader(data), int64(len(data)))
}

// MaxPacked is the most bytes of a pack behind a done document. Later runs do not restore from it, so that
// what it has is saved once more.
const MaxPacked = 16 << 20

// doneHeader is the size of what a stored done document begins with: the number of bytes of the document,
// which follows and may be sealed, as a big-endian integer. Behind the document lies the pack, if any, which
// is sealed by itself.
const doneHeader = 4

// SaveDone stores what became of a unit in the hands of the holder with this try, with the pack that is
// Packed. A unit that is built is stored under the next try if the key is lost.
func (s *Store) SaveDone(ctx context.Context, try int, done *job.Done) error {
	data, err := done.Marshal()
	if err != nil {
		return err
	}
	prefix := job.DonePrefix(s.ID, s.Run, done.Unit)
	key := func(more int) string { return job.DoneKey(s.claimKey(done.Unit, try+more, 0)) }
	data = s.Seal.Seal(doneName+" "+prefix, data)
	if len(data) > maxDone || len(done.Packed) > MaxPacked {
		return fmt.Errorf("cannot save the unit: it has %d bytes and a pack of %d, which is too much", len(data), len(done.Packed))
	}
	data = slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data, done.Packed) //nolint:gosec // it is at most maxDone
	if done.Outcome != job.OutcomeBuilt {
		if err := s.Cache.Save(ctx, key(0), bytes.NewReader(data), int64(len(data))); !errors.Is(err, cache.ErrExists) {
			return err
		}
		return nil
	}
	_, err = cache.SaveOnce(ctx, s.Cache, key, bytes.NewReader(data), int64(len(data)), func(blob cache.Blob) bool {
		found, err := s.readDone(ctx, blob, done.Unit)
		return err == nil && found.Outcome == job.OutcomeBuilt
	})
	return err
}

// Unit looks a unit up with one request: it shows the claim only if there is no done document.
func (s *Store) Unit(ctx context.Context, unit string) (*Sighting, error) {
	prefix := job.DonePrefix(s.ID, s.Run, unit)
	return s.sight(ctx, unit, prefix, prefix, s.claimKey(unit, 0, 0).Prefix())
}

// UnitClaim looks up the claim to a unit alone.
func (s *Store) UnitClaim(ctx context.Context, unit string) (*Sighting, error) {
	prefix := s.claimKey(unit, 0, 0).Prefix()
	return s.sight(ctx, unit, prefix, prefix)
}

func (s *Store) sight(ctx context.Context, unit, key string, prefixes ...string) (*Sighting, error) {
	blob, err := s.Cache.Open(ctx, key, prefixes...)
	if errors.Is(err, cache.ErrMiss) {
		return &Sighting{}, nil
	}
	if err != nil {
		return nil, err
	}
	seen := &Sighting{}
	if prefix := job.DonePrefix(s.ID, s.Run, unit); strings.HasPrefix(blob.Key(), prefix) {
		seen.DoneKey, seen.DoneAttempt, seen.DoneTry = blob.Key(), -1, -1
		if attempt, try, ok := job.ParseDoneKey(prefix, blob.Key()); ok {
			seen.DoneAttempt, seen.DoneTry = attempt, try
		}
		seen.Done, err = s.readDone(ctx, blob, unit)
		if errors.Is(err, errBroken) {
			seen.Broken, err = err, nil
		}
	} else if claim, ok := s.claimKey(unit, 0, 0).Parse(blob.Key()); ok {
		seen.Claimed, seen.Try, seen.Beat = true, claim.Try, claim.Beat
		seen.Holder, err = s.readClaim(ctx, blob, claim.Prefix())
		if errors.Is(err, errBroken) {
			err = nil // some job holds it
		}
	}
	if errors.Is(err, cache.ErrMiss) { // evicted between lookup and download
		return &Sighting{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", blob.Key(), err)
	}
	return seen, nil
}

// errBroken says that a document arrived, but isn't what its key says.
var errBroken = errors.New("the document is damaged")

func (s *Store) readDone(ctx context.Context, blob cache.Blob, unit string) (*job.Done, error) {
	size := blob.Size()
	if size > doneHeader+maxDone+MaxPacked {
		return nil, fmt.Errorf("%w: it has %d bytes, which is too much", errBroken, size)
	}
	const most = 64 << 10 // nearly all are shorter, and take one request
	data, err := readPart(ctx, blob, 0, min(size, most))
	if err != nil {
		return nil, err
	}
	if len(data) < doneHeader {
		return nil, fmt.Errorf("%w: it has %d bytes", errBroken, size)
	}
	end := doneHeader + int64(binary.BigEndian.Uint32(data))
	if end > size || end-doneHeader > maxDone || size-end > MaxPacked {
		return nil, fmt.Errorf("%w: it has %d bytes, of which the document is said to have %d", errBroken, size, end-doneHeader)
	}
	if have := int64(len(data)); have < end {
		more, err := readPart(ctx, blob, have, end-have)
		if err != nil {
			return nil, err
		}
		data = append(data, more...)
	}
	data, err = s.openUnit(doneName+" "+job.DonePrefix(s.ID, s.Run, unit), data[doneHeader:end])
	if err != nil {
		return nil, err
	}
	done, err := job.ParseDone(data)
	if err == nil && done.Unit != unit {
		err = fmt.Errorf("it is of the unit %s", done.Unit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	done.Place = job.Place{Key: blob.Key(), Offset: end, Size: size - end}
	return done, nil
}

func (s *Store) readClaim(ctx context.Context, blob cache.Blob, prefix string) (*job.Claim, error) {
	data, err := s.readUnit(ctx, blob, claimName+" "+prefix, maxClaim)
	if err != nil {
		return nil, err
	}
	claim, err := job.ParseClaim(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	return claim, nil
}

// readUnit reads a document. An error wraps errBroken if another try would not help.
func (s *Store) readUnit(ctx context.Context, blob cache.Blob, document string, limit int64) ([]byte, error) {
	if blob.Size() > limit {
		return nil, fmt.Errorf("%w: it has %d bytes, more than the %d allowed", errBroken, blob.Size(), limit)
	}
	data, err := readPart(ctx, blob, 0, blob.Size())
	if err != nil {
		return nil, err
	}
	return s.openUnit(document, data)
}

func (s *Store) openUnit(document string, data []byte) ([]byte, error) {
	data, err := s.Seal.Open(document, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	return data, nil
}

// readPart reads length bytes of a blob, which the caller has bounded.
func readPart(ctx context.Context, blob cache.Blob, offset, length int64) ([]byte, error) {
	data, err := cache.ReadRange(ctx, blob, offset, length)
	if err == nil {
		return data, nil
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil, err
}
