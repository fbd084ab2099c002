package pg

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// ErrAwaited is returned by Unattended when it gave up.
var ErrAwaited = errors.New("another session waited for it")

// Unattended runs f, statements of this session that hold strong locks for long, and
// cancels them as soon as another session waits for this one, or when that cannot be
// watched. Run it in a savepoint: the cancellation aborts the transaction.
func (c *Conn) Unattended(ctx context.Context, f func() error) error {
	cfg := c.Config()
	cfg.RuntimeParams["application_name"] = "bf watch"
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend { return pgproto3.NewFrontend(r, w) }
	watch, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return ErrAwaited // it might be, and would not be seen
	}
	defer watch.Close(context.WithoutCancel(ctx))
	done, over := make(chan struct{}), make(chan bool)
	go func() { over <- cancelWhenAwaited(ctx, c, watch, done) }()
	err = f()
	close(done)
	canceled := <-over
	if err == nil && canceled {
		// The cancellation may be on its way still: let it arrive here.
		_, err = c.Exec(ctx, "select pg_sleep(0.01)")
	}
	if canceled && !c.Lost() && ctx.Err() == nil {
		return ErrAwaited
	}
	return err
}

// cancelWhenAwaited cancels what runs on c, and reports that it did, when a session
// waits for c. It ends when done is closed.
func cancelWhenAwaited(ctx context.Context, c *Conn, watch *pgx.Conn, done chan struct{}) (canceled bool) {
	pid := c.PgConn().PID()
	for {
		select {
		case <-done:
			return false
		case <-time.After(10 * time.Millisecond):
		}
		err := watch.QueryRow(ctx, `select exists (select from pg_locks where not granted
            and $1 = any(pg_blocking_pids(pid)))
            and pg_cancel_backend($1)`, pid).Scan(&canceled)
		if err != nil { // unwatched is as bad as awaited
			_, _ = watch.Exec(ctx, "select pg_cancel_backend($1)", pid)
			return true
		}
		if canceled {
			return true
		}
	}
}
