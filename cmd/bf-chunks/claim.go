package main

import (
	"errors"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
)

var errStopped = errors.New("stopped")

// How often a lane looks whether its tasks are done: at first at the pace of
// tiny chunks, then slower, so that big ones cost next to nothing.
const (
	pollFirst = 2 * time.Millisecond
	pollLast  = 250 * time.Millisecond
)

// claim feeds a lane until nothing is pending, the lane's reader goes away or a
// stop is requested.
func claim(c *pg.Conn, filter, order string, out *output, log *cli.Log, stop *cli.Stop) int {
	ctx := stop.Context
	lane, err := queue.NewLane(ctx, c, filter, order)
	if err != nil {
		log.Error(err)
		return cli.Failed
	}
	gone := cli.ReaderGone(out.w)
	poll := pollFirst
	for {
		if stop.Asked() {
			return cli.Stopped
		}
		e, more, err := lane.Next(ctx)
		switch {
		case err != nil:
			return failed(log, err)
		case e != nil:
			if err := out.record(e); err != nil {
				log.Error(err)
				return cli.Failed
			}
			poll = pollFirst
			continue
		case !more:
			return cli.OK
		}
		select {
		case <-time.After(poll):
		case <-stop.Requested():
		case <-gone:
			log.Error(errors.New("the reader of the records is gone"))
			return cli.Failed
		}
		poll = min(poll*3/2, pollLast)
	}
}
