package cache

import (
	"fmt"
	"strings"
)

const (
	// MaxKey is the greatest length of a key or prefix, in characters. The
	// Actions cache service allows no more.
	MaxKey = 512
	// MaxPrefixes is how many prefixes one Open may give. The Actions cache
	// service takes ten keys at once, and two of them are the key itself.
	MaxPrefixes = 8
)

// CheckKey returns an error unless key can name a blob in every cache: 1 to [MaxKey]
// characters out of a-z, 0-9 and "-._+=", the first a letter or a digit. No
// upper case, because some servers fold it; no comma, because the service's
// protocol separates keys by it; no slash, backslash, colon, space, leading dot,
// because keys become file names.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("cache key is empty")
	case len(key) > MaxKey:
		return fmt.Errorf("cache key %.20q… has %d characters, more than %d", key, len(key), MaxKey)
	case !plain(key[0]):
		return fmt.Errorf("cache key %.40q does not start with one of a-z, 0-9", key)
	}
	for i := range len(key) {
		if !plain(key[i]) && !strings.ContainsRune("-._+=", rune(key[i])) {
			return fmt.Errorf("cache key %.40q has a character other than a-z, 0-9 and -._+= at %d", key, i)
		}
	}
	return nil
}

// CheckOpen returns an error unless key and prefixes can be looked up.
func CheckOpen(key string, prefixes []string) error {
	if len(prefixes) > MaxPrefixes {
		return fmt.Errorf("%d cache key prefixes, more than %d", len(prefixes), MaxPrefixes)
	}
	if err := CheckKey(key); err != nil {
		return err
	}
	for _, prefix := range prefixes {
		if err := CheckKey(prefix); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	return nil
}

// CheckSave returns an error unless size bytes can be saved under key: an empty blob
// can't, because the service refuses it.
func CheckSave(key string, size int64) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if size <= 0 {
		return fmt.Errorf("cannot save %s: a blob of %d bytes is not allowed", key, size)
	}
	return nil
}

// Escape returns any text, such as the name of a ref or an attribute, as a part of a key.
// Bytes outside a-z, 0-9 and "-._" become "=" and two hex digits, so that
// different texts stay different, and "+" is left to separate the parts.
func Escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if plain(c) || c == '-' || c == '.' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}
