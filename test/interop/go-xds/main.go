// xds-peer is an SDS client made of Envoy's own Go types, with nothing of ours in it. It reads one JSON command a line and prints one JSON object
// for each thing that comes; every secret is checked by the rules that Envoy's API has for it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
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
}

// held is one secret that came.
type held struct {
	Name    string `json:"name"`
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
	if s.sotw != nil {
		return s.sotw.Send(&discovery.DiscoveryRequest{
			Node: node, TypeUrl: secretType, ResourceNames: c.Names, ResponseNonce: c.Nonce, VersionInfo: c.Version, ErrorDetail: detail,
		})
	}
	return s.delta.Send(&discovery.DeltaDiscoveryRequest{
		Node: node, TypeUrl: secretType, ResourceNamesSubscribe: c.Subscribe, ResourceNamesUnsubscribe: c.Unsubscribe,
		InitialResourceVersions: c.Initial, ResponseNonce: c.Nonce, ErrorDetail: detail,
	})
}

func (s *stream) receive(name string) {
	for {
		var secrets []held
		var version, nonce string
		removed := []string{}
		if s.sotw != nil {
			response, err := s.sotw.Recv()
			if err != nil {
				ended(name, err)
				return
			}
			checked(response.ValidateAll())
			version, nonce = response.VersionInfo, response.Nonce
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
			version, nonce = response.SystemVersionInfo, response.Nonce
			removed = append(removed, response.RemovedResources...)
			for _, resource := range response.Resources {
				one := read(resource.Resource, resource.Version)
				if one.Name != resource.Name {
					fail(fmt.Errorf("the resource %q holds the secret %q", resource.Name, one.Name))
				}
				secrets = append(secrets, one)
			}
		}
		printLine(map[string]any{"on": name, "version": version, "nonce": nonce, "secrets": secrets, "removed": removed})
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

// read checks a secret as Envoy does, down to the validator's own message.
func read(resource *anypb.Any, version string) held {
	var one tls.Secret
	checked(resource.UnmarshalTo(&one))
	checked(one.ValidateAll())
	kind := "certificate"
	if context := one.GetValidationContext(); context != nil {
		kind = "trusted_ca"
		if custom := context.GetCustomValidatorConfig(); custom != nil {
			var config tls.SPIFFECertValidatorConfig
			checked(custom.TypedConfig.UnmarshalTo(&config))
			checked(config.ValidateAll())
			kind = fmt.Sprintf("spiffe:%d", len(config.TrustDomains))
		}
	} else if one.GetTlsCertificate() == nil {
		fail(fmt.Errorf("the secret %q is neither", one.Name))
	}
	return held{Name: one.Name, Kind: kind, Version: version}
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
