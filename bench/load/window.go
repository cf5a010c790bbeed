package main

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// window is the time in which something is measured, as its workers see it.
type window struct {
	// stop is set at its end, and by the first failure, which sets failed as well.
	stop, failed atomic.Bool
	// open is whether what ends now counts.
	open  atomic.Bool
	count atomic.Int64

	mutex sync.Mutex
	times []time.Duration
}

// done counts one.
func (w *window) done() { w.count.Add(1) }

// add hands over what one worker timed.
func (w *window) add(times []time.Duration) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.times = append(w.times, times...)
}

// measure runs as many workers as the job has connections, and counts what they do within the window. It calls `begin` when all are
// ready.
func (c *client) measure(worker func(w *window, ready func()) error, begin func()) (Result, error) {
	var w window
	var all, connected sync.WaitGroup
	failures := make(chan error, c.job.Connections)
	for range c.job.Connections {
		connected.Add(1)
		all.Go(func() {
			if err := worker(&w, connected.Done); err != nil {
				failures <- err
				w.failed.Store(true)
				w.stop.Store(true)
			}
		})
	}
	connected.Wait()
	begin()
	sleep(&w.stop, c.job.WarmUpMs)
	before, opened, first := threadTimes(c.job.Pids), time.Now(), w.count.Load()
	w.open.Store(true)
	sleep(&w.stop, c.job.WindowMs)
	w.open.Store(false)
	after, closed, last := threadTimes(c.job.Pids), time.Now(), w.count.Load()
	w.stop.Store(true)
	all.Wait()
	result := Result{Count: last - first, CPUSeconds: ranSeconds(before, after), WallSeconds: closed.Sub(opened).Seconds()}
	result.P50Ms, result.P99Ms = percentiles(w.times)
	return result, firstOf(failures)
}

func sleep(stop *atomic.Bool, ms int) {
	for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end) && !stop.Load(); {
		time.Sleep(min(50*time.Millisecond, time.Until(end)))
	}
}

// percentiles are the 50th and the 99th, in milliseconds; 0 of nothing.
func percentiles(times []time.Duration) (p50, p99 float64) {
	if len(times) == 0 {
		return 0, 0
	}
	slices.Sort(times)
	at := func(percent int) float64 {
		return float64(times[(len(times)-1)*percent/100]) / float64(time.Millisecond)
	}
	return at(50), at(99)
}

// firstOf is the first failure, if there is one: the others follow from it.
func firstOf(failures <-chan error) error {
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

var errOutOfTime = errors.New("out of time")
