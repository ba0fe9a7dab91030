package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

type identityKey struct{}

const tokenIssuer = "https://token.actions.githubusercontent.com"

// startIDTokens: idtokens grants the job the permission id-token: write: the variables with which it gets tokens of its identity.
func startIDTokens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: idtokens")
	}
	tokens := ts.Value(identityKey{}).(*githubtest.IDTokens)
	tokens.Issuer = tokenIssuer
	tokens.Start(ts.Value(testKey{}).(testing.TB))
	for name, value := range tokens.Env() {
		ts.Setenv(name, value)
	}
}

// niks3 DIR [AUDIENCE] starts a niks3 server that keeps its cache in a directory, and sets $NIKS3 to its address. It
// accepts tokens of a job's identity that are for it, and fixed-token. $ID_TOKENS is a file with the former.
func startNiks3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: niks3 DIR [AUDIENCE]")
	}
	options := niks3test.Options{Dir: ts.MkAbs(args[0]), Issuer: tokenIssuer}
	ts.Check(os.MkdirAll(options.Dir, 0o750))
	if len(args) == 2 {
		options.Audience = args[1]
	}
	identities := ts.Value(identityKey{}).(*githubtest.IDTokens)
	file := ts.MkAbs("id-tokens")
	address := ""
	options.Accepts = func(token string) int {
		switch audience := identities.Audience(token); {
		case token == "fixed-token":
		case audience == "" || audience != address:
			return http.StatusUnauthorized
		default:
			f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return http.StatusInternalServerError
			}
			fmt.Fprintln(f, token)
			f.Close()
		}
		return 0
	}
	address = niks3test.Start(ts.Value(testKey{}).(testing.TB), options).URL
	ts.Setenv("NIKS3", address)
	ts.Setenv("ID_TOKENS", file)
}

// sts ROLE starts the token service of AWS, which gives credentials for the role in exchange for a token of a job's identity.
func startSTS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sts ROLE")
	}
	identities := ts.Value(identityKey{}).(*githubtest.IDTokens)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(data))
		if form.Get("Action") != "AssumeRoleWithWebIdentity" || form.Get("RoleArn") != args[0] || identities.Audience(form.Get("WebIdentityToken")) != "sts.amazonaws.com" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>")
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>the-secret</SecretAccessKey><SessionToken>the-session</SessionToken>
			<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	ts.Defer(server.Close)
	ts.Setenv("AWS_ENDPOINT_URL_STS", server.URL)
}
