// Command load is both the load and the application behind the proxy under measurement. It reads one JSON job a line from standard
// input and answers each with one JSON result a line; it ends when standard input does.
//
// The proxy's CPU time is read in here, at the edges of the measured window: the process that starts the jobs shares a core with
// this one and would look late.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"
)

// Job is one measurement through a proxy.
type Job struct {
	// Work is one of exchange, offer, connect, idle, first, count, once.
	Work string `json:"work"`
	// Target is the proxy's address, host:port.
	Target string `json:"target"`
	// CertFile, KeyFile and CaFile are PEM files: the client's SVID, its key, and the authorities of the server.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	CaFile   string `json:"caFile"`
	// ServerID is the SPIFFE ID that the proxy must show.
	ServerID string `json:"serverId"`
	// Plain is whether the proxy is reached without TLS.
	Plain bool `json:"plain"`
	// Protocol is what is spoken: frames (128 bytes and what they announce), http1, http2 or grpc.
	Protocol string `json:"protocol"`
	// Identity is the value of X-Forwarded-Client-Cert that the application wants in every request over HTTP; a * in it stands for a
	// hash in hex.
	Identity string `json:"identity"`
	// ForgedIdentity makes the client send such a field itself.
	ForgedIdentity bool `json:"forgedIdentity"`
	// Cookies makes a request 1.5 KiB longer: cookies and tracing fields.
	Cookies bool `json:"cookies"`
	// TokenFile has one bearer token a line: a connection has the next one in the Authorization of all its requests, or, with NewTokens,
	// another one in each.
	TokenFile string `json:"tokenFile"`
	NewTokens bool   `json:"newTokens"`
	// Subject is what the application wants in X-Spiffe-Jwt-Subject, with no Authorization beside it. Nothing is looked for if it is empty.
	Subject string `json:"subject"`
	// Connections is the number of concurrent connections (exchange, idle) or clients (connect).
	Connections int `json:"connections"`
	// Streams is how many requests each HTTP/2 connection of an exchange has under way; of an idle job, how many it has had, all at
	// once.
	Streams int `json:"streams"`
	// UpBytes and DownBytes follow the 128-byte request and answer of every exchange; over HTTP they are the bodies.
	UpBytes   int64 `json:"upBytes"`
	DownBytes int64 `json:"downBytes"`
	// Rate is how many requests a second an offer job sends over all its connections.
	Rate float64 `json:"rate"`
	// Total is how many connections a count job makes, one after the other in each client.
	Total    int64 `json:"total"`
	WarmUpMs int   `json:"warmUpMs"`
	WindowMs int   `json:"windowMs"`
	// Pids are the proxy's processes.
	Pids []int `json:"pids"`
}

// Result answers one Job.
type Result struct {
	Error string `json:"error,omitempty"`
	// Count is what was finished within the window: exchanges, or connections.
	Count int64 `json:"count"`
	// CPUSeconds is what the proxy's threads ran within the window, WallSeconds its length.
	CPUSeconds  float64 `json:"cpuSeconds"`
	WallSeconds float64 `json:"wallSeconds"`
	// P50Ms and P99Ms are how long exchanges took; those of an offer job from when they were due.
	P50Ms float64 `json:"p50Ms"`
	P99Ms float64 `json:"p99Ms"`
	// LateShare is how many of the requests of an offer job, which had only their time to wait for, the load sent over a millisecond
	// late.
	LateShare float64 `json:"lateShare"`
	// RSSBytes is the proxy's resident memory while the connections of an idle job are open.
	RSSBytes int64 `json:"rssBytes"`
	// TLS is what was negotiated: version, cipher suite, group.
	TLS string `json:"tls"`
}

func main() {
	applications := map[string]string{}
	start := func(protocol string, start func() (string, error)) {
		address, err := start()
		if err != nil {
			fmt.Fprintln(os.Stderr, "load: cannot start the application:", err)
			os.Exit(1)
		}
		applications[protocol] = address
	}
	for protocol, serve := range map[string]func(net.Conn){"tcp": serveFrames, "http": serveHTTP, "h2c": serveH2C} {
		start(protocol, func() (string, error) { return startApplication(serve) })
	}
	start("grpc", startGRPC)
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(map[string]any{"applications": applications})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var job Job
		if err := json.Unmarshal(lines.Bytes(), &job); err != nil {
			_ = out.Encode(Result{Error: "job: " + err.Error()})
			continue
		}
		// Bounded whatever the proxy does: a job that hangs is the harness' failure to report, not to wait for.
		limit := time.Duration(job.WarmUpMs+job.WindowMs)*time.Millisecond + 60*time.Second
		done := make(chan Result, 1)
		go func() { done <- run(job) }()
		select {
		case result := <-done:
			_ = out.Encode(result)
		case <-time.After(limit):
			_ = out.Encode(Result{Error: fmt.Sprintf("%s did not end within %s", job.Work, limit)})
			os.Exit(1)
		}
	}
}
