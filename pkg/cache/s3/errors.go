package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// The reasons why a server refuses a request, which the user can mend.
var (
	// ErrDenied says that the credentials do not permit a request.
	ErrDenied = errors.New("access denied")
	// ErrCredentials says that the server does not know the credentials.
	ErrCredentials = errors.New("the server refuses the credentials")
	// ErrNoBucket says that there is no bucket of that name.
	ErrNoBucket = errors.New("there is no such bucket")
	// ErrRegion says that the bucket is in another region.
	ErrRegion = errors.New("the bucket is in another region")
	// ErrEndpoint says that the endpoint is no server, or speaks another protocol.
	ErrEndpoint = errors.New("the endpoint cannot be used")
	// ErrClock says that the clocks of this machine and of the server differ.
	ErrClock = errors.New("the clock of this machine is wrong")
)

// errPartial says that an answer is not about the bytes that were asked for.
var errPartial = errors.New("the server sends another range than the one that was asked for")

// A readOnlyError is [cache.ErrReadOnly], with the reason as its text.
type readOnlyError struct{ cause error }

func (e *readOnlyError) Error() string   { return e.cause.Error() }
func (e *readOnlyError) Unwrap() []error { return []error{cache.ErrReadOnly, e.cause} }

// The codes of answers.
const (
	codeNoKey       = "NoSuchKey"
	codeNoBucket    = "NoSuchBucket"
	codeNoUpload    = "NoSuchUpload"
	codeUnsupported = "NotImplemented"
)

var (
	credentialCodes = []string{
		"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired",
		"InvalidSecurity", "UnrecognizedClientException", "Unauthorized",
	}
	regionCodes = []string{
		"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion", "InvalidRegionName",
		"IllegalLocationConstraintException",
	}
	clockCodes = []string{"RequestTimeTooSkewed", "RequestExpired"}
	busyCodes  = []string{
		"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded",
		"RequestThrottled", "InternalError", "OperationAborted", "ConditionalRequestConflict", "ServiceUnavailable", "TooManyRequests",
	}
)

// answer returns the server's answer that an error is, or nil if there was none.
func answer(err error) *minio.ErrorResponse {
	var resp minio.ErrorResponse
	if errors.As(err, &resp) && resp.StatusCode != 0 {
		return &resp
	}
	return nil
}

// isStatus reports whether an error is an answer with a status.
func isStatus(err error, status int) bool {
	resp := answer(err)
	return resp != nil && resp.StatusCode == status
}

// isMissing reports whether an error says that there is no object of that name.
func isMissing(err error) bool {
	resp := answer(err)
	return resp != nil && resp.StatusCode == http.StatusNotFound && resp.Code != codeNoBucket && resp.Code != codeNoUpload
}

// isTaken reports whether a creation was refused because there is an object, or a creation of it
// under way.
func isTaken(err error) bool {
	resp := answer(err)
	return resp != nil && (resp.StatusCode == http.StatusPreconditionFailed || resp.StatusCode == http.StatusConflict)
}

// isUnsupported reports whether a server does not know what it was asked for.
func isUnsupported(err error) bool {
	resp := answer(err)
	return resp != nil && (resp.StatusCode == http.StatusNotImplemented || resp.Code == codeUnsupported)
}

// passes reports whether a request that failed with this error may succeed later.
func passes(err error) bool {
	var body *bodyError
	var unknown *net.DNSError
	var certificate *x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	switch resp := answer(err); {
	case resp != nil && (slices.Contains(regionCodes, resp.Code) || slices.Contains(credentialCodes, resp.Code) || slices.Contains(clockCodes, resp.Code)):
		return false
	case resp != nil:
		return resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode == http.StatusTooManyRequests ||
			resp.StatusCode >= http.StatusInternalServerError && resp.StatusCode != http.StatusNotImplemented || slices.Contains(busyCodes, resp.Code)
	case errors.As(err, &body), errors.Is(err, cache.ErrMiss), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &unknown) && unknown.IsNotFound, errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &host):
		return false
	}
	return !isOtherProtocol(err)
}

