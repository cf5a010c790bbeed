package main

import (
	"context"
	"errors"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	// serverField tells the client which server answered: "1" is the first.
	serverField = "x-server"
	// identityField is who the proxy says that calls.
	identityField = "x-forwarded-client-cert"
	// identitiesField tells the client, one by one, what came of it.
	identitiesField = "x-identity"
)

// serve runs the server of the interoperability cases in plain text. Of the lines of standard input, "restart" lets it end as gRPC
// servers do, with GOAWAY and calls that are answered, and another begin at the same address; "crash" ends it at once before that.
func serve(_ context.Context, o options) error {
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	var methods callCounts
	number := 1
	server := newServer(number, &methods)
	go func() { _ = server.Serve(listener) }()
	say(map[string]any{"listening": address})
	commandsOf(func(line string) {
		switch line {
		case "restart", "crash":
			before := server
			ended := make(chan struct{})
			// Both close the listener first.
			if line == "crash" {
				before.Stop()
				close(ended)
			} else {
				go func() {
					before.GracefulStop()
					close(ended)
				}()
			}
			next, err := listenAgain(address)
			if err != nil {
				fail(err)
			}
			number++
			server = newServer(number, &methods)
			go func() { _ = server.Serve(next) }()
			say(map[string]any{"restarted": number})
			go func(number int) {
				<-ended
				say(map[string]any{"ended": number - 1})
			}(number)
		case "calls":
			say(map[string]any{"calls": methods.all()})
		}
	})
	return nil
}

func listenAgain(address string) (net.Listener, error) {
	end := time.Now().Add(time.Minute)
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return listener, nil
		}
		if time.Now().After(end) {
			return nil, errors.New("the address does not come free: " + err.Error())
		}
		time.Sleep(time.Millisecond)
	}
}

func newServer(number int, methods *callCounts) *grpc.Server {
	mark := func(ctx context.Context, method string) (metadata.MD, error) {
		methods.add(method)
		incoming, _ := metadata.FromIncomingContext(ctx)
		head := metadata.Pairs(serverField, strconv.Itoa(number))
		head.Append(identitiesField, incoming.Get(identityField)...)
		return head, nil
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// It asks whether clients live, and minds no client that asks often.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: time.Minute}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(func(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			head, err := mark(ctx, info.FullMethod)
			if err == nil {
				err = grpc.SetHeader(ctx, head)
			}
			if err != nil {
				return nil, err
			}
			return handle(ctx, in)
		}),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			head, err := mark(stream.Context(), info.FullMethod)
			if err == nil {
				err = stream.SetHeader(head)
			}
			if err != nil {
				return err
			}
			return handle(service, stream)
		}))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	return server
}

// callCounts are the calls that reached the server, by method.
type callCounts struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (c *callCounts) add(method string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[method]++
}

func (c *callCounts) all() map[string]int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	all := map[string]int{}
	for method, count := range c.counts {
		all[method] = count
	}
	return all
}
