package queue

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed progress.sql
	progressSQL string
	//go:embed counts.sql
	countsSQL string
	//go:embed at_work.sql
	atWorkSQL string
	//go:embed busy.sql
	busySQL string
)

// withBusy puts busy.sql into a query, where it says {busy}.
func withBusy(sql string) string { return strings.ReplaceAll(sql, "{busy}", busySQL) }

// Progress counts the tasks of one hypertable, or all of them, by state.
type Progress struct {
	V int `json:"v"`
	// Hypertable is absent in the record that counts all tasks.
	Hypertable task.Name `json:"hypertable,omitzero"`
	Total      int64     `json:"total"` // chunks, as the following
	Done       int64     `json:"done"`
	Pending    int64     `json:"pending"`
	Failed     int64     `json:"failed"`   // pending, and the last attempt failed
	Verified   int64     `json:"verified"` // and equal
	Unequal    int64     `json:"unequal"`  // compared, and not found equal: different, gone or failed
	Bytes      int64     `json:"bytes"`
	BytesDone  int64     `json:"bytes_done"`
	Rate       float64   `json:"rate,omitempty"`         // bytes per second, lately
	Left       float64   `json:"seconds_left,omitempty"` // at that rate
}

// Progresses returns the progress per hypertable, and that of all of them. filter
// is that of a Selection.
func Progresses(ctx context.Context, c *pg.Conn, filter string) (each []*Progress, all *Progress, err error) {
	which, args := Selection{State: All, Filter: filter}.where()
	rows, err := c.Query(ctx, strings.Replace(withBusy(progressSQL), "{which}", which, 1), args...)
	if err != nil {
		return nil, nil, filterError(c, err, filter)
	}
	each, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Progress, error) {
		p := &Progress{V: task.Version}
		err := r.Scan(&p.Hypertable.Schema, &p.Hypertable.Name, &p.Total, &p.Done, &p.Failed, &p.Verified, &p.Unequal,
			&p.Bytes, &p.BytesDone, &p.Rate)
		p.Pending = p.Total - p.Done
		return p, err
	})
	if err != nil {
		return nil, nil, filterError(c, err, filter)
	}
	n := len(each) - 1 // the last row counts all tasks; it always exists
	each, all = each[:n], each[n]
	for _, p := range append(each, all) {
		rate := p.Rate
		if rate == 0 {
			rate = all.Rate // nothing of it has been copied yet
		}
		if rate > 0 {
			p.Left = float64(p.Bytes-p.BytesDone) / rate
		}
	}
	return each, all, nil
}

// Counts is how far the tasks of one hypertable are. Unlike a Progress it is read
// again and again.
type Counts struct {
	Hypertable task.Name // of an aggregate the view
	// Tasks: Failed ones are pending, Unequal ones were compared and not found equal.
	Total, Done, Failed, Verified, Unequal int64
	// Bytes as they were expected when the tasks were staged.
	Bytes, BytesDone, BytesVerified int64
}

// Add adds the counts of another hypertable.
func (c *Counts) Add(o *Counts) {
	c.Total, c.Done, c.Failed = c.Total+o.Total, c.Done+o.Done, c.Failed+o.Failed
	c.Verified, c.Unequal = c.Verified+o.Verified, c.Unequal+o.Unequal
	c.Bytes, c.BytesDone, c.BytesVerified = c.Bytes+o.Bytes, c.BytesDone+o.BytesDone, c.BytesVerified+o.BytesVerified
}

// Pending is how many tasks are to be copied.
func (c *Counts) Pending() int64 { return c.Total - c.Done }

// BusyBefore returns for how many seconds at least one of the tasks that are done was
// being copied: pauses do not count. filter is that of a Selection.
func BusyBefore(ctx context.Context, c *pg.Conn, filter string) (seconds float64, err error) {
	which, args := Selection{State: Done, Filter: filter}.where()
	err = c.QueryRow(ctx, withBusy(`select coalesce(sum(busy), 0)::float8
        from (select {busy} as busy from __backfill.task where `+which+`
              window earlier as (order by lower(worked) rows between unbounded preceding and 1 preceding)) t`),
		args...).Scan(&seconds)
	return seconds, filterError(c, err, filter)
}

// Since counts what was copied, and what was found equal, at or after a time of the
// server's clock: Done, Verified and their bytes. Tasks that are staged again are pending
// again, so that the difference between two looks tells less. filter is that of a Selection.
func Since(ctx context.Context, c *pg.Conn, filter string, at time.Time) (n Counts, err error) {
	which, args := Selection{State: All, Filter: filter}.where()
	err = c.QueryRow(ctx, fmt.Sprintf(`select count(*) filter (where c), count(*) filter (where v),
            coalesce(sum(est_bytes) filter (where c), 0)::bigint, coalesce(sum(est_bytes) filter (where v), 0)::bigint
        from __backfill.task
        cross join lateral (select upper(worked) >= $%[1]d, upper(verified) >= $%[1]d) since(c, v)
        where %[2]s`, len(args)+1, which), append(args, at)...).
		Scan(&n.Done, &n.Verified, &n.BytesDone, &n.BytesVerified)
	return n, filterError(c, err, filter)
}