// isOtherProtocol reports whether http was spoken with https or the other way round. The standard
// library has no type for most of it.
func isOtherProtocol(err error) bool {
	var record tls.RecordHeaderError
	text := err.Error()
	return errors.As(err, &record) || strings.Contains(text, "server gave HTTP response to HTTPS client") || strings.Contains(text, "malformed HTTP response")
}

// named returns an error that says what the user can do, and has no address. It wraps
// [cache.ErrReadOnly] if the credentials do not permit the request.
func (b *Bucket) named(err error) error {
	if resp := answer(err); resp != nil {
		return b.refused(resp)
	}
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return fmt.Errorf("%w: there is no host %s. Correct endpoint, region or bucket in the address of the cache", ErrEndpoint, httpcall.Quote(unknown.Name, ""))
	case isOtherProtocol(err):
		return fmt.Errorf("%w: it does not speak %s. Add or remove scheme=http in the address of the cache", ErrEndpoint, b.scheme())
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		return fmt.Errorf("the server does not answer: %w", httpcall.WithoutAddress(err))
	}
	return err
}

func (b *Bucket) scheme() string {
	if b.config.Plain {
		return "http"
	}
	return "https"
}

// refused returns the error of an answer.
func (b *Bucket) refused(resp *minio.ErrorResponse) error {
	said := b.said(resp)
	switch {
	case slices.Contains(clockCodes, resp.Code):
		return fmt.Errorf("%w (%s). Set it, or start a time service", ErrClock, said)
	case slices.Contains(credentialCodes, resp.Code):
		return &readOnlyError{fmt.Errorf("%w (%s). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", ErrCredentials, said)}
	case resp.Code == codeNoBucket:
		return fmt.Errorf("%w: %s (%s). Make it, or correct the address of the cache", ErrNoBucket, b.config.Bucket, said)
	case slices.Contains(regionCodes, resp.Code), resp.StatusCode == http.StatusMovedPermanently, resp.StatusCode == http.StatusTemporaryRedirect:
		next := "Name its region with region=REGION in the address of the cache"
		if regionPattern().MatchString(resp.Region) && resp.Region != b.config.Region {
			next = fmt.Sprintf("Write region=%s in the address of the cache", resp.Region)
		}
		return fmt.Errorf("%w than %s (%s). %s", ErrRegion, b.config.Region, said, next)
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		next := "Permit s3:GetObject and s3:ListBucket, and to save s3:PutObject and s3:AbortMultipartUpload"
		if b.config.Credentials.Anonymous() {
			next = "There are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or let everybody read the bucket"
		}
		return &readOnlyError{fmt.Errorf("%w (%s). %s", ErrDenied, said, next)}
	}
	return fmt.Errorf("the server answers %s", said)
}

// said returns an answer as a bounded line.
func (b *Bucket) said(resp *minio.ErrorResponse) string {
	var secret string
	if !b.config.Credentials.Anonymous() {
		secret = b.config.Credentials.secret.SecretAccessKey
	}
	said := fmt.Sprintf("%d %s", resp.StatusCode, resp.Code)
	if resp.Message != "" {
		said += ": " + strings.TrimSuffix(resp.Message, ".")
	}
	return httpcall.Quote(said, secret)
}

// retry calls a function until it returns nil, an error that is not going to pass, or there were too
// many. The function is told how often it was called before.
func (b *Bucket) retry(ctx context.Context, what string, call func(try int) error) error {
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := call(try)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !passes(err) || try >= b.config.Retries:
			return err
		}
		b.config.Log.Info("a request to the S3 cache failed", "request", what, "try", try+1, "error", b.named(err))
		if err := httpcall.Sleep(ctx, httpcall.Linear(b.config.Wait)(try)); err != nil {
			return err
		}
	}
}
