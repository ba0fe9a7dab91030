package pack

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// MinSecret is the fewest bytes of the secret of a [Key].
const MinSecret = 16

// ErrKey is wrapped by errors about sealed data without a key or with another key, and
// about data in clear with a key.
var ErrKey = errors.New("encryption key mismatch")

// ErrSeal is wrapped by errors about data that was changed after it was sealed.
var ErrSeal = errors.New("the seal is broken")

// A Key encrypts and authenticates packs and documents that leave this machine, which is
// called sealing. The nil Key leaves them in clear.
type Key struct {
	secret []byte // all other keys are derived from it
	id     keyID
}

type (
	keyID [8]byte
	// salt makes the key of every pack and document a different one.
	salt [32]byte
)

// NewKey derives a key from a secret of at least [MinSecret] bytes, not counting white
// space around it. The same secret always makes the same key.
//
// An attacker with sealed data can try secrets offline, so the secret should be random.
// Because any text is accepted, a phrase too, Argon2id makes each try expensive, with the
// parameters of RFC 9106 for less memory (64 MiB). The salt is constant, because all jobs
// derive the same key from the secret alone.
func NewKey(secret string) (*Key, error) {
	secret = strings.TrimSpace(secret)
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("it has fewer than %d characters. Create one with openssl rand -base64 32", MinSecret)
	}
	const passes, memory, lanes = 3, 64 << 10, 4 // KiB
	k := &Key{secret: argon2.IDKey([]byte(secret), []byte("nix-matrix seal 1"), passes, memory, lanes, sha256.Size)}
	id, err := hkdf.Expand(sha256.New, k.secret, "nix-matrix key id", len(k.id))
	copy(k.id[:], id)
	return k, err
}

// Fingerprint returns the key's ID in 16 hex digits, or "" for the nil Key. It is not secret.
func (k *Key) Fingerprint() string {
	if k == nil {
		return ""
	}
	return hex.EncodeToString(k.id[:])
}

// Data is sealed in pieces, so that it is never in memory as a whole.
const (
	pieceSize  = 64 << 10
	sealedSize = pieceSize + chacha20poly1305.Overhead
)

const documentMagic = "nixmdoc1"

// documentHead is the size of the head of a sealed document: magic, key ID, salt.
const documentHead = len(documentMagic) + len(keyID{}) + len(salt{})

// Seal seals a small document. The context is the kind of the document, such as "plan", and
// must be the same for Open. The nil Key leaves the document as it is.
func (k *Key) Seal(context string, plain []byte) []byte {
	if k == nil {
		return plain
	}
	var b bytes.Buffer // writing to it can't fail
	w, _ := k.NewWriter(&b, context)
	_, _ = w.Write(plain)
	_ = w.Close()
	return b.Bytes()
}

