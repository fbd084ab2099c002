package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed list.sql
var listSQL string

// Entry is a task and its state.
type Entry struct {
	task.Task
	Worked           string // when it was copied, "" while it is pending
	Failed, Verified bool
}

func scanEntry(r pgx.CollectableRow) (*Entry, error) {
	var e Entry
	var vs, vn, is, in *string
	err := r.Scan(&e.Task.Task, &e.Chunk.Schema, &e.Chunk.Name, &e.Hypertable.Schema, &e.Hypertable.Name, &vs, &vn,
		&is, &in, &e.Kind, &e.Scan, &e.Slices, &e.Range, &e.Origin, &e.LSN, &e.Snapshot, &e.RowsOnly, &e.Bytes, &e.Rows,
		&e.Worked, &e.Failed, &e.Verified)
	if vs != nil && vn != nil {
		e.View = &task.Name{Schema: *vs, Name: *vn}
	}
	if is != nil && in != nil {
		e.Into = &task.Name{Schema: *is, Name: *in}
	}
	e.V = e.RecordVersion()
	return &e, err
}

// State selects tasks by their state.
type State int

// The states. A pending task may have failed before.
const (
	Pending State = iota
	Done
	Failed // and pending
	Unverified
	All
)

func (s State) sql() string {
	return [...]string{"worked is null", "worked is not null", "worked is null and failed is not null",
		"worked is not null and verified is null", "true"}[s]
}

// Order is the order of a listing.
type Order int

// The orders: of task numbers, which begin with the newest chunks, or of sizes.
const (
	Newest Order = iota
	Oldest
	Largest
)

func (o Order) sql() string {
	return [...]string{"priority", "priority desc", "est_bytes desc, priority"}[o]
}

// since is the condition for the tasks from a place in the order on, and place where in
// the order a task is; of no task it is the beginning.
func (o Order) since(parameter string) string {
	return [...]string{"priority >= ", "priority <= ", "est_bytes <= "}[o] + parameter
}

func (o Order) place(e *Entry) int64 {
	switch {
	case e == nil && o == Newest:
		return math.MinInt64
	case e == nil:
		return math.MaxInt64
	case o == Largest:
		return e.Bytes
	}
	return e.Task.Task
}

// Selection says which tasks to list.
type Selection struct {
	State  State
	Tasks  []int64 // these numbers, whatever their state
	Filter string  // regular expression on the hypertable's or the view's name, see pg.NameMatches; "" for all
	Order  Order
}

// Each calls f for every selected task, in order, as the server sends them.
func Each(ctx context.Context, c *pg.Conn, s Selection, f func(*Entry) error) error {
	where, args := s.where()
	rows, err := c.Query(ctx, listSQL+" where "+where+" order by "+s.Order.sql(), args...)
	if err != nil {
		return c.Wrap(err, "list tasks")
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return c.Wrap(err, "list tasks")
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return filterError(c, rows.Err(), s.Filter)
}

// Any reports whether there is such a task.
func Any(ctx context.Context, c *pg.Conn, s Selection) (any bool, err error) {
	where, args := s.where()
	err = c.QueryRow(ctx, "select exists (select from __backfill.task where "+where+")", args...).Scan(&any)
	return any, filterError(c, err, s.Filter)
}

// The label of a task: the name that users of the target know.
const (
	labelSchema = "coalesce(view_schema, into_schema, hypertable_schema)"
	labelName   = "coalesce(view_name, into_name, hypertable_name)"
)

// Labels lists the hypertables and views that have tasks.
func Labels(ctx context.Context, c *pg.Conn) ([]task.Name, error) {
	rows, err := c.Query(ctx,
		"select distinct "+labelSchema+", "+labelName+" from __backfill.task order by 1, 2")
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[task.Name])
	return names, c.Wrap(err, "list tasks")
}

// where is the condition, with its parameters.
func (s Selection) where() (string, []any) {
	cond, args := s.State.sql(), []any(nil)
	if len(s.Tasks) > 0 {
		cond, args = "priority = any($1)", []any{s.Tasks}
	}
	if s.Filter != "" {
		args = append(args, s.Filter)
		cond += " and " + matches(len(args))
	}
	return cond, args
}

