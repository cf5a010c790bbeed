package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lateLimit is how late a request may be sent through the load's own doing.
	lateLimit = time.Millisecond
	// behindLimit is how long after it was due a request may be sent because those before it took long.
	behindLimit = 30 * time.Second
)

// schedule says when each request of an offer job is due, whatever became of those before.
type schedule struct {
	begin, open, close time.Time
	// interval is the time between two requests of one connection.
	interval    time.Duration
	connections int
}

func newSchedule(job Job) schedule {
	begin := time.Now()
	open := begin.Add(time.Duration(job.WarmUpMs) * time.Millisecond)
	return schedule{
		begin:       begin,
		open:        open,
		close:       open.Add(time.Duration(job.WindowMs) * time.Millisecond),
		interval:    time.Duration(float64(job.Connections) / job.Rate * float64(time.Second)),
		connections: job.Connections,
	}
}

// due is when the connection's nth request is to be sent: the connections take turns.
func (s schedule) due(connection, n int) time.Time {
	return s.begin.Add(time.Duration(n)*s.interval + s.interval*time.Duration(connection)/time.Duration(s.connections))
}

// perConnection is about how many requests one connection sends within the window.
func (s schedule) perConnection() int { return int(s.close.Sub(s.open)/s.interval) + 1 }

// offer sends at a fixed rate and times each request from when it was due, not from when it was sent: one that waits because the one
// before took long is not left out (coordinated omission). What the load itself
// sent late is told as well.
func (c *client) offer() (Result, error) {
	var begun, waited, late atomic.Int64
	var plan schedule
	start := make(chan struct{})
	worker := func(w *window, ready func()) error {
		conn, err := c.dial()
		if err != nil {
			ready()
			return err
		}
		defer conn.Close()
		exchange := c.newExchange(8 << 10)
		err = exchange(conn)
		ready()
		if err != nil {
			return err
		}
		clock, err := newTimer()
		if err != nil {
			return err
		}
		defer clock.Close()
		<-start
		index := int(begun.Add(1) - 1)
		times := make([]time.Duration, 0, plan.perConnection())
		for n := 0; !w.failed.Load(); n++ {
			due := plan.due(index, n)
			if !due.Before(plan.close) {
				w.add(times)
				return nil
			}
			counts := !due.Before(plan.open)
			wait := time.Until(due)
			if wait > 0 {
				if err := clock.wait(wait); err != nil {
					return err
				}
				if counts {
					waited.Add(1)
					if time.Since(due) > lateLimit {
						late.Add(1)
					}
				}
			}
			if wait < -behindLimit {
				return fmt.Errorf("the proxy is %s behind %.0f requests/s", -wait, c.job.Rate)
			}
			if err := exchange(conn); err != nil {
				return err
			}
			w.done()
			if counts {
				times = append(times, time.Since(due))
			}
		}
		return nil
	}
	result, err := c.measure(worker, func() {
		plan = newSchedule(c.job)
		close(start)
	})
	if n := waited.Load(); n > 0 {
		result.LateShare = float64(late.Load()) / float64(n)
	}
	return result, err
}

// timer wakes to the microsecond: Go's own timers go by milliseconds when the process is otherwise idle.
type timer struct {
	file *os.File
	fd   int
}

func newTimer() (*timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &timer{file: os.NewFile(uintptr(fd), "timer"), fd: fd}, nil
}

func (t *timer) wait(d time.Duration) error {
	if err := unix.TimerfdSettime(t.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil); err != nil {
		return err
	}
	var expirations [8]byte
	_, err := t.file.Read(expirations[:])
	return err
}

func (t *timer) Close() error { return t.file.Close() }
