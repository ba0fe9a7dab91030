package push

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic"
)

// A RefusedError says that a destination answers 401, 403 or 404: to try again changes
// nothing.
type RefusedError struct {
	Status int // of HTTP
	Err    error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// refused returns a *RefusedError if the status is one of those, else the error itself.
func refused(err error, status int) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return &RefusedError{status, err}
	default:
		return err
	}
}

// refusedBy returns a *RefusedError if the server's answer that an error of Attic, Nix or
// Cachix's program is about is one of those, else the error itself.
func refusedBy(err error) error {
	status := attic.Status(err)
	var program *nix.Error
	if status == 0 && errors.As(err, &program) {
		status = program.HTTPStatus()
	}
	return refused(err, status)
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
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
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
		return refused(errors.New("the server answers "+response.Status+" to who reads nix-cache-info; are the user and password in the input netrc right?"), response.StatusCode)
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
