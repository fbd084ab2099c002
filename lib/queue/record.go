package queue

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed staged.sql
	stagedSQL string
	//go:embed record.sql
	recordSQL string
	//go:embed live.sql
	liveSQL string
	//go:embed retire.sql
	retireSQL string
	//go:embed conflicts.sql
	conflictsSQL string
	//go:embed origins.sql
	originsSQL string
)

// Conflicts refuses a plan that cannot be added to the tasks: one of chunks of another
// source database, because chunks of two databases have the same names; one of another
// source for the same hypertable; or one that would leave a gap inside a chunk or a
// slice, because each has one task with one range.
func Conflicts(ctx context.Context, c *pg.Conn, origin string, plan []*task.Task) error {
	var other string
	var n int64
	chunks, schemas, names := len(plan) == 0, []string{}, []string{}
	for _, t := range plan {
		chunks = chunks || t.Kind == task.KindChunk
		to := t.Target()
		schemas, names = append(schemas, to.Schema), append(names, to.Name)
	}
	err := pgx.ErrNoRows
	if origin != "" {
		err = c.QueryRow(ctx, originsSQL, origin, chunks, schemas, names).Scan(&other, &n)
	}
	switch {
	case err == nil:
		return &pg.Error{Side: c.Side,
			Err: fmt.Errorf("__backfill holds %d tasks of another source database (%s) than this one (%s)", n,
				other, origin),
			Hint: "check --source; when that migration is over, or its source has moved to a new server: " +
				"bf-clean (--force when tasks are pending), then run bf-stage again"}
	case !errors.Is(err, pgx.ErrNoRows):
		return c.Wrap(err, "look for tasks of another source")
	}
	return gaps(ctx, c, plan)
}

// gaps refuses a plan with a range that neither overlaps nor adjoins the one
// that its chunk is staged with.
func gaps(ctx context.Context, c *pg.Conn, plan []*task.Task) error {
	keys := make([][]*string, 5)
	bounds := make([][]int64, 4)
	for _, t := range plan {
		for i, s := range key(t) {
			keys[i] = append(keys[i], s)
		}
		for i, s := range []string{t.Range.From, t.Range.Until, t.Slices[0].From, t.Slices[0].Until} {
			b, err := task.Bound(s)
			if err != nil {
				return err
			}
			bounds[i] = append(bounds[i], b)
		}
	}
	rows, err := c.Query(ctx, conflictsSQL, keys[0], keys[1], keys[2], keys[3], keys[4], bounds[0], bounds[1],
		bounds[2], bounds[3])
	if err != nil {
		return c.Wrap(err, "compare the plan with the tasks")
	}
	type gap struct {
		N      int64
		Staged task.Range
	}
	gaps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[gap])
	if err != nil || len(gaps) == 0 {
		return c.Wrap(err, "compare the plan with the tasks")
	}
	t, more := plan[gaps[0].N-1], ""
	if len(gaps) > 1 {
		more = fmt.Sprintf(" (and so with %d more)", len(gaps)-1)
	}
	if t.Kind != task.KindChunk {
		return &pg.Error{Side: c.Side, Object: t.What(),
			Err:  fmt.Errorf("is staged with %s, which is neither within that nor around it%s", &gaps[0].Staged, more),
			Hint: "stage a range that covers both, or end that backfill with bf-clean first"}
	}
	return &pg.Error{Side: c.Side, Object: "chunk " + t.Chunk.String(),
		Err:  fmt.Errorf("is staged with %s: %s would leave a gap%s", &gaps[0].Staged, &t.Range, more),
		Hint: "stage a range that adjoins, or end that backfill with bf-clean first"}
}

// key is the task's key as column key has it, the slice null for a chunk, and the name
// of the source.
func key(t *task.Task) [5]*string {
	if t.Kind == task.KindChunk {
		return [5]*string{&t.Chunk.Schema, &t.Chunk.Name, nil, &t.Hypertable.Schema, &t.Hypertable.Name}
	}
	to := t.Target()
	return [5]*string{&to.Schema, &to.Name, &t.Slices[0].From, &t.Hypertable.Schema, &t.Hypertable.Name}
}

