// spiffe-peer is the other side in the tests: SPIFFE as go-spiffe does it, with nothing of ours in it.
// Every command prints one JSON object a line.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// options are the same for all commands; each uses what it needs.
type options struct {
	socket   string
	address  string
	peer     string
	protocol string
	message  string
	audience string
	domain   string
	url      string
	roots    string
	size     int
	interval time.Duration
	count    int
	timeout  time.Duration
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: spiffe-peer fetch|watch|client|hold|server|web|routes|browse|bundle|bundle-endpoint|hpack|validate [flags]"))
	}
	if os.Args[1] == "hpack" {
		if err := hpack(); err != nil {
			fail(err)
		}
		return
	}
	commands := map[string]func(context.Context, options) error{
		"fetch":           fetch,
		"watch":           watch,
		"client":          client,
		"hold":            hold,
		"server":          server,
		"web":             web,
		"routes":          routes,
		"browse":          browse,
		"bundle":          bundle,
		"bundle-endpoint": bundleEndpoint,
		"validate":        validate,
	}
	command, known := commands[os.Args[1]]
	if !known {
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "Workload API endpoint")
	flags.StringVar(&o.address, "address", "127.0.0.1:0", "where to listen or what to dial")
	flags.StringVar(&o.peer, "peer", "", "SPIFFE ID that the other side must have")
	flags.StringVar(&o.protocol, "protocol", "tcp", "tcp, http1 or h2; routes: mux or files")
	flags.StringVar(&o.message, "message", "hello", "what to send")
	flags.StringVar(&o.audience, "audience", "", "fetch: of a JWT-SVID to ask for; validate: that tokens must be for")
	flags.StringVar(&o.domain, "domain", "", "bundle: trust domain of the bundle")
	flags.StringVar(&o.url, "url", "", "bundle: the endpoint")
	flags.StringVar(&o.roots, "roots", "", "bundle: a file with the authorities (PEM) of the endpoint, instead of peer")
	flags.IntVar(&o.size, "size", 1000, "browse: bytes of a body")
	flags.IntVar(&o.count, "count", 0, "browse: requests to make, if not all")
	flags.DurationVar(&o.interval, "interval", 0, "hold: between two things that are asked; 0: only one is")
	flags.DurationVar(&o.timeout, "timeout", 15*time.Second, "for all but watch, the servers, web and routes")
	if err := flags.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := command(ctx, o); err != nil {
		fail(err)
	}
}

func newSource(ctx context.Context, o options) (*workloadapi.X509Source, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(o.socket)))
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
