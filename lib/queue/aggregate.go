package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

//go:embed aggregates.sql
var aggregatesSQL string

// SetMarks stores watermarks of the source, by view.
func SetMarks(ctx context.Context, c *pg.Conn, marks map[task.Name]int64) error {
	for view, mark := range marks {
		if _, err := c.Exec(ctx, `insert into __backfill.aggregate (view_schema, view_name, source_watermark)
            values ($1, $2, $3)
            on conflict (view_schema, view_name) do update set source_watermark = excluded.source_watermark`,
			view.Schema, view.Name, mark); err != nil {
			return c.Wrap(err, "remember the watermark of %s", view)
		}
	}
	return nil
}

// Marks returns the source's watermarks that were stored last.
func Marks(ctx context.Context, c *pg.Conn) (map[task.Name]int64, error) {
	rows, err := c.Query(ctx, "select view_schema, view_name, source_watermark from __backfill.aggregate")
	if err != nil {
		return nil, c.Wrap(err, "watermarks of the source")
	}
	marks := map[task.Name]int64{}
	var view task.Name
	var mark int64
	_, err = pgx.ForEachRow(rows, []any{&view.Schema, &view.Name, &mark}, func() error {
		marks[view] = mark
		return nil
	})
	return marks, c.Wrap(err, "watermarks of the source")
}

// SetCopied stores that the aggregate's buckets before until are copied; nil
// changes nothing.
func SetCopied(ctx context.Context, c *pg.Conn, view task.Name, until *int64) error {
	_, err := c.Exec(ctx, `update __backfill.aggregate set copied_until = greatest(copied_until, $3)
        where view_schema = $1 and view_name = $2`, view.Schema, view.Name, until)
	return c.Wrap(err, "remember %s", view)
}

// SetPrimed stores that the aggregate counts as refreshed before until.
func SetPrimed(ctx context.Context, c *pg.Conn, view task.Name, until int64) error {
	_, err := c.Exec(ctx, "update __backfill.aggregate set primed = $3 where view_schema = $1 and view_name = $2",
		view.Schema, view.Name, until)
	return c.Wrap(err, "prime %s", view)
}

// StagedRange is what the tasks say of a hypertable or an aggregate.
type StagedRange struct {
	Until   int64  // the end of its last chunk, or --until if that is before
	Cut     *int64 // --until, of an aggregate whose buckets are copied
	Pending int64  // tasks
}

// StagedRanges maps names of hypertables and views to what is staged of them.
func StagedRanges(ctx context.Context, c *pg.Conn) (map[task.Name]StagedRange, error) {
	rows, err := c.Query(ctx, aggregatesSQL)
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	m := map[task.Name]StagedRange{}
	var name task.Name
	var s StagedRange
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &s.Until, &s.Cut, &s.Pending}, func() error {
		m[name] = s
		return nil
	})
	return m, c.Wrap(err, "list tasks")
}

// SliceEnds maps hypertables to the end of what is staged for them from a source that
// is no hypertable.
func SliceEnds(ctx context.Context, c *pg.Conn) (map[task.Name]int64, error) {
	rows, err := c.Query(ctx, "select "+labelSchema+", "+labelName+", max((filter->>'until')::bigint) "+
		"from __backfill.task where kind <> 'chunk' group by 1, 2")
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	m := map[task.Name]int64{}
	var name task.Name
	var end int64
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &end}, func() error {
		m[name] = end
		return nil
	})
	return m, c.Wrap(err, "list tasks")
}

// Sources maps hypertables of the target to what they are filled from, where that has
// another name.
func Sources(ctx context.Context, c *pg.Conn) (map[task.Name]task.Name, error) {
	rows, err := c.Query(ctx, `select distinct into_schema, into_name, hypertable_schema, hypertable_name
        from __backfill.task where into_name is not null`)
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	m := map[task.Name]task.Name{}
	var into, from task.Name
	_, err = pgx.ForEachRow(rows, []any{&into.Schema, &into.Name, &from.Schema, &from.Name}, func() error {
		m[into] = from
		return nil
	})
	return m, c.Wrap(err, "list tasks")
}

// Aside returns the tables (quoted) for rows of a materialization hypertable that
// bf-caggs puts aside during a refresh: kept for rows that the refresh would
// delete, above for rows that would raise the watermark.
func Aside(hypertable int32) (kept, above string) {
	name := func(what string) string { return pg.Ident("__backfill", fmt.Sprint(what, "_", hypertable)) }
	return name("kept"), name("above")
}

// SetKeeping stores the range that is being refreshed, in the transaction that puts
// its rows aside. ClearKeeping removes it, in the one that puts them back.
func SetKeeping(ctx context.Context, tx pgx.Tx, view task.Name, from, until int64) error {
	_, err := tx.Exec(ctx, "update __backfill.aggregate set keeping = int8range($3, $4) where view_schema = $1 "+
		"and view_name = $2",
		view.Schema, view.Name, from, until)
	return err
}

// ClearKeeping is the counterpart of SetKeeping.
func ClearKeeping(ctx context.Context, tx pgx.Tx, view task.Name) error {
	_, err := tx.Exec(ctx, "update __backfill.aggregate set keeping = null where view_schema = $1 and view_name = $2",
		view.Schema, view.Name)
	return err
}

// Keeping returns the range whose rows are put aside; ok is false for none.
func Keeping(ctx context.Context, c *pg.Conn, view task.Name) (from, until int64, ok bool, err error) {
	err = c.QueryRow(ctx, `select lower(keeping), upper(keeping) from __backfill.aggregate
        where view_schema = $1 and view_name = $2 and keeping is not null`, view.Schema, view.Name).Scan(&from, &until)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, false, nil
	}
	return from, until, err == nil, c.Wrap(err, "rows of %s put aside", view)
}

// Interrupted lists the aggregates with rows that are put aside: a bf-caggs died in
// the middle of a window.
func Interrupted(ctx context.Context, c *pg.Conn) ([]task.Name, error) {
	rows, err := c.Query(ctx, `select view_schema, view_name from __backfill.aggregate where keeping is not null
        union select user_view_schema, user_view_name from _timescaledb_catalog.continuous_agg
        where to_regclass('__backfill.above_' || mat_hypertable_id) is not null`)
	if err != nil {
		return nil, c.Wrap(err, "rows put aside")
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[task.Name])
	return names, c.Wrap(err, "rows put aside")
}
