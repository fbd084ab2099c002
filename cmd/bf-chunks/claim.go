package main

import (
	"errors"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
)

// How often a lane looks whether its tasks are done: at first as often as tiny
// chunks need it, then less and less, so that it costs little with large ones.
const (
	pollFirst = 2 * time.Millisecond
	pollLast  = 250 * time.Millisecond
)

// claim feeds a lane until nothing is pending, the lane's reader goes away or a
// stop is requested.
func claim(e *cli.Env, c *pg.Conn, f *flags, out *output) error {
	ctx := e.Stop.Context
	lane, err := queue.NewLane(ctx, c, f.Filter, orders[f.Order])
	if err != nil {
		return err
	}
	gone := cli.ReaderGone(out.w)
	for poll := pollFirst; ; {
		if e.Stop.Asked() {
			return cli.Exit(cli.Stopped)
		}
		entry, more, err := lane.Next(ctx)
		switch {
		case err != nil:
			return err
		case entry != nil:
			if err := out.record(entry); err != nil {
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
			return errors.New("the reader of the records is gone")
		}
		poll = min(poll*3/2, pollLast)
	}
}
