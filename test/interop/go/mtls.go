package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

type answer struct {
	Reply       string `json:"reply"`
	PeerID      string `json:"peerId"`
	TLSVersion  string `json:"tlsVersion"`
	ALPN        string `json:"alpn"`
	HTTPVersion string `json:"httpVersion"`
}

// client sends one message over mTLS to a server that must be `peer`, and prints what came back.
func client(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	config, end, err := clientConfig(ctx, o)
	if err != nil {
		return err
	}
	defer end()
	result, err := send(ctx, config, o)
	if err != nil {
		return err
	}
	printLine(result)
	return nil
}

// clientConfig is that of a client whose server must be `peer`, with the SVIDs and bundles of the Workload API until it is ended.
func clientConfig(ctx context.Context, o options) (config *tls.Config, end func() error, err error) {
	peer, err := spiffeid.FromString(o.peer)
	if err != nil {
		return nil, nil, err
	}
	source, err := newSource(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer)), source.Close, nil
}

func send(ctx context.Context, config *tls.Config, o options) (answer, error) {
	if o.protocol == "tcp" {
		return sendBytes(ctx, config, o)
	}
	return sendHTTP(ctx, config, o)
}

// sendBytes ends its own side and reads the other to the end.
func sendBytes(ctx context.Context, config *tls.Config, o options) (answer, error) {
	dialer := tls.Dialer{Config: config}
	connection, err := dialer.DialContext(ctx, "tcp", o.address)
	if err != nil {
		return answer{}, fmt.Errorf("dial: %w", err)
	}
	defer connection.Close()
	if deadline, set := ctx.Deadline(); set {
		if err := connection.SetDeadline(deadline); err != nil {
			return answer{}, err
		}
	}
	secure := connection.(*tls.Conn)
	if _, err := secure.Write([]byte(o.message)); err != nil {
		return answer{}, fmt.Errorf("write: %w", err)
	}
	if err := secure.CloseWrite(); err != nil {
		return answer{}, fmt.Errorf("close write: %w", err)
	}
	reply, err := io.ReadAll(secure)
	if err != nil {
		return answer{}, fmt.Errorf("read: %w", err)
	}
	return describe(secure.ConnectionState(), answer{Reply: string(reply)}), nil
}

func sendHTTP(ctx context.Context, config *tls.Config, o options) (answer, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(o.protocol == "http1")
	protocols.SetHTTP2(o.protocol == "h2")
	transport := &http.Transport{TLSClientConfig: config, Protocols: protocols}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+o.address+"/echo", strings.NewReader(o.message))
	if err != nil {
		return answer{}, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return answer{}, fmt.Errorf("request: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("body: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("status %d", response.StatusCode)
	}
	return describe(*response.TLS, answer{Reply: string(body), HTTPVersion: response.Proto}), nil
}

func describe(state tls.ConnectionState, result answer) answer {
	if id, err := x509svid.IDFromCert(state.PeerCertificates[0]); err == nil {
		result.PeerID = id.String()
	}
	result.TLSVersion = tls.VersionName(state.Version)
	result.ALPN = state.NegotiatedProtocol
	return result
}

// server echoes to clients that must be `peer`, in upper case so that it is not mistaken for what was sent. A line for each connection.
func server(ctx context.Context, o options) error {
	peer, err := spiffeid.FromString(o.peer)
	if err != nil {
		return err
	}
	source, err := newSource(ctx, o)
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer))
	printLine(map[string]any{"listening": listener.Addr().String()})
	if o.protocol != "tcp" {
		return serveHTTP(ctx, listener, config)
	}
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	for {
		connection, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go echo(tls.Server(connection, config), o.timeout)
	}
}

func echo(connection *tls.Conn, limit time.Duration) {
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(limit))
	if err := connection.Handshake(); err != nil {
		printLine(map[string]any{"handshakeError": err.Error()})
		return
	}
	printLine(map[string]any{"accepted": describe(connection.ConnectionState(), answer{}).PeerID})
	buffer := make([]byte, 32<<10)
	for {
		count, err := connection.Read(buffer)
		if count > 0 {
			if _, err := connection.Write(bytes.ToUpper(buffer[:count])); err != nil {
				return
			}
		}
		if err != nil {
			_ = connection.CloseWrite()
			return
		}
	}
}

func serveHTTP(ctx context.Context, listener net.Listener, config *tls.Config) error {
	handler := http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		id, _ := x509svid.IDFromCert(request.TLS.PeerCertificates[0])
		printLine(map[string]any{"accepted": id.String(), "httpVersion": request.Proto})
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = response.Write(bytes.ToUpper(body))
	})
	web := &http.Server{Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		web.Close()
	}()
	if err := web.ServeTLS(listener, "", ""); err != http.ErrServerClosed {
		return err
	}
	return nil
}