// Open decrypts a document that was sealed in the same context by Seal or NewWriter. Its
// errors wrap [ErrKey] or [ErrSeal]. A key refuses documents in clear; the nil Key refuses
// sealed ones and returns others as they are.
func (k *Key) Open(context string, sealed []byte) ([]byte, error) {
	r, err := k.NewReader(bytes.NewReader(sealed), context)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// NewWriter returns a writer that seals a document of any size. The caller must close it,
// which leaves dst open. The nil Key seals nothing.
func (k *Key) NewWriter(dst io.Writer, context string) (io.WriteCloser, error) {
	if k == nil {
		return unsealed{dst}, nil
	}
	unique := newSalt()
	head := append([]byte(documentMagic), k.id[:]...)
	if _, err := dst.Write(append(head, unique[:]...)); err != nil {
		return nil, err
	}
	return k.derive("document "+context, unique).writer(dst, 0), nil
}

// NewReader returns a reader that decrypts a document like Open. It returns only authenticated
// bytes; if the document was cut off or changed in the middle, it returns those before that
// place, and then the error.
func (k *Key) NewReader(src io.Reader, context string) (io.Reader, error) {
	r := bufio.NewReaderSize(src, sealedSize+1)
	head, err := r.Peek(documentHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !IsSealed(head) {
		if k != nil {
			return nil, fmt.Errorf("%w: the %s is not sealed, but a key is given. Set encryption_key in all jobs or in none", ErrKey, context)
		}
		return r, nil
	}
	if len(head) < documentHead {
		return nil, fmt.Errorf("%w: the %s was cut off", ErrSeal, context)
	}
	if err := k.fits(context, head[len(documentMagic):]); err != nil {
		return nil, err
	}
	unique := salt(head[documentHead-len(salt{}):])
	if _, err := r.Discard(documentHead); err != nil {
		return nil, err
	}
	opened := k.derive("document "+context, unique).reader(r, 0)
	opened.what = "the " + context
	return opened, nil
}

// IsSealed reports whether a document, of which the beginning is enough, is sealed.
func IsSealed(document []byte) bool { return bytes.HasPrefix(document, []byte(documentMagic)) }

// fits returns an error unless something was sealed with this key. The key's ID is at the
// beginning of head.
func (k *Key) fits(what string, head []byte) error {
	switch id := keyID(head); {
	case k == nil:
		return fmt.Errorf("%w: the %s is sealed with the key %x, and no key is given. Set encryption_key, or the git_crypt_key that it was derived from", ErrKey, what, id)
	case id != k.id:
		return fmt.Errorf("%w: the %s is sealed with the key %x, and the given key is %x. Set the same encryption_key in all jobs", ErrKey, what, id, k.id)
	}
	return nil
}

func newSalt() (s salt) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// unsealed writes in clear.
type unsealed struct{ io.Writer }

func (unsealed) Close() error { return nil }

// A seal is the key of one pack or document. No nonce is used twice with it: a
// nonce has the numbers of the frame and of the piece in it, and a flag for the last
// piece.
type seal struct{ aead cipher.AEAD }

func (k *Key) derive(purpose string, unique salt) seal {
	// Only a wrong length of the key is an error.
	key, err := hkdf.Key(sha256.New, k.secret, unique[:], "nix-matrix "+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic(err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err)
	}
	return seal{aead}
}

func nonce(frame, piece uint64, last bool) []byte {
	n := make([]byte, chacha20poly1305.NonceSizeX)
	binary.LittleEndian.PutUint64(n, frame)
	binary.LittleEndian.PutUint64(n[8:], piece)
	if last {
		n[16] = 1
	}
	return n
}

// writer returns a writer that seals a frame. The caller must close it.
func (s seal) writer(dst io.Writer, frame uint64) *sealer {
	return &sealer{seal: s, dst: dst, frame: frame, plain: make([]byte, 0, pieceSize)}
}

type sealer struct {
	seal
	dst          io.Writer
	frame, piece uint64
	plain, out   []byte
}

func (w *sealer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if len(w.plain) == pieceSize { // and not the last one
			if err := w.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), pieceSize-len(w.plain))
		w.plain = append(w.plain, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

func (w *sealer) flush(last bool) error {
	w.out = w.aead.Seal(w.out[:0], nonce(w.frame, w.piece, last), w.plain, nil)
	w.plain = w.plain[:0]
	w.piece++
	_, err := w.dst.Write(w.out)
	return err
}

// Close writes the last piece, which may be empty.
func (w *sealer) Close() error { return w.flush(true) }

// reader returns a reader that decrypts a frame, which ends with src.
func (s seal) reader(src io.Reader, frame uint64) *opener {
	return &opener{seal: s, src: bufio.NewReaderSize(src, sealedSize+1), frame: frame, what: fmt.Sprint("frame ", frame)}
}

type opener struct {
	seal
	src          *bufio.Reader
	what         string // for errors
	frame, piece uint64
	buf, plain   []byte // plain is the unread part of buf
	err          error
}

func (r *opener) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.next()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// next decrypts a piece. It is the last one if Peek finds nothing after it.
func (r *opener) next() {
	sealed, err := r.src.Peek(sealedSize + 1)
	last := errors.Is(err, io.EOF)
	if err != nil && !last {
		r.err = err
		return
	}
	sealed = sealed[:min(len(sealed), sealedSize)]
	plain, err := r.aead.Open(r.buf[:0], nonce(r.frame, r.piece, last), sealed, nil)
	if err != nil {
		r.err = fmt.Errorf("%w: %s was changed or cut off, or was sealed as something else", ErrSeal, r.what)
		return
	}
	r.buf, r.plain = plain, plain
	r.piece++
	if last {
		r.err = io.EOF
		return
	}
	_, r.err = r.src.Discard(sealedSize)
}