// matches is the condition that a task is of a hypertable or a view whose name
// matches parameter n.
func matches(n int) string {
	return pg.NameMatches(labelSchema, labelName, fmt.Sprintf("$%d", n))
}

func filterError(c *pg.Conn, err error, filter string) error {
	if pg.Code(err) == pg.InvalidRegexp {
		return &pg.Error{Side: c.Side, Object: fmt.Sprintf("--filter %q", filter), Err: err}
	}
	return c.Wrap(err, "list tasks")
}

// Get returns the task of that number, nil if there is none.
func Get(ctx context.Context, c *pg.Conn, number int64) (*Entry, error) {
	rows, err := c.Query(ctx, listSQL+" where priority = $1", number)
	if err != nil {
		return nil, c.Wrap(err, "task %d", number)
	}
	e, err := pgx.CollectOneRow(rows, scanEntry)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return e, c.Wrap(err, "task %d", number)
}

// Refusal is the error for a record that does not match a staged task. Nothing was
// done.
type Refusal struct{ Err error }

func (e *Refusal) Error() string { return e.Err.Error() }
func (e *Refusal) Unwrap() error { return e.Err }

// Staged looks up the task of a record, and refuses a record that differs from it:
// a record comes from a pipe and is not trusted.
func Staged(ctx context.Context, c *pg.Conn, t *task.Task) (e *Entry, err error) {
	var ask pgx.Batch
	AskStaged(&ask, c, t, &e)
	return e, c.SendBatch(ctx, &ask).Close()
}

// AskStaged asks for it.
func AskStaged(ask *pgx.Batch, c *pg.Conn, t *task.Task, to **Entry) {
	refuse := func(format string, args ...any) error {
		return &pg.Error{Side: c.Side, Object: fmt.Sprintf("task %d", t.Task),
			Err:  &Refusal{fmt.Errorf(format, args...)},
			Hint: "take the records from bf-chunks --target …"}
	}
	ask.Queue(listSQL+" where priority = $1", t.Task).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanEntry)
		switch {
		case err != nil:
			return c.Wrap(err, "task %d", t.Task)
		case len(found) == 0:
			return refuse("is not staged in __backfill")
		}
		if differs, same := t.SameWork(&found[0].Task); !same {
			return refuse("the record contradicts the staged task: %s", differs)
		}
		*to = found[0]
		return nil
	})
}

// Count returns how many tasks there are and how many are pending.
func Count(ctx context.Context, c *pg.Conn) (all, pending int64, err error) {
	err = c.QueryRow(ctx, "select count(*), count(*) filter (where worked is null) from __backfill.task").
		Scan(&all, &pending)
	return all, pending, c.Wrap(err, "count tasks")
}

// Beside lists the tasks of the same hypertable that have rows of a range, the task's
// own among them.
func Beside(ctx context.Context, c *pg.Conn, t *task.Task, from, until int64) ([]*task.Task, error) {
	return tasksIn(ctx, c, "kind = 'chunk' and hypertable_schema = $3 and hypertable_name = $4", from, until,
		t.Hypertable.Schema, t.Hypertable.Name)
}

// DoneIn lists the tasks of a hypertable of the target that are done and have rows of a
// range.
func DoneIn(ctx context.Context, c *pg.Conn, label task.Name, from, until int64) ([]*task.Task, error) {
	return tasksIn(ctx, c, "worked is not null and "+labelSchema+" = $3 and "+labelName+" = $4", from, until,
		label.Schema, label.Name)
}

func tasksIn(ctx context.Context, c *pg.Conn, which string, args ...any) (tasks []*task.Task, err error) {
	rows, err := c.Query(ctx, listSQL+" where "+which+
		" and int8range((filter->>'from')::bigint, (filter->>'until')::bigint) && int8range($1, $2)", args...)
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	for _, e := range entries {
		tasks = append(tasks, &e.Task)
	}
	return tasks, c.Wrap(err, "list tasks")
}
