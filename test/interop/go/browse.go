package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

type browsed struct {
	Status  int    `json:"status"`
	Version string `json:"version"`
	Body    string `json:"body"`
}

// browse makes several requests over one connection, some with a body of `size` bytes, and prints the answers.
func browse(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	config, end, err := clientConfig(ctx, o)
	if err != nil {
		return err
	}
	defer end()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(o.protocol == "http1")
	protocols.SetHTTP2(o.protocol == "h2")
	transport := &http.Transport{
		TLSClientConfig:       config,
		Protocols:             protocols,
		ExpectContinueTimeout: 10 * time.Second,
	}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport}

	body := bytes.Repeat([]byte("x"), o.size)
	known := func() io.Reader { return bytes.NewReader(body) }
	// Without a length that net/http could find out.
	unknown := func() io.Reader { return io.MultiReader(bytes.NewReader(body)) }
	none := func() io.Reader { return nil }
	answers := []browsed{}
	for index, step := range []struct {
		method, path string
		body         func() io.Reader
		expect       bool
	}{
		{"GET", "/get?x=1", none, false},
		{"POST", "/length", known, false},
		{"PUT", "/chunks", unknown, false},
		{"PUT", "/continue", known, true},
		{"HEAD", "/head", none, false},
		{"DELETE", "/204", none, false},
		{"GET", "/404", none, false},
	} {
		if o.count > 0 && index == o.count {
			break
		}
		request, err := http.NewRequestWithContext(ctx, step.method, "https://"+o.address+step.path, step.body())
		if err != nil {
			return err
		}
		if step.expect {
			request.Header.Set("Expect", "100-continue")
		}
		response, err := web.Do(request)
		if err != nil {
			return fmt.Errorf("%s %s: %w", step.method, step.path, err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", step.method, step.path, err)
		}
		response.Body.Close()
		answers = append(answers, browsed{response.StatusCode, response.Proto, string(text)})
	}
	printLine(map[string]any{"answers": answers})
	return nil
}
