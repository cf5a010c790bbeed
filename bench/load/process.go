package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// threadTimes returns the run time in nanoseconds of every thread of the processes.
func threadTimes(pids []int) map[string]int64 {
	times := map[string]int64{}
	for _, pid := range pids {
		paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			first, _, _ := strings.Cut(string(text), " ")
			if ns, err := strconv.ParseInt(first, 10, 64); err == nil {
				times[path] = ns
			}
		}
	}
	return times
}

// ranSeconds is what the threads ran between two readings; a thread that began in between counts from nothing.
func ranSeconds(before, after map[string]int64) float64 {
	var ns int64
	for path, end := range after {
		ns += end - before[path]
	}
	return float64(ns) / 1e9
}

// residentBytes is the resident memory of the processes.
func residentBytes(pids []int) int64 {
	var pages int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text))
		if len(fields) > 1 {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}
