package push

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// nixStore is a store that `nix copy --to` can write to.
type nixStore struct {
	address string
	role    *awsRole // for s3
}

// schemes are those of such stores.
var schemes = map[string]bool{
	"file": true, "http": true, "https": true, "s3": true, "ssh": true, "ssh-ng": true, "local": true, "unix": true,
}

func parseStore(address string) (Destination, error) {
	name := nix.Redact(address)
	if err := notCachix(address); err != nil {
		return Destination{}, err
	}
	if _, err := url.Parse(name); err != nil { // whose error quotes the address
		return Destination{}, fmt.Errorf("the address is not valid: %w", err)
	}
	if _, err := url.Parse(address); err != nil {
		return Destination{}, fmt.Errorf("%q: the password has characters that an address can't have. Percent-encode it", name)
	}
	if err := valid.Substituter(address); err != nil {
		return Destination{}, err
	}
	return Destination{Name: name, Substituter: address, kind: nixStore{address, &awsRole{}}}, nil
}

func (s nixStore) dial(ctx context.Context, d *Destination, secrets Secrets) error {
	if secrets.PublicKey != "" {
		d.PublicKeys = []string{secrets.PublicKey}
	}
	if s.is("http") {
		return askHTTP(ctx, s.address, secrets.Netrc)
	}
	return nil
}

func (s nixStore) is(prefix string) bool { return strings.HasPrefix(s.address, prefix) }

func (nixStore) token(Secrets) string { return "" }
func (nixStore) program() string      { return "" }

func (s nixStore) push(ctx context.Context, n Nix, paths []string, secrets Secrets) (nix.Traffic, error) {
	if s.is("ssh:") {
		paths = outputs(paths)
	}
	var env []string
	if s.is("s3:") && secrets.roleOf() != "" {
		var err error
		if env, err = s.role.variables(ctx, &secrets); err != nil {
			return nix.Traffic{}, err
		}
	}
	return n.Copy(ctx, s.target(secrets), paths, env...)
}

func (s nixStore) lacks(secrets Secrets) *LackError {
	switch {
	case s.is("s3:"):
		return secrets.lacksAWS()
	case s.is("ssh") && secrets.Bare && !secrets.SSHKey && os.Getenv("SSH_AUTH_SOCK") == "":
		return &LackError{What: "an ssh key (input ssh_key)"}
	}
	return nil
}

// lacksAWS names a variable of AWS that the input env sets to an empty text, or the usual one
// if there is none and the machine has no other credentials.
func (s *Secrets) lacksAWS() *LackError {
	if s.roleOf() != "" {
		return s.lacksRole()
	}
	for _, variable := range slices.Concat(s.Env, os.Environ()) {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case !strings.HasPrefix(name, "AWS_"):
		case value == "" && slices.Contains(s.Env, variable):
			return &LackError{What: name + " (input env)"}
		case name != "AWS_REGION" && name != "AWS_DEFAULT_REGION":
			return nil
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(filepath.Join(home, ".aws")); err == nil {
			return nil
		}
	}
	if !s.Bare {
		return nil // the machine may have a role
	}
	return &LackError{What: "AWS_ACCESS_KEY_ID (input env)"}
}

// target returns the address for nix copy.
func (s nixStore) target(secrets Secrets) string {
	address := s.address
	if !nix.IsBinaryCache(address) {
		return address
	}
	if secrets.KeyFile != "" {
		address = withParameter(address, "secret-key", secrets.KeyFile)
	}
	if !strings.Contains(address, "compression=") { // Nix's own default is xz, ten times slower
		address = withParameter(withParameter(address, "compression", "zstd"), "parallel-compression", "true")
	}
	return address
}

func withParameter(address, name, value string) string {
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	// Nix takes a + for itself.
	return address + separator + name + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// askHTTP requests nix-cache-info from an http binary cache, as Nix does first. Only 401 and
// 403 are an error, because every version of Nix gives up on them: a new cache answers 404,
// and a server that this program can't reach may answer Nix.
func askHTTP(ctx context.Context, address, netrc string) error {
	u, err := url.Parse(address)
	if err != nil || u.Query().Has("tls-certificate") {
		return nil
	}
	login := u.User
	if login == nil {
		login = netrcLogin(netrc, u.Hostname())
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("nix-cache-info").String(), nil)
	if err != nil {
		return nil
	}
	if login != nil {
		password, _ := login.Password()
		request.SetBasicAuth(login.Username(), password)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return refused(fmt.Errorf("the server answers %s for nix-cache-info. Check the user and password in the input netrc", response.Status), response.StatusCode)
	default:
		return nil
	}
}

// netrcLogin returns the user and password that lines of a netrc file have for a host, or
// nil.
func netrcLogin(netrc, host string) *url.Userinfo {
	var user, password string
	found, here := false, false
	words := strings.Fields(netrc)
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch word := words[i]; {
		case word == "machine" && found, word == "default" && found:
			return url.UserPassword(user, password)
		case word == "machine":
			here = value == host
			found = here
			i++
		case word == "default":
			here, found = true, true
		case word == "login" && here:
			user = value
			i++
		case word == "password" && here:
			password = value
			i++
		case word == "login", word == "password", word == "account":
			i++
		}
	}
	if !found {
		return nil
	}
	return url.UserPassword(user, password)
}
