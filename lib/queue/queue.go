// Package queue keeps the tasks of a backfill in schema __backfill of the
// target: it creates the schema, records plans, lists tasks, claims one and
// completes it.
package queue

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed schema.sql
	schemaSQL string
	//go:embed check.sql
	checkSQL string
	//go:embed list.sql
	listSQL string
	//go:embed record.sql
	recordSQL string
	//go:embed live.sql
	liveSQL string
	//go:embed retire.sql
	retireSQL string
	//go:embed conflicts.sql
	conflictsSQL string
)

// Version of the __backfill schema that this package reads and writes.
const Version = 1

// ErrNone is returned by Check when the target has no __backfill schema.
var ErrNone = errors.New("no schema __backfill: nothing is staged")

// Check makes sure that the target's __backfill schema is there, trusted and of
// this version.
func Check(ctx context.Context, c *pg.Conn) error {
	fail := func(hint, format string, args ...any) error {
		return &pg.Error{Side: c.Side, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	var there, trusted, whole, tables bool
	var owner string
	if err := c.QueryRow(ctx, checkSQL).Scan(&there, &owner, &trusted, &whole, &tables); err != nil {
		return c.Wrap(err, "schema __backfill")
	}
	switch {
	case !there:
		return &pg.Error{Side: c.Side, Err: ErrNone, Hint: "run bf-stage first"}
	case !trusted || !tables:
		return fail("have its owner drop it, or run as a role that is a member of the owner",
			"schema __backfill belongs to %q, or its tables carry triggers, rules or the like: it is not trusted", owner)
	case !whole:
		return fail("move it out of the way; bf makes its own", "schema __backfill is not bf's: it has no tables task and version")
	}
	var v int
	if err := c.QueryRow(ctx, "select version from __backfill.version").Scan(&v); err != nil {
		return fail("move it out of the way; bf makes its own", "schema __backfill is not bf's: %s", pg.Describe(err))
	}
	if v != Version {
		return fail("use the bf that made it", "schema __backfill has version %d, this bf knows version %d", v, Version)
	}
	return nil
}

// Create makes the schema unless it is there. Two stages at the same time make
// one.
func Create(ctx context.Context, c *pg.Conn) error {
	err := Check(ctx, c)
	if !errors.Is(err, ErrNone) {
		return err
	}
	_, err = c.Exec(ctx, schemaSQL)
	switch pg.Code(err) {
	case "42P06", "23505": // made by another stage in the meantime
		return Check(ctx, c)
	}
	return c.Wrap(err, "create schema __backfill")
}

// Drop removes the schema.
func Drop(ctx context.Context, c *pg.Conn) error {
	_, err := c.Exec(ctx, "drop schema __backfill cascade")
	return c.Wrap(err, "drop schema __backfill")
}

// Conflicts refuses a plan that cannot be added to the tasks: one of another
// source database, whose chunks have the same names as those of the first; or
// one that leaves a gap inside a chunk, which has one task with one range.
func Conflicts(ctx context.Context, c *pg.Conn, origin string, plan []*task.Task) error {
	var other string
	var n int64
	err := c.QueryRow(ctx, "select origin, count(*) from __backfill.task where origin <> $1 and $1 <> '' group by 1 limit 1", origin).Scan(&other, &n)
	switch {
	case err == nil:
		return &pg.Error{Side: c.Side, Err: fmt.Errorf("__backfill holds %d tasks of another source database (%s) than this one (%s)", n, other, origin),
			Hint: "check --source; when that migration is over, or its source has moved to a new server: bf-clean (--force when tasks are pending), then run bf-stage again"}
	case !errors.Is(err, pgx.ErrNoRows):
		return c.Wrap(err, "look for tasks of another source")
	}
	var schemas, names []string
	bounds := make([][]int64, 4)
	for _, t := range plan {
		schemas, names = append(schemas, t.Chunk.Schema), append(names, t.Chunk.Name)
		for i, s := range []string{t.Range.From, t.Range.Until, t.Slices[0].From, t.Slices[0].Until} {
			b, err := task.Bound(s)
			if err != nil {
				return err
			}
			bounds[i] = append(bounds[i], b)
		}
	}
	rows, err := c.Query(ctx, conflictsSQL, schemas, names, bounds[0], bounds[1], bounds[2], bounds[3])
	if err != nil {
		return c.Wrap(err, "compare the plan with the tasks")
	}
	type gap struct {
		N      int64
		Staged task.Range
	}
	gaps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[gap])
	if err != nil {
		return c.Wrap(err, "compare the plan with the tasks")
	}
	if len(gaps) == 0 {
		return nil
	}
	t, more := plan[gaps[0].N-1], ""
	if len(gaps) > 1 {
		more = fmt.Sprintf(" (and so with %d more)", len(gaps)-1)
	}
	return &pg.Error{Side: c.Side, Object: "chunk " + t.Chunk.String(),
		Err:  fmt.Errorf("is staged with %s: %s would leave a gap%s", &gaps[0].Staged, &t.Range, more),
		Hint: "stage a range that adjoins, or end that backfill with bf-clean first"}
}

// Recorded is what Record has done.
type Recorded struct {
	Staged  []*task.Task // new or changed
	Retired []*task.Task // deleted, as other tasks hold their rows now; number and chunk only
}

// Record adds a plan to the tasks, in the plan's order. Tasks that are staged
// already stay as they are, unless their chunk is another now.
func Record(ctx context.Context, c *pg.Conn, plan []*task.Task) (*Recorded, error) {
	tx, err := c.Begin(ctx)
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	// One stage at a time: a second one waits and finds the tasks there. Not by
	// a lock on the table of tasks: a load that holds a task would wait for it
	// to complete the task, and we for the task.
	if _, err := tx.Exec(ctx, "lock table __backfill.version in share row exclusive mode"); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	if len(plan) > 0 { // another stage may have come first
		if err := Conflicts(ctx, c, plan[0].Origin, plan); err != nil {
			return nil, err
		}
	}
	if _, err := tx.Exec(ctx, `create temporary table staged on commit drop as
        select 0::bigint as n, chunk_schema, chunk_name, hypertable_schema, hypertable_name, view_schema, view_name,
               dimensions, filter, origin, lsn, snapshot, rows_only, est_bytes, est_rows
        from __backfill.task limit 0`); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	i := 0
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"pg_temp", "staged"},
		[]string{"n", "chunk_schema", "chunk_name", "hypertable_schema", "hypertable_name", "view_schema", "view_name",
			"dimensions", "filter", "origin", "lsn", "snapshot", "rows_only", "est_bytes", "est_rows"},
		pgx.CopyFromFunc(func() ([]any, error) {
			if i == len(plan) {
				return nil, nil
			}
			t := plan[i]
			i++
			dims, err := json.Marshal(t.Slices)
			if err != nil {
				return nil, err
			}
			filter, err := json.Marshal(t.Range)
			if err != nil {
				return nil, err
			}
			var vs, vn *string
			if t.View != nil {
				vs, vn = &t.View.Schema, &t.View.Name
			}
			return []any{int64(i), t.Chunk.Schema, t.Chunk.Name, t.Hypertable.Schema, t.Hypertable.Name, vs, vn,
				dims, filter, null(t.Origin), null(t.LSN), null(t.Snapshot), null(t.RowsOnly), t.Bytes, t.Rows}, nil
		}))
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	rows, err := tx.Query(ctx, recordSQL)
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	if _, err := tx.Exec(ctx, liveSQL); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	if rows, err = tx.Query(ctx, retireSQL); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	out := &Recorded{}
	if out.Retired, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*task.Task, error) {
		var t task.Task
		err := r.Scan(&t.Task, &t.Chunk.Schema, &t.Chunk.Name)
		return &t, err
	}); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	rows, err = tx.Query(ctx, listSQL+" where priority = any($1) order by priority", numbers)
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	// So that the first lanes plan their queries with the real size.
	_, _ = c.Exec(ctx, "analyze __backfill.task")
	for _, e := range entries {
		out.Staged = append(out.Staged, &e.Task)
	}
	return out, nil
}

