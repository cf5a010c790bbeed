package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// talk has one connection, and does what the lines of standard input say: "open NAME" begins a stream, "say NAME" sends a message in it
// and takes the answer, "close NAME" ends it well; "call METHOD" makes a unary call, EmptyCall or UnaryCall. Each is answered with one
// line: which server it was, how the call ended, and what the server was told of who calls.
func talk(ctx context.Context, o options) error {
	conn, err := dial(o)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := testgrpc.NewTestServiceClient(conn)
	streams := map[string]testgrpc.TestService_FullDuplexCallClient{}
	tell := func(line string, head metadata.MD, err error) {
		said := map[string]any{"said": line, "code": status.Code(err).String(), "server": strings.Join(head.Get(serverField), ",")}
		if err != nil {
			said["message"] = status.Convert(err).Message()
		}
		if identities := head.Get(identitiesField); len(identities) > 0 {
			said["identities"] = identities
		}
		say(said)
	}
	say(map[string]any{"started": true})
	commandsOf(func(line string) {
		verb, name, _ := strings.Cut(line, " ")
		var head metadata.MD
		var err error
		switch verb {
		case "open":
			streams[name], err = client.FullDuplexCall(ctx)
			fallthrough
		case "say":
			if err == nil {
				err = pingPong(streams[name], 1000)
			}
			if err == nil {
				head, err = streams[name].Header()
			}
		case "close":
			if err = streams[name].CloseSend(); err == nil {
				if _, err = streams[name].Recv(); errors.Is(err, io.EOF) {
					err = nil
				}
			}
		case "call":
			if name == "EmptyCall" {
				_, err = client.EmptyCall(ctx, &testgrpc.Empty{}, grpc.Header(&head))
			} else {
				_, err = client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseSize: 10}, grpc.Header(&head))
			}
		}
		tell(line, head, err)
	})
	return nil
}
