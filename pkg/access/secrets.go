package access

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/pack"
)

// SealKey returns the key that seals everything cached or uploaded, nil without a secret for it.
func (h *Host) SealKey() (*pack.Key, error) {
	secret := strings.TrimSpace(h.Getenv(EncryptionVariable))
	if secret == "" {
		key, err := h.GitCryptKey()
		if err != nil || key == nil {
			return nil, err
		}
		secret = "git-crypt " + base64.StdEncoding.EncodeToString(key) // however its lines were broken
	}
	key, err := pack.NewKey(secret)
	if err != nil {
		return nil, usage.Errorf("encryption_key (%s): %w", EncryptionVariable, err)
	}
	return key, nil
}

// GitCryptKey returns the key for the files that git-crypt has encrypted, nil without one.
func (h *Host) GitCryptKey() ([]byte, error) {
	text := strings.Join(strings.Fields(h.Getenv(GitCryptVariable)), "")
	if text == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !strings.HasPrefix(string(key), "\x00GITCRYPTKEY") {
		return nil, usage.Errorf("git_crypt_key (%s) is not the base64 of a key of git-crypt: make it with git-crypt export-key /dev/stdout | base64", GitCryptVariable)
	}
	return key, nil
}

// TokenLines returns the lines of the secret nix_conf that have tokens for servers.
func (h *Host) TokenLines() []string {
	return tokenPattern().FindAllString(h.Getenv(ConfVariable), -1)
}

// OwnToken returns the github_access_token, unless it is just the token that each workflow has.
func (h *Host) OwnToken() string {
	token := strings.TrimSpace(h.Getenv(GitHubVariable))
	if token == h.JobToken {
		return ""
	}
	return token
}

// Env returns the variables of the secret env, whose lines are NAME=VALUE.
func (h *Host) Env() ([]string, error) {
	var env []string
	for line := range strings.Lines(h.Getenv(EnvVariable)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !variablePattern().MatchString(name) {
			return nil, usage.Errorf("the secret env has a line that is not NAME=VALUE (its text is not shown here)")
		}
		if !openPattern().MatchString(name) {
			h.mask(unquoted(value))
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

var variablePattern = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

var (
	// These variables of the secret env are no secrets, and may be part of any line.
	openPattern = lazyregexp.New(`^AWS_(?:DEFAULT_)?(?:REGION|PROFILE)$|^AWS_ROLE_ARN$|^AWS_ENDPOINT_URL(?:_[A-Z0-9_]+)?$|^(?:AWS_|S3_)?(?:REGION|ENDPOINT|BUCKET)(?:_URL|_NAME)?$`)

	tokenPattern = lazyregexp.New(`(?m)^\s*(?:extra-)?access-tokens\s*=(.*)$`)
)

// shortestMask is the length of the shortest secret that is masked, in bytes. A shorter one is part of
// harmless texts, and the runner drops an output with a masked text in it.
const shortestMask = 8

// mask keeps a secret out of the log, and each line of it.
func (h *Host) mask(secret string) {
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) >= shortestMask {
			h.Mask(line)
		}
	}
}

// maskParts masks the secret parts of inputs, and the headers that are made from them: the runner masks
// whole lines only.
func (h *Host) maskParts() {
	for _, login := range parseNetrc(h.Getenv(NetrcVariable)) {
		h.mask(login.password)
		h.mask(basicAuth(login.name, login.password))
	}
	for _, m := range tokenPattern().FindAllStringSubmatch(h.Getenv(ConfVariable), -1) {
		for _, word := range strings.Fields(m[1]) {
			_, token, _ := strings.Cut(unquoted(word), "=")
			token = unquoted(token)
			h.mask(token)
			if _, rest, ok := strings.Cut(token, ":"); ok { // after its kind: PAT, OAuth2
				h.mask(rest)
			}
		}
	}
	if token := strings.TrimSpace(h.Getenv(GitHubVariable)); token != "" {
		h.mask(token)
		h.mask(basicAuth(tokenUser, token))
	}
	for _, variable := range []string{SigningKeyVariable, "CACHIX_SIGNING_KEY"} {
		_, key, _ := strings.Cut(h.Getenv(variable), ":")
		h.mask(key)
	}
}

// basicAuth returns a login as an HTTP header has it.
func basicAuth(name, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
}

// unquoted returns a word without the quotes around it.
func unquoted(word string) string {
	for _, quote := range []string{`"`, `'`} {
		if len(word) > 1 && strings.HasPrefix(word, quote) && strings.HasSuffix(word, quote) {
			return word[1 : len(word)-1]
		}
	}
	return word
}

// A login is one of a netrc, for a machine.
type login struct{ name, password string }

// parseNetrc returns the logins of a netrc, whose words may be on any lines, and in quotes.
func parseNetrc(text string) []login {
	var logins []login
	var name string
	var first int // of this machine's
	words := netrcWords(text)
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "machine" || word == "default" {
			name, first = "", len(logins)
		}
		if !slices.Contains([]string{"machine", "login", "password", "account", "macdef"}, word) || i+1 == len(words) {
			continue
		}
		i++
		switch word {
		case "login":
			name = words[i]
			for j := range logins[first:] { // the password may come first
				logins[first+j].name = name
			}
		case "password", "account":
			logins = append(logins, login{name, words[i]})
		}
	}
	return logins
}

func netrcWords(text string) []string {
	var words []string
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return words
		}
		if text[0] != '"' {
			end := strings.IndexAny(text, " \t\r\n")
			if end < 0 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
			continue
		}
		var word strings.Builder
		i := 1
		for ; i < len(text) && text[i] != '"'; i++ {
			if text[i] == '\\' && i+1 < len(text) {
				i++
			}
			word.WriteByte(text[i])
		}
		words, text = append(words, word.String()), text[min(i+1, len(text)):]
	}
}