// Worker is a process of bf that is connected to the target.
type Worker struct {
	PID  int32
	Tool string // application_name
	Host string // where it runs; "" for the target's own
	// The task in hand, 0 for none that is known, and the bytes it is expected to be.
	Task       int64
	Hypertable task.Name
	Chunk      string
	Range      *task.Range // where Chunk does not say which of many it is
	Bytes      int64
	// What the COPY that is running has brought, and the seconds since the
	// transaction began.
	Copied, Rows int64
	Seconds      float64
}

// Place names the task in hand among those of the hypertable.
func (w *Worker) Place() string { return place(w.Chunk, w.Range) }

func place(chunk string, r *task.Range) string {
	if r != nil {
		return r.Brief()
	}
	return chunk
}

// Look counts the tasks per hypertable, and returns the processes of bf that are at work
// on the target, from whatever host: of the same moment. filter is that of a Selection.
func Look(ctx context.Context, c *pg.Conn, filter string) (each []*Counts, workers []*Worker, err error) {
	which, args := Selection{State: All, Filter: filter}.where()
	copies := "pg_stat_progress_copy p"
	if c.Major() < 14 { // which has no such view
		copies = "(select 0, 0::bigint, 0::bigint) p(pid, bytes_processed, tuples_processed)"
	}
	var ask pgx.Batch
	ask.Queue(strings.Replace(countsSQL, "{which}", which, 1), args...).Query(func(rows pgx.Rows) (err error) {
		each, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Counts, error) {
			n := &Counts{}
			return n, r.Scan(&n.Hypertable.Schema, &n.Hypertable.Name, &n.Total, &n.Done, &n.Failed, &n.Verified,
				&n.Unequal, &n.Bytes, &n.BytesDone, &n.BytesVerified)
		})
		return err
	})
	atWork := strings.Replace(atWorkSQL, "{copies}", copies, 1)
	ask.Queue(atWork, int64(pg.LockInHand)).Query(func(rows pgx.Rows) (err error) {
		workers, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Worker, error) {
			w := &Worker{}
			return w, r.Scan(&w.PID, &w.Tool, &w.Host, &w.Task, &w.Hypertable.Schema, &w.Hypertable.Name, &w.Chunk,
				&w.Range, &w.Bytes, &w.Copied, &w.Rows, &w.Seconds)
		})
		return err
	})
	return each, workers, filterError(c, c.SendBatch(ctx, &ask).Close(), filter)
}

// Failure is the last failed attempt of a pending task.
type Failure struct {
	Task       int64     `json:"task"`
	Hypertable task.Name `json:"hypertable"` // of an aggregate the view
	Chunk      string    `json:"chunk"`
	// Range is that of the task, where Chunk does not say which of many it is.
	Range    *task.Range `json:"range,omitempty"`
	At       time.Time   `json:"at"`
	Attempts int         `json:"attempts"`
	Message  string      `json:"message"`
}

// Place names the task among those of the hypertable.
func (f *Failure) Place() string { return place(f.Chunk, f.Range) }

// Failures returns the pending tasks whose last attempt failed after a time, the
// oldest failures first.
func Failures(ctx context.Context, c *pg.Conn, filter string, after time.Time) ([]*Failure, error) {
	which, args := Selection{State: Failed, Filter: filter}.where()
	args = append(args, after)
	rows, err := c.Query(ctx, fmt.Sprintf(`select priority, coalesce(view_schema, into_schema, hypertable_schema),
            coalesce(view_name, into_name, hypertable_name), chunk_name,
            case when kind <> 'chunk' then filter end, failed, attempts, coalesce(copy_message, '')
        from __backfill.task where %s and failed > $%d order by failed, priority`, which, len(args)), args...)
	if err != nil {
		return nil, filterError(c, err, filter)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Failure, error) {
		f := &Failure{}
		return f, r.Scan(&f.Task, &f.Hypertable.Schema, &f.Hypertable.Name, &f.Chunk, &f.Range, &f.At, &f.Attempts,
			&f.Message)
	})
	return all, filterError(c, err, filter)
}

// AtWork returns how many processes of these commands are connected to the
// database. A command has one connection with just its name.
func AtWork(ctx context.Context, c *pg.Conn, tools ...string) (n int, err error) {
	err = c.QueryRow(ctx, "select count(*) from pg_stat_activity where datname = current_database() "+
		"and application_name = any($1)", tools).Scan(&n)
	return n, c.Wrap(err, "look who is at work")
}

// How often Alone looks: while alone, often enough to stop drawing soon after
// another one has connected.
const (
	aloneEvery  = time.Second
	sharedEvery = 10 * time.Second
)

// Alone calls shown again and again until ctx ends: with true if the caller is the
// only process of this command that is connected to the database. It uses a
// connection of its own. The first call comes after a second, because lanes are
// started together.
func Alone(ctx context.Context, connString, tool string, shown func(c *pg.Conn, alone bool)) {
	var c *pg.Conn
	defer func() { c.Close() }()
	for wait := aloneEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		var n int
		var err error
		if c == nil {
			c, err = pg.Connect(ctx, pg.Target, connString, pg.Options{Application: tool + " progress"})
		}
		if err == nil {
			n, err = AtWork(ctx, c, tool)
		}
		if ctx.Err() != nil {
			return
		}
		shown(c, err == nil && n == 1)
		if wait = aloneEvery; err != nil || n != 1 {
			c.Close()
			c, wait = nil, sharedEvery
		}
	}
}
