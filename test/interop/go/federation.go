package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"crypto/sha256"

	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// bundle fetches the bundle of `domain` from the endpoint `url`, which is `peer` by the bundles of the Workload API, or is vouched for
// by the authorities in the file `roots`.
func bundle(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	domain, err := spiffeid.TrustDomainFromString(o.domain)
	if err != nil {
		return err
	}
	var auth federation.FetchOption
	if o.roots == "" {
		peer, err := spiffeid.FromString(o.peer)
		if err != nil {
			return err
		}
		source, err := newSource(ctx, o)
		if err != nil {
			return err
		}
		defer source.Close()
		auth = federation.WithSPIFFEAuth(source, peer)
	} else {
		pem, err := os.ReadFile(o.roots)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate", o.roots)
		}
		auth = federation.WithWebPKIRoots(roots)
	}
	fetched, err := federation.FetchBundle(ctx, domain, o.url, auth)
	if err != nil {
		return err
	}
	authorities := []string{}
	for _, authority := range fetched.X509Authorities() {
		sum := sha256.Sum256(authority.Raw)
		authorities = append(authorities, hex.EncodeToString(sum[:]))
	}
	sequence, _ := fetched.SequenceNumber()
	hint, _ := fetched.RefreshHint()
	printLine(map[string]any{
		"domain":      fetched.TrustDomain().Name(),
		"authorities": authorities,
		"sequence":    sequence,
		"hint":        hint / time.Second,
	})
	return nil
}

// bundleEndpoint serves the bundle of `domain`, as the Workload API gives it, with the SVID that it gives.
func bundleEndpoint(ctx context.Context, o options) error {
	domain, err := spiffeid.TrustDomainFromString(o.domain)
	if err != nil {
		return err
	}
	source, err := newSource(ctx, o)
	if err != nil {
		return err
	}
	defer source.Close()
	waiting, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	bundles, err := workloadapi.NewBundleSource(waiting, workloadapi.WithClientOptions(workloadapi.WithAddr(o.socket)))
	if err != nil {
		return err
	}
	defer bundles.Close()
	handler, err := federation.NewHandler(domain, bundles)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	printLine(map[string]any{"listening": listener.Addr().String()})
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(tls.NewListener(listener, tlsconfig.TLSServerConfig(source))); err != http.ErrServerClosed {
		return err
	}
	return nil
}