// Recorded is what Record has done.
type Recorded struct {
	Staged  []*task.Task // new or changed
	Retired []*task.Task // deleted, because other tasks copy their rows now; number and names only
}

// Record adds a plan to the tasks, in the plan's order. Tasks that exist already
// are not changed, unless their range grew or their chunk was replaced, or all
// are to be copied again.
func Record(ctx context.Context, c *pg.Conn, plan []*task.Task, again bool) (out *Recorded, err error) {
	err = pgx.BeginFunc(ctx, c.Conn, func(tx pgx.Tx) error {
		// A second bf-stage waits here and then finds the tasks. The lock is not
		// on the table of tasks, which would deadlock with a bf-load that has
		// claimed a task and wants to complete it.
		if _, err := tx.Exec(ctx, "lock table __backfill.version in share row exclusive mode"); err != nil {
			return err
		}
		if len(plan) > 0 { // another bf-stage may have been faster
			if err := Conflicts(ctx, c, plan[0].Origin, plan); err != nil {
				return err
			}
		}
		if err := unite(ctx, tx, plan); err != nil {
			return err
		}
		if err := copyPlan(ctx, tx, plan); err != nil {
			return err
		}
		out, err = merge(ctx, tx, again)
		return err
	})
	if err != nil {
		return nil, c.Wrap(err, "record the plan")
	}
	// The first lanes' queries need statistics of the real size.
	_, _ = c.Exec(ctx, "analyze __backfill.task")
	return out, nil
}

// copyPlan fills temporary table staged.
func copyPlan(ctx context.Context, tx pgx.Tx, plan []*task.Task) error {
	if _, err := tx.Exec(ctx, stagedSQL); err != nil {
		return err
	}
	columns := []string{"n", "kind", "into_schema", "into_name", "scan", "chunk_schema", "chunk_name",
		"hypertable_schema", "hypertable_name", "view_schema", "view_name",
		"dimensions", "filter", "origin", "lsn", "snapshot", "rows_only", "est_bytes", "est_rows"}
	rows := pgx.CopyFromSlice(len(plan), func(i int) ([]any, error) {
		t := plan[i]
		dims, err := json.Marshal(t.Slices)
		if err != nil {
			return nil, err
		}
		filter, err := json.Marshal(t.Range)
		if err != nil {
			return nil, err
		}
		vs, vn := nullName(t.View)
		is, in := nullName(t.Into)
		return []any{int64(i + 1), cmp.Or(t.Kind, "chunk"), is, in, t.
			Scan, t.Chunk.Schema, t.Chunk.Name, t.Hypertable.Schema, t.Hypertable.Name, vs, vn,
			dims, filter, null(t.Origin), null(t.LSN), null(t.Snapshot), null(t.RowsOnly), t.Bytes, t.Rows}, nil
	})
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"pg_temp", "staged"}, columns, rows)
	return err
}

func nullName(n *task.Name) (schema, name *string) {
	if n == nil {
		return nil, nil
	}
	return &n.Schema, &n.Name
}

func null(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// merge merges table staged into the tasks.
func merge(ctx context.Context, tx pgx.Tx, again bool) (*Recorded, error) {
	rows, err := tx.Query(ctx, recordSQL, again)
	if err != nil {
		return nil, err
	}
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, liveSQL); err != nil {
		return nil, err
	}
	if rows, err = tx.Query(ctx, retireSQL); err != nil {
		return nil, err
	}
	out := &Recorded{}
	if out.Retired, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (*task.Task, error) {
		var t task.Task
		err := r.Scan(&t.Task, &t.Kind, &t.Hypertable.Schema, &t.Hypertable.Name, &t.Chunk.Schema,
			&t.Chunk.Name, &t.Range)
		return &t, err
	}); err != nil {
		return nil, err
	}
	if rows, err = tx.Query(ctx, listSQL+" where priority = any($1) order by priority", numbers); err != nil {
		return nil, err
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	for _, e := range entries {
		out.Staged = append(out.Staged, &e.Task)
	}
	return out, err
}
