package cagg

import (
	"context"
	"errors"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5"
)

// Remember keeps watermarks of the source in __backfill.
func Remember(ctx context.Context, c *pg.Conn, marks map[task.Name]int64) error {
	for view, mark := range marks {
		if _, err := c.Exec(ctx, `insert into __backfill.aggregate (view_schema, view_name, source_watermark) values ($1, $2, $3)
            on conflict (view_schema, view_name) do update set source_watermark = excluded.source_watermark`, view.Schema, view.Name, mark); err != nil {
			return c.Wrap(err, "remember the watermark of %s", view)
		}
	}
	return nil
}

// Marks returns the source's watermarks that were last remembered.
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

// staged is what the tasks say of a hypertable or an aggregate.
type staged struct {
	until   int64  // the end of its last chunk, or --until if that is before
	cut     *int64 // --until, of an aggregate
	pending int64
}

// stagedByName maps names of hypertables and views to what is staged of them.
func stagedByName(ctx context.Context, c *pg.Conn) (map[task.Name]staged, error) {
	rows, err := c.Query(ctx, `select coalesce(view_schema, hypertable_schema), coalesce(view_name, hypertable_name),
            max((filter->>'until')::bigint), max(copied_until), count(*) filter (where worked is null)
        from __backfill.task left join __backfill.aggregate using (view_schema, view_name) group by 1, 2`)
	if err != nil {
		return nil, c.Wrap(err, "list tasks")
	}
	m := map[task.Name]staged{}
	var name task.Name
	var s staged
	_, err = pgx.ForEachRow(rows, []any{&name.Schema, &name.Name, &s.until, &s.cut, &s.pending}, func() error {
		m[name] = s
		return nil
	})
	return m, c.Wrap(err, "list tasks")
}

// keeping returns the range whose rows are put aside, nil for none.
func keeping(ctx context.Context, c *pg.Conn, view task.Name) (*span, error) {
	var s span
	err := c.QueryRow(ctx, `select lower(keeping), upper(keeping) from __backfill.aggregate
        where view_schema = $1 and view_name = $2 and keeping is not null`, view.Schema, view.Name).Scan(&s.From, &s.Until)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &s, c.Wrap(err, "rows of %s put aside", view)
}

// Interrupted lists the aggregates that a bf-caggs has left in the middle of a
// window, with rows put aside.
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
