package queue

import (
	"context"
	_ "embed"
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
	ready   []*Entry        // of those held, not handed out yet
	large   bool            // the last one that was taken is no small one
	few     bool            // there were fewer than the lane would have taken
	place   int64           // in the order, from where on the lane looks for tasks
}

// A lane holds one task besides the one that is being copied, so that it is never
// idle. Of small chunks it holds more, and takes several at a time when half of them
// are done, because each look at the queue costs round trips.
const (
	aheadTasks = 16
	aheadBytes = 32 << 20
)

// NewLane starts a lane on its own connection. filter and order are those of a
// Selection.
func NewLane(ctx context.Context, c *pg.Conn, filter string, order Order) (*Lane, error) {
	l := &Lane{conn: c, filter: filter, order: order, held: map[int64]int64{}, passed: map[int64]bool{}, large: true,
		place: order.place(nil)}
	// The planner cannot know how few tasks a claim needs, nor how many a filter matches:
	// the indexes are right for all that a lane asks. Which one depends on the filter.
	_, err := c.Exec(ctx, "set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; "+
		"set plan_cache_mode = force_custom_plan")
	if err == nil {
		err = c.QueryRow(ctx, "select clock_timestamp()").Scan(&l.started)
	}
	return l, c.Wrap(err, "start a lane")
}

// full reports whether the lane holds enough tasks for now: of few, see hand_out.sql, it
// takes more when the last one that it holds is being copied.
func (l *Lane) full() bool {
	var bytes int64
	for _, b := range l.held {
		bytes += b
	}
	return len(l.held) >= 2 && (l.few || bytes > aheadBytes || len(l.held) > aheadTasks/2)
}

// room is how many tasks the lane takes at once.
func (l *Lane) room() int {
	if l.large {
		return 1
	}
	return aheadTasks - len(l.held)
}

// Next returns the next task for the lane. It returns nil and more=true if there
// is none at the moment: the lane holds enough tasks, or other lanes hold all
// that are pending. Call it again after a while. It returns nil and more=false if
// the lane cannot get any of the pending tasks.
func (l *Lane) Next(ctx context.Context) (e *Entry, more bool, err error) {
	if len(l.ready) == 0 {
		if err := l.release(ctx); err != nil {
			return nil, false, err
		}
		if l.full() {
			return nil, true, nil
		}
	}
	for len(l.ready) == 0 {
		taken, err := l.take(ctx)
		if err != nil {
			return nil, false, err
		}
		if !taken {
			more, err := l.pending(ctx)
			return nil, more, err
		}
	}
	e, l.ready = l.ready[0], l.ready[1:]
	return e, true, nil
}

// take takes the locks of tasks that are to be handed out; false if there are none.
func (l *Lane) take(ctx context.Context) (bool, error) {
	taken, err := l.handOut(ctx)
	if start := l.order.place(nil); err == nil && len(taken) == 0 && l.place != start {
		l.place = start // a lane that ended may have left some
		taken, err = l.handOut(ctx)
	}
	if err != nil || len(taken) == 0 {
		return false, err
	}
	if l.filter != "" { // of what does not match so much may come first that each look at it takes long
		l.place = l.order.place(taken[0])
	}
	var numbers []int64
	for _, e := range taken {
		numbers = append(numbers, e.Task.Task)
		l.held[e.Task.Task] = e.Bytes
		l.large = e.Bytes > aheadBytes/aheadTasks
	}
	// A task may have been done between the snapshot of that query and the lock:
	// look again.
	rows, err := l.conn.Query(ctx, "select priority from __backfill.task where "+pendingSince+" and priority = any($2)",
		l.started, numbers)
	if err != nil {
		return false, l.conn.Wrap(err, "claim a task")
	}
	pending, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return false, l.conn.Wrap(err, "claim a task")
	}
	var done []int64
	for _, e := range taken {
		if slices.Contains(pending, e.Task.Task) {
			l.ready = append(l.ready, e)
		} else {
			done = append(done, e.Task.Task)
		}
	}
	return true, l.unlock(ctx, done)
}

// pendingSince: a task is pending and has not failed since the lane began ($1).
const pendingSince = "worked is null and (failed is null or failed < $1)"

// mine is the condition for the tasks that the lane may get, and its two
// parameters; the second one is there even without a filter.
func (l *Lane) mine() (string, []any) {
	return pendingSince + " and ($2 = '' or " + matches(2) + ")", []any{l.started, l.filter}
}

// handOut takes the locks of the next tasks.
func (l *Lane) handOut(ctx context.Context) ([]*Entry, error) {
	pending, args := l.mine()
	sql := strings.NewReplacer("{list}", listSQL, "{pending}", pending, "{mine}", "$3", "{order}", l.order.sql(),
		"{from}", l.order.since("$6"), "{lock}", "$4", "{most}", "$5", "{held}", "$7::int").Replace(handOutSQL)
	rows, err := l.conn.Query(ctx, sql, append(args, append(keys(l.held), keys(l.passed)...), pg.LockTask,
		l.room(), l.place, len(l.held))...)
	if err != nil {
		return nil, l.conn.Wrap(err, "claim a task")
	}
	taken, err := pgx.CollectRows(rows, scanEntry)
	l.few = len(taken) < l.room()
	return taken, filterError(l.conn, err, l.filter)
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
	return l.unlock(ctx, done)
}

func (l *Lane) unlock(ctx context.Context, numbers []int64) error {
	if len(numbers) == 0 {
		return nil
	}
	for _, n := range numbers {
		delete(l.held, n)
	}
	_, err := l.conn.Exec(ctx, "select pg_advisory_unlock($1, n::int) from unnest($2::bigint[]) n",
		pg.LockTask, numbers)
	return l.conn.Wrap(err, "release tasks")
}

func keys[V any](m map[int64]V) []int64 { return slices.AppendSeq([]int64{}, maps.Keys(m)) }
