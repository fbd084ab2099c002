package queue

import (
	"context"
	_ "embed"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5"
)

// PassOver tells the lane that handed the task out that this bf-load leaves it
// alone and writes nothing about it: another one is at it, or the task was
// staged anew since. It is told by a lock, which ends with the connection: a
// lane must not wait for ever for a task that nobody is going to do.
func PassOver(ctx context.Context, c *pg.Conn, number int64) error {
	_, err := c.Exec(ctx, "select pg_advisory_lock_shared($1, $2::bigint::int)", pg.LockPassed, number)
	return c.Wrap(err, "pass over task %d", number)
}

//go:embed release.sql
var releaseSQL string

// Lane hands out pending tasks that no other lane holds. It keeps its claims by
// the advisory locks of its connection: when the lane dies, the server frees
// them at once. Correctness never rests on a lane's claim (see Claim); it only
// keeps two lanes from doing the same work.
type Lane struct {
	conn    *pg.Conn
	filter  string
	order   string
	started time.Time       // of the lane, by the server's clock
	held    map[int64]int64 // task numbers and their bytes
	passed  map[int64]bool  // tasks not to be handed out by this lane again
}

// A lane holds one task ahead of the one in hand so that it never idles; of
// small chunks it holds more, because handing out costs a round trip each.
const (
	aheadTasks = 8
	aheadBytes = 32 << 20
)

// NewLane starts a lane on its own connection. filter and order are those of a
// Selection.
func NewLane(ctx context.Context, c *pg.Conn, filter, order string) (*Lane, error) {
	if order == "" {
		order = Newest
	}
	l := &Lane{conn: c, filter: filter, order: order, held: map[int64]int64{}, passed: map[int64]bool{}}
	err := c.QueryRow(ctx, "select clock_timestamp()").Scan(&l.started)
	return l, c.Wrap(err, "start a lane")
}

// full reports whether the lane holds enough for now.
func (l *Lane) full() bool {
	var bytes int64
	for _, b := range l.held {
		bytes += b
	}
	return len(l.held) >= 2 && (bytes > aheadBytes || len(l.held) >= aheadTasks)
}

// Next returns the next task for the lane. It returns nil and more=true when
// there is nothing to hand out for the moment: the lane holds enough, or other
// lanes hold what is pending and may still give it up; call it again after a
// while. It returns nil and more=false when no task is pending that the lane
// could ever get.
func (l *Lane) Next(ctx context.Context) (e *Entry, more bool, err error) {
	if err := l.release(ctx); err != nil {
		return nil, false, err
	}
	if l.full() {
		return nil, true, nil
	}
	where, args := Selection{State: "worked is null and (failed is null or failed < $1)", Filter: l.filter}.where([]any{l.started})
	for {
		// The inner query is fenced, so that locks are tried one by one in
		// order and only until the first success.
		rows, err := l.conn.Query(ctx, `select * from (`+listSQL+` where `+where+` and not priority = any($`+strconv.Itoa(len(args)+1)+`) order by `+l.order+` offset 0) t
            where pg_try_advisory_lock($`+strconv.Itoa(len(args)+2)+`, priority::int) limit 1`, append(args, append(keys(l.held), keys(l.passed)...), pg.LockTask)...)
		if err != nil {
			return nil, false, l.conn.Wrap(err, "claim a task")
		}
		e, err := pgx.CollectOneRow(rows, scanEntry)
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err != nil {
			return nil, false, filterError(l.conn, err, l.filter)
		}
		n := e.Task.Task
		l.held[n] = e.Bytes
		// The lock may have become free because the task was done between
		// the snapshot of that query and the lock: look again.
		var pending bool
		if err := l.conn.QueryRow(ctx, "select worked is null and (failed is null or failed < $2) from __backfill.task where priority = $1", n, l.started).Scan(&pending); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, false, l.conn.Wrap(err, "claim task %d", n)
		}
		if pending {
			return e, true, nil
		}
		if err := l.unlock(ctx, n); err != nil {
			return nil, false, err
		}
	}
	var pending bool
	err = l.conn.QueryRow(ctx, "select exists (select from __backfill.task where "+where+" and not priority = any($"+strconv.Itoa(len(args)+1)+"))", append(args, keys(l.passed))...).Scan(&pending)
	return nil, pending, l.conn.Wrap(err, "claim a task")
}

// release gives back the locks of tasks that are done, have failed or were
// passed over since.
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
