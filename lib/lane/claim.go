package lane

import (
	"errors"
	"time"

	"bf/lib/cli"
	"bf/lib/queue"
)

// How often a lane looks whether its tasks are done: at first as often as tiny
// chunks need it, then less and less, so that it costs little with large ones. The
// lane ends that much later than its last task: at most a quarter of the time that this
// took.
const (
	pollFirst = 3 * time.Millisecond
	pollLast  = 250 * time.Millisecond
)

// sameSignal is how much later than its reader a process may be to see a signal that
// was sent to both.
const sameSignal = 500 * time.Millisecond

// Claim hands out task after task to write, until nothing is pending, the reader of
// the records goes away or a stop is requested.
func Claim(e *cli.Env, tasks *queue.Lane, write func(*queue.Entry) error) error {
	gone := cli.ReaderGone(e.Stdout)
	for poll := pollFirst; ; {
		if e.Stop.Asked() {
			return cli.Exit(cli.Stopped)
		}
		entry, more, err := tasks.Next(e.Stop.Context)
		switch {
		case err != nil:
			return err
		case entry != nil:
			if err := write(entry); err != nil {
				return err
			}
			poll = pollFirst
			continue
		case !more:
			return nil
		}
		select {
		case <-time.After(poll):
		case <-e.Stop.Requested():
		case <-gone:
			// ^C reaches the reader as well, and maybe first.
			select {
			case <-time.After(sameSignal):
				return errors.New("the reader of the records is gone")
			case <-e.Stop.Requested():
			}
		}
		poll = min(poll*5/4, pollLast)
	}
}
