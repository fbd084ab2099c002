package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Stop is how a tool is asked to stop. The first INT, TERM or HUP closes
// Requested: finish the chunk in hand, take no new one. The second, INT or TERM,
// cancels Context: abort and roll back at once.
type Stop struct {
	Context   context.Context
	requested chan struct{}

	mu      sync.Mutex
	waiting func() string
}

// again is how long after the first signal another one is a request of its own:
// timeout(1) signals its child and then its group.
const again = 50 * time.Millisecond

// grace is how long an aborted tool may take to tell the server; the server
// rolls back in any case once the connection is gone.
const grace = time.Second

// Signals installs the handlers. A signal that the parent had ignored (a
// background job of a script, nohup) stays ignored.
func Signals(log *Log) *Stop {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stop{Context: ctx, requested: make(chan struct{})}
	c := make(chan os.Signal, 2)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	go func() {
		if sig, what := <-c, s.waitingFor(); sig == os.Interrupt && what != "" {
			log.Info("waiting for %s; once more rolls it back", what)
		} else {
			log.Detail("stopping after the chunk in hand; once more to roll it back")
		}
		close(s.requested)
		// A terminal that goes away hangs up twice: its shell does, and when that ends,
		// the system.
		for first := time.Now(); ; {
			if sig := <-c; sig != syscall.SIGHUP && time.Since(first) > again {
				break
			}
		}
		cancel()
		time.Sleep(grace) // a pending read of stdin cannot be cancelled
		os.Exit(Stopped)
	}()
	return s
}

// Waiting has the tool say, at the first ^C, what it waits for: the text that f returns;
// nothing if that is empty. At a TERM it does not: that comes from a program, bf-backfill
// for example, which says so for all its lanes.
func (s *Stop) Waiting(f func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = f
}

func (s *Stop) waitingFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return ""
	}
	return s.waiting()
}

// Immediately ends the process at the first signal, for a command in which
// nothing is worth waiting for.
func (s *Stop) Immediately() {
	go func() {
		<-s.requested
		os.Exit(Stopped)
	}()
}

// Requested is closed when the tool should take no new chunk.
func (s *Stop) Requested() <-chan struct{} { return s.requested }

// Asked reports whether Requested is closed.
func (s *Stop) Asked() bool {
	select {
	case <-s.requested:
		return true
	default:
		return false
	}
}

// Await runs f and returns its result, unless a stop is requested first, or gone
// is closed (nil for never): then ok is false, and f goes on in the background
// for as long as the process lives. It is for reads of stdin between two chunks.
func Await[T any](s *Stop, gone <-chan struct{}, f func() T) (v T, ok bool) {
	if s.Asked() {
		return v, false
	}
	c := make(chan T, 1)
	go func() { c <- f() }()
	select {
	case v = <-c:
		return v, true
	case <-s.requested:
	case <-gone:
	}
	return v, false
}
