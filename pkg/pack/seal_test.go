package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// Two keys, made once since that is costly.
var testKeys = sync.OnceValue(func() [2]*Key {
	var keys [2]*Key
	for i := range keys {
		var err error
		if keys[i], err = NewKey(fmt.Sprint("a secret for the tests ", i)); err != nil {
			panic(err)
		}
	}
	return keys
})

func TestNewKey(t *testing.T) {
	if _, err := NewKey(" 0123456789abcde\n"); err == nil || !strings.Contains(err.Error(), "openssl rand -base64 32") {
		t.Errorf("a short secret: %v", err)
	}
	key, other := testKeys()[0], testKeys()[1]
	again, err := NewKey("\ta secret for the tests 0\n")
	must(t, err)
	if key.Fingerprint() != again.Fingerprint() || len(key.Fingerprint()) != 16 {
		t.Errorf("the same secret makes %q and %q", key.Fingerprint(), again.Fingerprint())
	}
	if key.Fingerprint() == other.Fingerprint() {
		t.Error("two secrets make the same key")
	}
	if none := (*Key)(nil); none.Fingerprint() != "" {
		t.Error("no key has a fingerprint")
	}
}

func TestSeal(t *testing.T) {
	key := testKeys()[0]
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 3 * pieceSize} {
		plain := noise(size)
		sealed := key.Seal("plan", plain)
		if size > 16 && bytes.Contains(sealed, plain[:16]) {
			t.Errorf("%d bytes: the clear text is there", size)
		}
		if bytes.Equal(sealed, key.Seal("plan", plain)) {
			t.Errorf("%d bytes: sealed twice, it is the same", size)
		}
		got, err := key.Open("plan", sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d bytes came back, %v", size, len(got), err)
		}
		// By and by, it is the same.
		r, err := key.NewReader(iotest.OneByteReader(bytes.NewReader(sealed)), "plan")
		must(t, err)
		if got, err = io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, read by and by: %d bytes came back, %v", size, len(got), err)
		}
	}
}

func TestOpenWhatDoesNotFit(t *testing.T) {
	key, other := testKeys()[0], testKeys()[1]
	var none *Key
	plain, sealed := []byte(`{"version": 1}`), key.Seal("plan", []byte(`{"version": 1}`))
	for name, test := range map[string]struct {
		key    *Key
		what   string
		data   []byte
		err    error
		saying string
	}{
		"no key, clear":    {none, "plan", plain, nil, ""},
		"no key, sealed":   {none, "plan", sealed, ErrKey, "set encryption_key"},
		"a key, clear":     {key, "plan", plain, ErrKey, "not sealed"},
		"a key, nothing":   {key, "plan", nil, ErrKey, "not sealed"},
		"another key":      {other, "plan", sealed, ErrKey, key.Fingerprint()},
		"something else":   {key, "result x", sealed, ErrSeal, "the result x"},
		"cut in its head":  {key, "plan", sealed[:documentHead-1], ErrSeal, "cut off"},
		"cut after it":     {key, "plan", sealed[:documentHead], ErrSeal, "cut off"},
		"cut at its end":   {key, "plan", sealed[:len(sealed)-1], ErrSeal, "cut off"},
		"longer than that": {key, "plan", append(bytes.Clone(sealed), 0), ErrSeal, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.key.Open(test.what, test.data)
			switch {
			case !errors.Is(err, test.err):
				t.Errorf("%v, want %v", err, test.err)
			case err == nil && !bytes.Equal(got, test.data):
				t.Errorf("got %q", got)
			case err != nil && !strings.Contains(err.Error(), test.saying):
				t.Errorf("%q does not say %q", err, test.saying)
			}
		})
	}
	if got := none.Seal("plan", plain); !bytes.Equal(got, plain) {
		t.Errorf("without a key, %q became %q", plain, got)
	}
}

// Pieces can't be left out, repeated or brought into another order.
func TestPieces(t *testing.T) {
	key := testKeys()[0]
	sealed := key.Seal("log", noise(3*pieceSize+100))
	head, body := sealed[:documentHead], sealed[documentHead:]
	piece := func(n int) []byte { return body[n*sealedSize : min((n+1)*sealedSize, len(body))] }
	for name, order := range map[string][]int{
		"the last is missing": {0, 1, 2},
		"one is missing":      {0, 2, 3},
		"one is there twice":  {0, 0, 1, 2, 3},
		"two are swapped":     {1, 0, 2, 3},
		"more after the last": {0, 1, 2, 3, 3},
	} {
		data := bytes.Clone(head)
		for _, n := range order {
			data = append(data, piece(n)...)
		}
		if _, err := key.Open("log", data); !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := 0; at < len(sealed); at += 997 {
		sealed[at] ^= 4
		if _, err := key.Open("log", sealed); !errors.Is(err, ErrSeal) && !errors.Is(err, ErrKey) {
			t.Errorf("byte %d is another one: %v", at, err)
		}
		sealed[at] ^= 4
	}
}

func FuzzOpen(f *testing.F) {
	key := testKeys()[0]
	sealed := key.Seal("plan", []byte("text"))
	f.Add(sealed)
	f.Add(sealed[:documentHead])
	f.Add([]byte(documentMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := key.Open("plan", data); err == nil && string(got) != "text" {
			t.Errorf("%q opens as %q", data, got)
		} else if err != nil && !errors.Is(err, ErrSeal) && !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", data, err)
		}
		if _, err := (*Key)(nil).Open("plan", data); err != nil && !IsSealed(data) {
			t.Errorf("%q: %v", data, err)
		}
	})
}
