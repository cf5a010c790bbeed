package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"sort"
	"time"
)

// seenRequest is a request as net/http took it.
type seenRequest struct {
	Method   string      `json:"method"`
	Target   string      `json:"target"`
	Bytes    int         `json:"bytes"`
	SHA256   string      `json:"sha256"`
	Whole    bool        `json:"whole"`
	Fields   [][2]string `json:"fields"`
	Trailers [][2]string `json:"trailers"`
}

// web is an application in plain HTTP/1.1 that prints every request, and answers it with its target.
func web(ctx context.Context, o options) error {
	// Without a mux, which would redirect paths that are not clean.
	return serveWeb(ctx, o, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		sum := sha256.Sum256(body)
		printLine(map[string]any{"request": seenRequest{
			Method:   request.Method,
			Target:   request.RequestURI,
			Bytes:    len(body),
			SHA256:   hex.EncodeToString(sum[:]),
			Whole:    err == nil,
			Fields:   pairsOf(request.Header),
			Trailers: pairsOf(request.Trailer),
		}})
		response.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(response, "seen\n")
	}))
}

// serveWeb serves plain HTTP/1.1 until ctx is done, and says where.
func serveWeb(ctx context.Context, o options, handler http.Handler) error {
	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, DisableGeneralOptionsHandler: true, ReadHeaderTimeout: 10 * time.Second}
	printLine(map[string]any{"listening": listener.Addr().String()})
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func pairsOf(header http.Header) [][2]string {
	pairs := [][2]string{}
	for name, values := range header {
		for _, value := range values {
			pairs = append(pairs, [2]string{name, value})
		}
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i][0] < pairs[j][0] })
	return pairs
}
