package main

import (
	"context"
	"io"
	"net/http"
	"path"
	"strings"
)

// routes is an application of which a part is for nobody: "denied" says that this was reached, "open" that something else
// was. With -protocol mux it is routed by the ServeMux, else as http.FileServer finds files, which takes any path for a clean one.
func routes(ctx context.Context, o options) error {
	answer := func(text string) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			response.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(response, text)
		})
	}
	denied, open := answer("denied"), answer("open")
	var handler http.Handler
	if o.protocol == "mux" {
		mux := http.NewServeMux()
		mux.Handle("/admin", denied)
		mux.Handle("/admin/", denied)
		mux.Handle("secret.example/", denied)
		mux.Handle("127.0.0.2/", denied)
		mux.Handle("/", open)
		handler = mux
	} else {
		handler = http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			clean := path.Clean("/" + request.URL.Path)
			host := request.URL.Hostname()
			if host == "" {
				host, _, _ = strings.Cut(request.Host, ":")
			}
			host = strings.TrimSuffix(strings.ToLower(host), ".")
			if clean == "/admin" || strings.HasPrefix(clean, "/admin/") || host == "secret.example" || host == "127.0.0.2" {
				denied.ServeHTTP(response, request)
			} else {
				open.ServeHTTP(response, request)
			}
		})
	}
	return serveWeb(ctx, o, handler)
}
