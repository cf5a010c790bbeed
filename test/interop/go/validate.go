package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

// validate reads lines of JSON from standard input: first the bundles, then one token each, and says of each whose it is, or why not; and what CPU time that took.
func validate(_ context.Context, o options) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return fmt.Errorf("there are no bundles")
	}
	var documents map[string]json.RawMessage
	if err := json.Unmarshal(lines.Bytes(), &documents); err != nil {
		return err
	}
	set := jwtbundle.NewSet()
	for name, document := range documents {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return err
		}
		parsed, err := jwtbundle.Parse(domain, document)
		if err != nil {
			return err
		}
		set.Add(parsed)
	}
	tokens := []string{}
	for lines.Scan() {
		var token string
		if err := json.Unmarshal(lines.Bytes(), &token); err != nil {
			return err
		}
		tokens = append(tokens, token)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	began, before := time.Now(), ranMicroseconds()
	answers := []map[string]any{}
	for _, token := range tokens {
		svid, err := jwtsvid.ParseAndValidate(token, set, []string{o.audience})
		if err != nil {
			answers = append(answers, map[string]any{"error": err.Error()})
		} else {
			answers = append(answers, map[string]any{"id": svid.ID.String()})
		}
	}
	printLine(map[string]any{"answers": answers, "began_ms": began.UnixMilli(), "cpu_us": ranMicroseconds() - before})
	return nil
}

// ranMicroseconds is the CPU time of this process so far.
func ranMicroseconds() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}