func null(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Entry is a task and its state.
type Entry struct {
	task.Task
	Worked           string // when it was copied, "" while it is pending
	Failed, Verified bool
}

func scanEntry(r pgx.CollectableRow) (*Entry, error) {
	e := Entry{Task: task.Task{V: task.Version}}
	var vs, vn *string
	err := r.Scan(&e.Task.Task, &e.Chunk.Schema, &e.Chunk.Name, &e.Hypertable.Schema, &e.Hypertable.Name, &vs, &vn,
		&e.Slices, &e.Range, &e.Origin, &e.LSN, &e.Snapshot, &e.RowsOnly, &e.Bytes, &e.Rows, &e.Worked, &e.Failed, &e.Verified)
	if vs != nil && vn != nil {
		e.View = &task.Name{Schema: *vs, Name: *vn}
	}
	return &e, err
}

// States and orders that a listing can ask for; the values are SQL of this
// package, never of a user.
const (
	Pending    = "worked is null"
	Done       = "worked is not null"
	Failed     = "worked is null and failed is not null"
	Unverified = "worked is not null and verified is null"
	All        = "true"

	Newest  = "priority"
	Oldest  = "priority desc"
	Largest = "est_bytes desc, priority"
)

// Selection says which tasks to list.
type Selection struct {
	State  string  // one of the states above
	Tasks  []int64 // these numbers, whatever their state
	Filter string  // regular expression on the hypertable's or the view's name; "" for all
	Order  string  // one of the orders above; "" for Newest
}

// Each calls f for every selected task, in order, as the server sends them.
func Each(ctx context.Context, c *pg.Conn, s Selection, f func(*Entry) error) error {
	where, args := s.where(nil)
	order := s.Order
	if order == "" {
		order = Newest
	}
	rows, err := c.Query(ctx, listSQL+" where "+where+" order by "+order, args...)
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
	where, args := s.where(nil)
	err = c.QueryRow(ctx, "select exists (select from __backfill.task where "+where+")", args...).Scan(&any)
	return any, filterError(c, err, s.Filter)
}

// Labels lists the hypertables and views that have tasks.
func Labels(ctx context.Context, c *pg.Conn) ([]task.Name, error) {
	rows, err := c.Query(ctx, `select distinct coalesce(view_schema, hypertable_schema), coalesce(view_name, hypertable_name)
        from __backfill.task order by 1, 2`)
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[task.Name])
	return names, c.Wrap(err, "list tasks")
}

