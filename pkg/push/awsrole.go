package push

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// An awsRole gets credentials of AWS for a while, for a role that the identity of a job may assume (STS,
// AssumeRoleWithWebIdentity). Nix could do that itself, with a token in a file; but such a token ends within
// minutes, and a build does not.
type awsRole struct {
	mu    sync.Mutex
	env   []string // variables with the credentials
	until time.Time
}

const (
	// stsAudience is for whom a token must be that AWS accepts.
	stsAudience = "sts.amazonaws.com"
	// Credentials that end sooner are renewed, because a copy may take a while.
	roleMargin = 10 * time.Minute

	stsAnswer = 64 << 10 // bytes
	stsStall  = 30 * time.Second
)

var (
	roleARN    = lazyregexp.New(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,600}$`)
	regionName = lazyregexp.New(`^[a-z0-9-]{1,40}$`)
	// accessKey and secret are the forms of credentials, which become variables.
	accessKey = lazyregexp.New(`^[A-Za-z0-9]{1,128}$`)
	secret    = lazyregexp.New(`^[A-Za-z0-9+/=_-]+$`)
)

// roleOf returns the role by which S3 is written to, or an empty text where there are other credentials.
func (s *Secrets) roleOf() string {
	if s.variable("AWS_ACCESS_KEY_ID") != "" || s.variable("AWS_WEB_IDENTITY_TOKEN_FILE") != "" {
		return ""
	}
	return s.variable("AWS_ROLE_ARN")
}

// lacksRole returns the permission without which nobody may assume a role.
func (s *Secrets) lacksRole() *LackError {
	if s.identified() {
		return nil
	}
	return roleLack()
}

func roleLack() *LackError {
	return &LackError{What: "AWS_ACCESS_KEY_ID (input env) or, for AWS_ROLE_ARN, the permission " + action.IDTokenPermission, Next: action.IDTokenAdvice}
}

// variables returns the variables with credentials for the role, which are valid for some minutes at least.
func (r *awsRole) variables(ctx context.Context, s *Secrets) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.env != nil && time.Until(r.until) > roleMargin {
		return r.env, nil
	}
	arn := s.roleOf()
	if !roleARN().MatchString(arn) {
		return nil, fmt.Errorf("invalid AWS_ROLE_ARN %s (input env): must be the ARN of a role, such as arn:aws:iam::123456789012:role/nix-matrix", valid.Quote(arn))
	}
	if s.IDToken == nil {
		return nil, roleLack()
	}
	token, err := s.IDToken(ctx, stsAudience)
	if err != nil {
		return nil, err
	}
	got, err := s.assume(ctx, arn, token)
	if err != nil {
		return nil, fmt.Errorf("cannot assume the role %s: %w", arn, err)
	}
	if s.Mask != nil {
		s.Mask(got.Secret)
		s.Mask(got.Session)
	}
	r.until = got.Until
	r.env = []string{"AWS_ACCESS_KEY_ID=" + got.Key, "AWS_SECRET_ACCESS_KEY=" + got.Secret, "AWS_SESSION_TOKEN=" + got.Session}
	return r.env, nil
}

// roleCredentials are credentials that STS has made.
type roleCredentials struct {
	Key     string    `xml:"AccessKeyId"`
	Secret  string    `xml:"SecretAccessKey"`
	Session string    `xml:"SessionToken"`
	Until   time.Time `xml:"Expiration"`
}

// stsEndpoint returns the address of STS: that of the region, if one is set.
func (s *Secrets) stsEndpoint() string {
	if endpoint := s.variable("AWS_ENDPOINT_URL_STS"); endpoint != "" {
		return endpoint
	}
	region := s.variable("AWS_REGION")
	if region == "" {
		region = s.variable("AWS_DEFAULT_REGION")
	}
	switch {
	case !regionName().MatchString(region):
		return "https://sts.amazonaws.com"
	case strings.HasPrefix(region, "cn-"):
		return "https://sts." + region + ".amazonaws.com.cn"
	default:
		return "https://sts." + region + ".amazonaws.com"
	}
}

// assume asks STS for credentials of a role.
func (s *Secrets) assume(ctx context.Context, arn, token string) (*roleCredentials, error) {
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {arn}, "RoleSessionName": {"nix-matrix"}, "WebIdentityToken": {token},
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, s.stsEndpoint(), []byte(form.Encode()))
	if err != nil {
		return nil, httpcall.WithoutAddress(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("User-Agent", httpcall.UserAgent)
	policy := &httpcall.Policy{Retries: 4, Pause: httpcall.Exponential(time.Second, time.Minute), Spread: true, MaxPause: time.Minute}
	response, err := policy.Do(&http.Client{
		Transport:     &httpcall.Transport{Next: http.DefaultTransport, Stall: stsStall, MaxAnswer: stsAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		var said struct {
			Error struct{ Code, Message string }
		}
		_ = xml.Unmarshal(data, &said) // or it says nothing
		err := httpcall.NewStatusError(response, said.Error.Code, said.Error.Message, token)
		if response.StatusCode < http.StatusInternalServerError {
			return nil, fmt.Errorf("%w. Let the trust policy of the role accept this repository and ref, and the audience %s", err, stsAudience)
		}
		return nil, err
	}
	var answer struct {
		Result struct {
			Credentials roleCredentials
		} `xml:"AssumeRoleWithWebIdentityResult"`
	}
	if err := xml.Unmarshal(data, &answer); err != nil {
		return nil, errors.New("the server answers something other than the expected XML")
	}
	got := &answer.Result.Credentials
	if !accessKey().MatchString(got.Key) || !secret().MatchString(got.Secret) || !secret().MatchString(got.Session) {
		return nil, errors.New("the server's answer has no credentials")
	}
	return got, nil
}
