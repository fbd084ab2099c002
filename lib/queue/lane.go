package queue

import (
	"context"
	_ "embed"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

// PassOver tells the lane that handed the task out that this bf-load will not do
// it, because another one is doing it or it was staged again since. Otherwise the
// lane would wait for the task for ever. The message is an advisory lock, which
// ends with the connection.
func PassOver(ctx context.Context, c *pg.Conn, number int64) error {
	_, err := c.Exec(ctx, "select pg_advisory_lock_shared($1, $2::bigint::int)", pg.LockPassed, number)
	return c.Wrap(err, "pass over task %d", number)
}

// InHand tells who watches that the connection has a task in hand, and no longer
// the one before; 0 for none.
func InHand(ctx context.Context, c *pg.Conn, number, before int64) error {
	sql, args := "select pg_advisory_lock_shared($1, $2::bigint::int)", []any{pg.LockInHand, number}
	if before != 0 {
		sql, args = sql+", pg_advisory_unlock_shared($1, $3::bigint::int)", append(args, before)
	}
	_, err := c.Exec(ctx, sql, args...)
	return c.Wrap(err, "task %d", number)
}

var (
	//go:embed hand_out.sql
	handOutSQL string
	//go:embed release.sql
	releaseSQL string
)

// Lane hands out pending tasks that no other lane holds. It holds them by advisory
// locks of its connection, which the server releases when the lane dies. They
// only keep two lanes from doing the same work; correctness rests on Claim.
type Lane struct {
	conn    *pg.Conn
	filter  string
	order   Order
	started time.Time       // of the lane, by the server's clock
	held    map[int64]int64 // task numbers and their bytes
	passed  map[int64]bool  // tasks not to be handed out by this lane again
}

// A lane holds one task besides the one that is being copied, so that it is never
// idle. Of small chunks it holds more, because each costs a round trip.
const (
	aheadTasks = 8
	aheadBytes = 32 << 20
)

// NewLane starts a lane on its own connection. filter and order are those of a
// Selection.
func NewLane(ctx context.Context, c *pg.Conn, filter string, order Order) (*Lane, error) {
	l := &Lane{conn: c, filter: filter, order: order, held: map[int64]int64{}, passed: map[int64]bool{}}
	err := c.QueryRow(ctx, "select clock_timestamp()").Scan(&l.started)
	return l, c.Wrap(err, "start a lane")
}

// full reports whether the lane holds enough tasks for now.
func (l *Lane) full() bool {
	var bytes int64
	for _, b := range l.held {
		bytes += b
	}
	return len(l.held) >= 2 && (bytes > aheadBytes || len(l.held) >= aheadTasks)
}

// Next returns the next task for the lane. It returns nil and more=true if there
// is none at the moment: the lane holds enough tasks, or other lanes hold all
// that are pending. Call it again after a while. It returns nil and more=false if
// the lane cannot get any of the pending tasks.
func (l *Lane) Next(ctx context.Context) (e *Entry, more bool, err error) {
	if err := l.release(ctx); err != nil {
		return nil, false, err
	}
	if l.full() {
		return nil, true, nil
	}
	for {
		e, err := l.handOut(ctx)
		if err != nil {
			return nil, false, err
		}
		if e == nil {
			more, err := l.pending(ctx)
			return nil, more, err
		}
		n := e.Task.Task
		l.held[n] = e.Bytes
		// The task may have been done between the snapshot of that query and
		// the lock: look again.
		var pending bool
		err = l.conn.QueryRow(ctx, "select "+pendingSince+" from __backfill.task where priority = $2", l.started, n).
			Scan(&pending)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, false, l.conn.Wrap(err, "claim task %d", n)
		}
		if pending {
			return e, true, nil
		}
		if err := l.unlock(ctx, n); err != nil {
			return nil, false, err
		}
	}
}

// pendingSince: a task is pending and has not failed since the lane began ($1).
const pendingSince = "worked is null and (failed is null or failed < $1)"

// mine is the condition for the tasks that the lane may get, and its two
// parameters; the second one is there even without a filter.
func (l *Lane) mine() (string, []any) {
	return pendingSince + " and ($2 = '' or " + matches(2) + ")", []any{l.started, l.filter}
}

// handOut takes the lock of the next task, nil if there is none.
func (l *Lane) handOut(ctx context.Context) (*Entry, error) {
	pending, args := l.mine()
	sql := strings.NewReplacer("{list}", listSQL, "{pending}", pending, "{mine}", "$3", "{order}", l.order.sql(),
		"{lock}", "$4").Replace(handOutSQL)
	rows, err := l.conn.Query(ctx, sql, append(args, append(keys(l.held), keys(l.passed)...), pg.LockTask)...)
	if err != nil {
		return nil, l.conn.Wrap(err, "claim a task")
	}
	e, err := pgx.CollectOneRow(rows, scanEntry)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return e, filterError(l.conn, err, l.filter)
}

// pending reports whether there is a task that the lane can still get.
func (l *Lane) pending(ctx context.Context) (some bool, err error) {
	pending, args := l.mine()
	err = l.conn.QueryRow(ctx, "select exists (select from __backfill.task where "+pending+
		" and not priority = any($3))",
		append(args, keys(l.passed))...).Scan(&some)
	return some, l.conn.Wrap(err, "claim a task")
}

// release releases the locks of tasks that are done, have failed or were passed
// over since.
func (l *Lane) release(ctx context.Context) error {
	if len(l.held) == 0 {
		return nil
	}
	rows, err := l.conn.Query(ctx, releaseSQL, keys(l.held), l.started, pg.LockPassed)
	if err != nil {
		return l.conn.Wrap(err, "claim a task")
	}
	var n int64
	var over, passed bool
	var done []int64
	_, err = pgx.ForEachRow(rows, []any{&n, &over, &passed}, func() error {
		if over || passed {
			done = append(done, n)
		}
		if !over && passed {
			l.passed[n] = true
		}
		return nil
	})
	if err != nil {
		return l.conn.Wrap(err, "claim a task")
	}
	for _, n := range done {
		if err := l.unlock(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lane) unlock(ctx context.Context, n int64) error {
	delete(l.held, n)
	_, err := l.conn.Exec(ctx, "select pg_advisory_unlock($1, $2::bigint::int)", pg.LockTask, n)
	return l.conn.Wrap(err, "release task %d", n)
}

func keys[V any](m map[int64]V) []int64 { return slices.AppendSeq([]int64{}, maps.Keys(m)) }