// where is the condition; its parameters come after args.
func (s Selection) where(args []any) (string, []any) {
	var conds []string
	if len(s.Tasks) > 0 {
		args = append(args, s.Tasks)
		conds = append(conds, fmt.Sprintf("priority = any($%d)", len(args)))
	} else {
		conds = append(conds, s.State)
	}
	if s.Filter != "" {
		args = append(args, s.Filter)
		conds = append(conds, pg.NameMatches("coalesce(view_schema, hypertable_schema)", "coalesce(view_name, hypertable_name)", fmt.Sprintf("$%d", len(args))))
	}
	return strings.Join(conds, " and "), args
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

// Refusal is a record that is not of a staged task. Nothing was done about it.
type Refusal struct{ Err error }

func (e *Refusal) Error() string { return e.Err.Error() }
func (e *Refusal) Unwrap() error { return e.Err }

// Staged looks up the task that a record claims to be. A pipe can carry
// anything: only what the staged task names is ever touched.
func Staged(ctx context.Context, c *pg.Conn, t *task.Task) (*Entry, error) {
	e, err := Get(ctx, c, t.Task)
	if err != nil {
		return nil, err
	}
	refuse := func(format string, args ...any) error {
		return &pg.Error{Side: c.Side, Object: fmt.Sprintf("task %d", t.Task), Err: &Refusal{fmt.Errorf(format, args...)},
			Hint: "take the records from bf-chunks --target …"}
	}
	if e == nil {
		return nil, refuse("is not staged in __backfill")
	}
	if differs, same := t.SameWork(&e.Task); !same {
		return nil, refuse("the record contradicts the staged task: %s", differs)
	}
	return e, nil
}

// Count returns how many tasks there are and how many are pending.
func Count(ctx context.Context, c *pg.Conn) (all, pending int64, err error) {
	err = c.QueryRow(ctx, "select count(*), count(*) filter (where worked is null) from __backfill.task").Scan(&all, &pending)
	return all, pending, c.Wrap(err, "count tasks")
}

// ErrBusy is returned by Claim when another transaction holds the task.
var ErrBusy = errors.New("another bf-load is at this task")

// ErrDone is returned by Claim when the task has worked already.
var ErrDone = errors.New("the task is done already")

// busyFor is how long Claim waits for another transaction to end. When a
// bf-load was killed its lane's tasks are free at once, but its server process
// may take until its next client_connection_check_interval to roll back.
const busyFor = 15 * time.Second

// Claim takes the task in the transaction that copies its chunk: whoever holds
// the row lock copies, everybody else gets ErrBusy after a while. Complete
// marks it in the same transaction, so that a task works exactly once whatever
// dies. t is what will be copied: when bf-stage has widened the task's range
// since it was read, completing it would lose the rows in between.
func Claim(ctx context.Context, c *pg.Conn, tx pgx.Tx, t *task.Task, again bool) error {
	deadline := time.Now().Add(busyFor)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := claim(ctx, c, tx, t, again)
		if err != ErrBusy || time.Now().Add(wait).After(deadline) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func claim(ctx context.Context, c *pg.Conn, tx pgx.Tx, t *task.Task, again bool) error {
	rows, err := tx.Query(ctx, listSQL+" where priority = $1 for no key update skip locked", t.Task)
	if err != nil {
		return c.Wrap(err, "task %d", t.Task)
	}
	e, err := pgx.CollectOneRow(rows, scanEntry)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrBusy
	case err != nil:
		return c.Wrap(err, "task %d", t.Task)
	case e.Worked != "" && !again:
		return ErrDone
	}
	if differs, same := t.SameWork(&e.Task); !same {
		return &pg.Error{Side: c.Side, Object: fmt.Sprintf("task %d", t.Task), Err: fmt.Errorf("was staged again in the meantime: %s", differs), Hint: "run the task again"}
	}
	return nil
}

// Complete marks the task as worked in the transaction that copied its chunk.
// The copy began at the start of the transaction.
func Complete(ctx context.Context, c *pg.Conn, tx pgx.Tx, r *task.Result) error {
	_, err := tx.Exec(ctx, `update __backfill.task
        set worked = tstzrange(now(), clock_timestamp(), '[]'), copy_message = $2, failed = null,
            verified = null, verify_message = null, rows = $3, bytes = $4
        where priority = $1`, r.Task, storable(message(r)), r.Rows, r.Bytes)
	return c.Wrap(err, "complete task %d", r.Task)
}

func message(r *task.Result) string {
	s := r.Way
	if r.WhyNotRaw != "" {
		s += ": " + r.WhyNotRaw
	}
	if s != "" && r.Message != "" {
		s += "; "
	}
	return s + r.Message
}

// storable is a message as a text column takes it. Servers cut names within
// characters, and their messages quote them.
func storable(message string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(message, "\ufffd"), "\x00", "\ufffd")
}

