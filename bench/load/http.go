package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// smallBodyBytes is the length of the application's answer to everything that asks for no more.
const smallBodyBytes = 100

const (
	smallPath = "/api/v1/orders/48213?expand=items"
	// bulkPath is followed by the number of bytes to send.
	bulkPath = "/files/"
	// identityField tells the application who called; it is required exactly once in every request.
	identityField = "x-forwarded-client-cert"
)

var (
	crlf    = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
)

// field is one line of a head, in the order in which it is sent.
type field struct{ name, value string }

// httpFields are those that follow the method, the target and the host.
func httpFields(job Job) []field {
	fields := []field{{"user-agent", "orders-client/2.14 (linux; amd64)"}, {"accept", "application/json"}}
	if job.Cookies {
		fields = append(fields, cookieFields()...)
	}
	if job.ForgedIdentity {
		fields = append(fields, field{identityField, "By=spiffe://forged.test/server;URI=spiffe://forged.test/client"})
		if job.Subject != "" {
			fields = append(fields, field{subjectField, "spiffe://forged.test/client"})
		}
	}
	if job.UpBytes > 0 {
		fields = append(fields, field{"content-type", "application/octet-stream"}, field{"content-length", strconv.FormatInt(job.UpBytes, 10)})
	}
	return fields
}

// cookieFields are 1.5 KiB of what a browser behind a traced gateway sends.
func cookieFields() []field {
	const hex = "4bf92f3577b34da6a3ce929d0e0e4736"
	cookies := []string{
		"session=" + strings.Repeat("eyJhbGciOiJFUzI1NiIsImtpZCI6Ij", 20),
		"csrf=" + strings.Repeat(hex, 2),
		"consent=" + strings.Repeat("analytics%3Dfalse%26ads%3Dfalse", 4),
		"_ga=GA1.2.1837465920.1764096000",
		"_ga_9XK2LM4N=GS1.1.1764096000.41.1.1764096731.60.0.0",
		"experiments=" + strings.Repeat("checkout-v3%3Ab.", 12),
		"locale=en-GB; theme=dark; region=eu-central-1",
	}
	return []field{
		{"accept-language", "en-GB,en;q=0.9,de;q=0.7"},
		{"accept-encoding", "gzip, deflate, br, zstd"},
		{"referer", "https://shop.bench.test/orders?page=3&sort=created"},
		{"x-request-id", "0af76519-16cd-43dd-8448-eb211c80319c"},
		{"traceparent", "00-" + hex + "-00f067aa0ba902b7-01"},
		{"tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"},
		{"baggage", "tenant=4711,release=2026.11.2,canary=false"},
		{"cookie", strings.Join(cookies, "; ")},
	}
}

// methodAndTarget say what the application shall do: read the body, send a long one, or neither.
func methodAndTarget(job Job) (method, target string) {
	switch {
	case job.UpBytes > 0:
		return "POST", bulkPath + "0"
	case job.DownBytes > 0:
		return "GET", bulkPath + strconv.FormatInt(job.DownBytes, 10)
	default:
		return "GET", smallPath
	}
}

// answerBytes is the length of the body that answers the job's request.
func answerBytes(job Job) int64 {
	if job.DownBytes > 0 {
		return job.DownBytes
	}
	return smallBodyBytes
}

// valueOf returns the value of a field line (without its CRLF) if it has this lower-case name.
func valueOf(line []byte, name string) (string, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !equalFold(line[:len(name)], name) {
		return "", false
	}
	return string(bytes.TrimSpace(line[len(name)+1:])), true
}

// equalFold is bytes.EqualFold for ASCII, without a conversion.
func equalFold(text []byte, lower string) bool {
	for i := range text {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// eachLine calls with every field line of a head that ends with an empty line; the first line is left out.
func eachLine(head []byte, call func(line []byte)) {
	_, rest, _ := bytes.Cut(head, crlf)
	for {
		line, next, found := bytes.Cut(rest, crlf)
		if !found || len(line) == 0 {
			return
		}
		call(line)
		rest = next
	}
}

// contentLength is the body's length of a message whose framing both ends know to be no other.
func contentLength(head []byte) (int64, error) {
	var length int64
	var err error
	eachLine(head, func(line []byte) {
		if value, is := valueOf(line, "content-length"); is {
			length, err = strconv.ParseInt(value, 10, 64)
		} else if value, is := valueOf(line, "transfer-encoding"); is {
			err = fmt.Errorf("the proxy changed the framing to %q", value)
		}
	})
	return length, err
}

// notOK is the error of a response with another status than 200. That of the application is final: the proxy does not label requests.
func notOK(status string, body []byte) error {
	err := fmt.Errorf("the response is not 200 but %s: %q", status, body)
	if strings.HasPrefix(status, "500") {
		return finalError{err}
	}
	return err
}
