package testbench

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

// Cachix stands in for https://cachix.org and for https://NAME.cachix.org, a binary cache.
type Cachix struct {
	Name   string
	Token  string // that the API accepts, and no other
	Public bool   // servers answer without a token, too
	Status int    // the API's answer whatever it is asked; 0 is what the other fields say
	Dir    string // a binary cache, as nix copy makes it; without it, the binary cache is empty
	Key    string // the public key of Dir
}

// Hosts are the names of the servers.
func (c Cachix) Hosts() []string { return []string{"cachix.org", c.Name + ".cachix.org"} }

func (c Cachix) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := cmp.Or(c.Key, c.Name+".cachix.org-1:MCgxJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zM=")
	token := r.Header.Get("Authorization")
	_, password, _ := r.BasicAuth()
	switch {
	case r.Host == c.Name+".cachix.org" && !c.Public && password != c.Token:
		http.Error(w, "no such token", http.StatusUnauthorized)
	case r.Host == c.Name+".cachix.org" && r.URL.Path == "/nix-cache-info":
		_, _ = io.WriteString(w, "StoreDir: /nix/store\n")
	case r.Host == c.Name+".cachix.org" && c.Dir != "":
		http.FileServer(http.Dir(c.Dir)).ServeHTTP(w, r)
	case r.Host != "cachix.org":
		http.NotFound(w, r)
	case c.Status != 0:
		http.Error(w, "the stand-in says no", c.Status)
	case token != "Bearer "+c.Token && (token != "" || !c.Public):
		http.Error(w, "no such token", http.StatusUnauthorized)
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/cache/"+c.Name:
		http.NotFound(w, r)
	case c.Public:
		_, _ = io.WriteString(w, `{"name": "`+c.Name+`", "isPublic": true, "publicSigningKeys": ["`+key+`"]}`)
	default:
		_, _ = io.WriteString(w, `{"name": "`+c.Name+`", "isPublic": false, "publicSigningKeys": ["`+key+`"]}`)
	}
}

// Start starts the servers behind a proxy, and returns the variables with which programs
// reach them.
func (c Cachix) Start(t testing.TB) map[string]string {
	t.Helper()
	certificate, file := SelfSigned(t, c.Hosts()...)
	servers := httptest.NewUnstartedServer(c)
	servers.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	servers.StartTLS()
	t.Cleanup(servers.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || host != c.Hosts()[0] && host != c.Hosts()[1] {
			http.Error(w, "nothing else is to be reached from here", http.StatusBadGateway)
			return
		}
		to, err := net.Dial("tcp", servers.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		}()
		_, _ = io.Copy(from, to)
	}))
	t.Cleanup(proxy.Close)
	return map[string]string{"HTTPS_PROXY": proxy.URL, "SSL_CERT_FILE": file, "NIX_SSL_CERT_FILE": file}
}

// SelfSigned makes a certificate for servers, and a file for those who are to trust it.
func SelfSigned(t testing.TB, hosts ...string) (certificate tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "certificate.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