// Fail leaves the message of a failed attempt on the task, in a transaction of
// its own after the rollback.
func Fail(ctx context.Context, c *pg.Conn, number int64, message string) error {
	_, err := c.Exec(ctx, `update __backfill.task set attempts = attempts + 1, failed = clock_timestamp(), copy_message = $2
        where priority = $1 and worked is null`, number, storable(message))
	return c.Wrap(err, "task %d", number)
}

// FailRows is Fail for a chunk whose compressed relation the target cannot take:
// the next record of the task says that its rows have to travel, and why.
func FailRows(ctx context.Context, c *pg.Conn, number int64, message, why string) error {
	if _, err := c.Exec(ctx, "update __backfill.task set rows_only = $2 where priority = $1", number, storable(why)); err != nil {
		return c.Wrap(err, "task %d", number)
	}
	return Fail(ctx, c, number, message)
}

// Verdict stores what a comparison found; verified is null unless both sides
// were equal. It reports false when the task was copied again since e was read:
// then the verdict is of rows that are no longer there, and nothing is stored.
func Verdict(ctx context.Context, c *pg.Conn, e *Entry, r *task.Result) (stored bool, err error) {
	tag, err := c.Exec(ctx, `update __backfill.task
        set verified = case when $2 then tstzrange(clock_timestamp() - $3::float8 * interval '1 second', clock_timestamp(), '[]') end,
            verify_message = $4
        where priority = $1 and worked::text = $5`, r.Task, r.Status == task.Verified, r.Seconds, storable(r.Message), e.Worked)
	return tag.RowsAffected() == 1, c.Wrap(err, "task %d", r.Task)
}
