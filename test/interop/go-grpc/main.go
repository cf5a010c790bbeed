// grpc-peer is a server and a client of grpc-go, with the cases by which gRPC's implementations are tested against each other
// (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md). Every command prints one JSON object a line.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// options are the same for all commands; each uses what it needs.
type options struct {
	address     string
	chain       string
	key         string
	authorities string
	id          string
	connections int
	streams     int
	bytes       int
	pause       time.Duration
}

func main() {
	commands := map[string]func(context.Context, options) error{
		"serve": serve,
		"cases": cases,
		"large": large,
		"mix":   mix,
		"talk":  talk,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fail(errors.New("usage: grpc-peer serve|cases|large|mix|talk [flags]"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.address, "address", "127.0.0.1:0", "where to listen or what to dial")
	flags.StringVar(&o.chain, "chain", "", "PEM file of the client's SVID; without it plain text is spoken")
	flags.StringVar(&o.key, "key", "", "PEM file of its key")
	flags.StringVar(&o.authorities, "authorities", "", "PEM file of the server's authorities")
	flags.StringVar(&o.id, "id", "", "SPIFFE ID that the server must have")
	flags.IntVar(&o.connections, "connections", 1, "connections")
	flags.IntVar(&o.streams, "streams", 1, "calls at once on each")
	flags.IntVar(&o.bytes, "bytes", 0, "of a message, each way")
	flags.DurationVar(&o.pause, "pause", 0, "between two calls, and between two messages")
	_ = flags.Parse(os.Args[2:])
	if err := commands[os.Args[1]](context.Background(), o); err != nil {
		fail(err)
	}
}

var stdout sync.Mutex

func say(fields map[string]any) {
	text, err := json.Marshal(fields)
	if err != nil {
		fail(err)
	}
	stdout.Lock()
	defer stdout.Unlock()
	fmt.Println(string(text))
}

func fail(err error) {
	text, _ := json.Marshal(map[string]string{"error": err.Error()})
	fmt.Println(string(text))
	os.Exit(1)
}

// commandsOf calls with each line of standard input, until it ends.
func commandsOf(call func(line string)) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		call(strings.TrimSpace(lines.Text()))
	}
}

// dial makes a client with one connection of its own.
func dial(o options) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if o.chain != "" {
		config, err := mutualTLS(o)
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	return grpc.NewClient("passthrough:///"+o.address,
		grpc.WithTransportCredentials(transport),
		grpc.WithAuthority("grpc.test"),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Minute}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
}

// mutualTLS verifies the server's chain, and that it has the SPIFFE ID that it must have.
func mutualTLS(o options) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.chain, o.key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(o.authorities)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates:       []tls.Certificate{pair},
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			pool := x509.NewCertPool()
			for _, certificate := range state.PeerCertificates[1:] {
				pool.AddCert(certificate)
			}
			leaf := state.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool}); err != nil {
				return err
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != o.id {
				return fmt.Errorf("the server is %v, not %s", leaf.URIs, o.id)
			}
			return nil
		},
	}, nil
}
