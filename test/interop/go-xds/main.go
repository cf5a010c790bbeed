// xds-peer is an SDS client made of Envoy's own Go types, with nothing of ours in it. It reads one JSON command a line and prints one JSON object
// for each thing that comes; every secret is checked by the rules that Envoy's API has for it.
package main

import (
	"bufio"
	"context"
	gotls "crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// command is one line of input.
type command struct {
	// Open names a new stream of the given variant: sotw, delta, ads or delta-ads.
	Open    string `json:"open"`
	Variant string `json:"variant"`
	// Send names the stream to send on; Fetch asks once.
	Send        string            `json:"send"`
	Fetch       bool              `json:"fetch"`
	Names       []string          `json:"names"`
	Subscribe   []string          `json:"subscribe"`
	Unsubscribe []string          `json:"unsubscribe"`
	Initial     map[string]string `json:"initial"`
	Nonce       string            `json:"nonce"`
	Version     string            `json:"version"`
	Error       string            `json:"error"`
	Node        string            `json:"node"`
	// Type is what to ask for; secrets if it is empty.
	Type string `json:"type"`
}

// held is one secret that came.
type held struct {
	Name string `json:"name"`
	// Kind is "certificate", or what a validation context is made of: "trusted_ca" or "spiffe:" and the number of trust domains, then how many
	// matchers and revocation lists it has, if any.
	Kind    string `json:"kind"`
	Version string `json:"version,omitempty"`
}

type stream struct {
	sotw  grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]
	delta grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: xds-peer unix:///path"))
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	defer connection.Close()
	streams := map[string]*stream{}
	lines := bufio.NewScanner(os.Stdin)
	printLine(map[string]any{"ready": true})
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			fail(err)
		}
		switch {
		case c.Fetch:
			fetch(connection, c)
		case c.Open != "":
			opened, err := open(connection, c.Open, c.Variant)
			if err != nil {
				fail(err)
			}
			streams[c.Open] = opened
		default:
			if err := streams[c.Send].send(c); err != nil && err != io.EOF {
				fail(err)
			}
		}
	}
}

func open(connection *grpc.ClientConn, name, variant string) (*stream, error) {
	ctx := context.Background()
	opened := &stream{}
	var err error
	switch variant {
	case "sotw":
		opened.sotw, err = secret.NewSecretDiscoveryServiceClient(connection).StreamSecrets(ctx)
	case "ads":
		opened.sotw, err = discovery.NewAggregatedDiscoveryServiceClient(connection).StreamAggregatedResources(ctx)
	case "delta":
		opened.delta, err = secret.NewSecretDiscoveryServiceClient(connection).DeltaSecrets(ctx)
	case "delta-ads":
		opened.delta, err = discovery.NewAggregatedDiscoveryServiceClient(connection).DeltaAggregatedResources(ctx)
	default:
		err = fmt.Errorf("unknown variant %q", variant)
	}
	if err != nil {
		return nil, err
	}
	go opened.receive(name)
	return opened, nil
}

func (s *stream) send(c command) error {
	var node *core.Node
	if c.Node != "" {
		node = &core.Node{Id: c.Node, UserAgentName: "go-control-plane"}
	}
	var detail *rpcstatus.Status
	if c.Error != "" {
		detail = &rpcstatus.Status{Code: 13, Message: c.Error}
	}
	typeURL := secretType
	if c.Type != "" {
		typeURL = c.Type
	}
	if s.sotw != nil {
		return s.sotw.Send(&discovery.DiscoveryRequest{
			Node: node, TypeUrl: typeURL, ResourceNames: c.Names, ResponseNonce: c.Nonce, VersionInfo: c.Version, ErrorDetail: detail,
		})
	}
	return s.delta.Send(&discovery.DeltaDiscoveryRequest{
		Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: c.Subscribe, ResourceNamesUnsubscribe: c.Unsubscribe,
		InitialResourceVersions: c.Initial, ResponseNonce: c.Nonce, ErrorDetail: detail,
	})
}

