package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	grpcService = "bench.v1.Orders"
	grpcMethod  = "/" + grpcService + "/Get"
	// grpcBytes is the length of a question; the answer has smallBodyBytes.
	grpcBytes = 64
)

// startGRPC serves one unary method with grpc-go, in plain text. It looks for the caller's identity as the other applications do.
func startGRPC() (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(1000))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Get",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				question := &wrapperspb.BytesValue{}
				if err := decode(question); err != nil {
					return nil, err
				}
				head, _ := metadata.FromIncomingContext(ctx)
				identities, last := head.Get(identityField), ""
				if len(identities) > 0 {
					last = identities[len(identities)-1]
				}
				if problem := identityProblem(len(identities), last); problem != "" {
					return nil, status.Error(codes.Unauthenticated, problem)
				}
				if len(question.Value) != grpcBytes {
					return nil, status.Errorf(codes.InvalidArgument, "a question of %d bytes, not %d", len(question.Value), grpcBytes)
				}
				return &wrapperspb.BytesValue{Value: smallBody}, nil
			},
		}},
	}, struct{}{})
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), nil
}

// newGRPC is a client over a connection that is there, and over no other.
func newGRPC(conn net.Conn) (*grpc.ClientConn, error) {
	var used atomic.Bool
	return grpc.NewClient("passthrough:///orders.bench.test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection ended")
			}
			return conn, nil
		}))
}

func grpcCall(client *grpc.ClientConn, job Job, question, answer *wrapperspb.BytesValue) error {
	ctx := context.Background()
	if job.ForgedIdentity {
		ctx = metadata.AppendToOutgoingContext(ctx, identityField, "By=spiffe://forged.test/server;URI=spiffe://forged.test/client")
	}
	if err := client.Invoke(ctx, grpcMethod, question, answer); err != nil {
		if status.Code(err) == codes.Unauthenticated {
			return finalError{err}
		}
		return err
	}
	if string(answer.Value) != string(smallBody) {
		return errors.New("the answer is not the application's")
	}
	return nil
}

func grpcQuestion() *wrapperspb.BytesValue {
	return &wrapperspb.BytesValue{Value: []byte(strings.Repeat("q", grpcBytes))}
}

// grpcExchange returns what makes one call on a fresh connection.
func grpcExchange(job Job) func(net.Conn) error {
	return func(conn net.Conn) error {
		client, err := newGRPC(conn)
		if err != nil {
			return err
		}
		defer client.Close()
		return grpcCall(client, job, grpcQuestion(), &wrapperspb.BytesValue{})
	}
}

// grpcCalls makes calls on one connection, so many at once.
func grpcCalls(job Job, conn net.Conn, w *window) error {
	client, err := newGRPC(conn)
	if err != nil {
		return err
	}
	defer client.Close()
	var all sync.WaitGroup
	failures := make(chan error, job.Streams)
	for range job.Streams {
		all.Go(func() {
			question, answer := grpcQuestion(), &wrapperspb.BytesValue{}
			for !w.stop.Load() {
				if err := grpcCall(client, job, question, answer); err != nil {
					failures <- err
					return
				}
				w.done()
			}
		})
	}
	all.Wait()
	return firstOf(failures)
}
