package lane

import (
	"context"
	"sync/atomic"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/tsdb"
)

// early is a connection that is opened while the commands before this one in the pipe
// open theirs. Nothing is said of it before there is something to do: a lane without
// work needs no connection, and a failure may be over by then.
type early struct {
	open   func(context.Context) (*tsdb.DB, error)
	ended  chan struct{}
	cancel context.CancelFunc
	needed atomic.Bool // messages are worth printing
	db     *tsdb.DB
	err    error
	at     time.Time // when it was open
}

// fresh is for how long a connection without use counts as a living one.
const fresh = 2 * time.Second

// connectEarly begins to connect to a side.
func connectEarly(e *cli.Env, side pg.Side, connString string, o pg.Options) *early {
	c := &early{ended: make(chan struct{})}
	log := o.Log
	o.Log = func(format string, args ...any) {
		if c.needed.Load() {
			log(format, args...)
		}
	}
	c.open = func(ctx context.Context) (*tsdb.DB, error) { return tsdb.Open(ctx, side, connString, o) }
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(e.Stop.Context)
	go func() {
		defer close(c.ended)
		c.db, c.err = c.open(ctx)
		c.at = time.Now()
	}()
	return c
}

// use returns the connection. One that failed, or was lost meanwhile, is opened again.
func (c *early) use(ctx context.Context) (*tsdb.DB, error) {
	c.needed.Store(true)
	waited := time.Now()
	<-c.ended
	db, err := c.db, c.err
	c.db = nil
	switch {
	case err != nil && c.at.After(waited):
		return nil, err
	case err == nil && time.Since(c.at) > fresh && db.Ping(ctx) != nil:
		db.Close()
	case err == nil:
		return db, nil
	}
	return c.open(ctx)
}

// close ends what was not used.
func (c *early) close() {
	c.cancel()
	<-c.ended
	if c.db != nil {
		c.db.Close()
	}
}