func (s *stream) receive(name string) {
	for {
		var secrets []held
		var version, nonce, typeURL string
		removed := []string{}
		if s.sotw != nil {
			response, err := s.sotw.Recv()
			if err != nil {
				ended(name, err)
				return
			}
			checked(response.ValidateAll())
			version, nonce, typeURL = response.VersionInfo, response.Nonce, response.TypeUrl
			for _, resource := range response.Resources {
				secrets = append(secrets, read(resource, ""))
			}
		} else {
			response, err := s.delta.Recv()
			if err != nil {
				ended(name, err)
				return
			}
			checked(response.ValidateAll())
			version, nonce, typeURL = response.SystemVersionInfo, response.Nonce, response.TypeUrl
			removed = append(removed, response.RemovedResources...)
			for _, resource := range response.Resources {
				one := read(resource.Resource, resource.Version)
				if one.Name != resource.Name {
					fail(fmt.Errorf("the resource %q holds the secret %q", resource.Name, one.Name))
				}
				secrets = append(secrets, one)
			}
		}
		printLine(map[string]any{"on": name, "type": typeURL, "version": version, "nonce": nonce, "secrets": secrets, "removed": removed})
	}
}

func fetch(connection *grpc.ClientConn, c command) {
	request := &discovery.DiscoveryRequest{TypeUrl: secretType, ResourceNames: c.Names}
	response, err := secret.NewSecretDiscoveryServiceClient(connection).FetchSecrets(context.Background(), request)
	if err != nil {
		ended("fetch", err)
		return
	}
	checked(response.ValidateAll())
	var secrets []held
	for _, resource := range response.Resources {
		secrets = append(secrets, read(resource, ""))
	}
	printLine(map[string]any{"on": "fetch", "secrets": secrets})
}

// read checks a secret as Envoy does, down to the validator's own message and what is in PEM.
func read(resource *anypb.Any, version string) held {
	var one tls.Secret
	checked(resource.UnmarshalTo(&one))
	checked(one.ValidateAll())
	kind := "certificate"
	if context := one.GetValidationContext(); context != nil {
		kind = readContext(context)
	} else if certificate := one.GetTlsCertificate(); certificate != nil {
		_, err := gotls.X509KeyPair(certificate.CertificateChain.GetInlineBytes(), certificate.PrivateKey.GetInlineBytes())
		checked(err)
	} else {
		fail(fmt.Errorf("the secret %q is neither", one.Name))
	}
	return held{Name: one.Name, Kind: kind, Version: version}
}

func readContext(context *tls.CertificateValidationContext) string {
	kind := "trusted_ca"
	lists := 0
	if custom := context.GetCustomValidatorConfig(); custom != nil {
		var config tls.SPIFFECertValidatorConfig
		checked(custom.TypedConfig.UnmarshalTo(&config))
		checked(config.ValidateAll())
		kind = fmt.Sprintf("spiffe:%d", len(config.TrustDomains))
		for _, domain := range config.TrustDomains {
			lists += readPEM(domain.TrustBundle.GetInlineBytes())
		}
	} else {
		lists = readPEM(context.TrustedCa.GetInlineBytes()) + readPEM(context.Crl.GetInlineBytes())
	}
	if matchers := len(context.MatchTypedSubjectAltNames); matchers > 0 {
		kind += fmt.Sprintf(" matchers:%d", matchers)
	}
	if lists > 0 {
		kind += fmt.Sprintf(" crls:%d", lists)
	}
	return kind
}

// readPEM parses every block, and counts the revocation lists.
func readPEM(text []byte) int {
	lists := 0
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			if len(text) > 0 {
				fail(fmt.Errorf("%d bytes after the last PEM block", len(text)))
			}
			return lists
		}
		var err error
		switch block.Type {
		case "CERTIFICATE":
			_, err = x509.ParseCertificate(block.Bytes)
		case "X509 CRL":
			_, err = x509.ParseRevocationList(block.Bytes)
			lists++
		default:
			err = fmt.Errorf("a PEM block of type %q", block.Type)
		}
		checked(err)
		text = rest
	}
}

func ended(name string, err error) {
	printLine(map[string]any{"on": name, "ended": status.Code(err).String(), "detail": status.Convert(err).Message()})
}

func checked(err error) {
	if err != nil {
		fail(err)
	}
}

var printing sync.Mutex

func printLine(value any) {
	printing.Lock()
	defer printing.Unlock()
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func fail(err error) {
	printLine(map[string]any{"error": err.Error()})
	os.Exit(1)
}
