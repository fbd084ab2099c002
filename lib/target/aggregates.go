package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Continuous aggregates learn of rows as those come in. What is written to a
// compressed relation is no row to TimescaleDB: a refresh would find the
// aggregates up to date. Of all that an owner may do, two things make the server
// log an invalidation: TRUNCATE, which keeps the application out until the commit,
// and a change of rows at both ends of a span, between which a transaction is taken
// to have changed everything.

// invalidation makes aggregates learn of the task's chunk.
type invalidation struct{ *load }

// keepEnds copies the rows at both ends of what the chunk holds aside, before it is
// emptied, for the invalidation, if there are aggregates.
func (v invalidation) keepEnds(ctx context.Context) error {
	if !v.dep.Aggregated {
		return nil
	}
	span, err := v.spanOfChunk(ctx)
	if err != nil {
		return err
	}
	return v.keepRows(ctx, span)
}

// ofChunk invalidates the aggregates, if there are any, over all that the
// chunk holds, and over what keepEnds has kept.
func (v invalidation) ofChunk(ctx context.Context) error {
	if !v.dep.Aggregated {
		return nil
	}
	span, err := v.spanOfChunk(ctx)
	if err != nil {
		return err
	}
	return v.of(ctx, span)
}

// obstacle says why there must be none: triggers would take the rows
// that it deletes for rows that are gone.
func (v invalidation) obstacle() (no obstacle) {
	if v.dep.Aggregated && len(v.dep.OnDelete) > 0 {
		no = obstaclef("triggers on DELETE would fire when continuous aggregates are told of the rows: %s",
			strings.Join(v.dep.OnDelete, ", "))
	}
	return no
}

// spanOfChunk returns, quoted, the first and the last value of the primary
// dimension in the chunk; nil where it is empty.
func (v invalidation) spanOfChunk(ctx context.Context) ([]string, error) {
	at := sortable(v.ht, pg.Ident(v.ht.Dimensions[0].Column))
	return v.span(ctx, "min("+at+")", "max("+at+")", v.chunk.Quoted())
}

// spanOfBatches is the same of a compressed relation, by its metadata; nil where it
// has none of the primary dimension.
func (v invalidation) spanOfBatches(ctx context.Context, r *relation) ([]string, error) {
	var columns []string
	time := []string{v.ht.Dimensions[0].Column}
	for _, c := range r.Kept {
		if c.Index != nil && c.Index.Kind == tsdb.MinMax && slices.Equal(c.Index.Columns, time) {
			columns = append(columns, c.Name)
		}
	}
	if columns == nil {
		return nil, nil
	}
	both := pg.Idents(columns)
	return v.span(ctx, "min("+sortable(v.ht, "least("+both+")")+")", "max("+sortable(v.ht, "greatest("+both+")")+")",
		"only "+r.Name)
}

// sortable is a value of the primary dimension as min and max take it: there are
// none of uuid before PostgreSQL 18.
func sortable(ht *tsdb.Hypertable, value string) string {
	if ht.Dimensions[0].Type == "uuid" {
		return value + `::text collate "C"`
	}
	return value
}

func (v invalidation) span(ctx context.Context, first, last, from string) (span []string, err error) {
	var both []*string
	err = v.asUser(ctx, func() error {
		// A plan that is kept would not see batches attached since (2.14).
		return v.QueryRow(ctx, fmt.Sprintf("select array[quote_literal(%s), quote_literal(%s)] from %s", first,
			last, from),
			pgx.QueryExecModeExec).Scan(&both)
	})
	for _, e := range both {
		if e != nil {
			span = append(span, *e)
		}
	}
	return span, v.Wrap(err, "look into %s", from)
}

// keepRows copies a row of each end aside.
func (v invalidation) keepRows(ctx context.Context, span []string) error {
	chunk, columns := v.chunk.Quoted(), copied(v.ht)
	sql := []string{fmt.Sprintf("create temporary table if not exists bf_ends on commit drop as "+
		"select %s from only %s with no data", columns, chunk)}
	for _, end := range span { // a literal: by that the server skips batches
		sql = append(sql, fmt.Sprintf("insert into pg_temp.bf_ends select %s from %s where %s = %s limit 1",
			columns, chunk, pg.Ident(v.ht.Dimensions[0].Column), end))
	}
	_, err := v.execAsUser(ctx, strings.Join(sql, "; "))
	return v.Wrap(err, "look into %s", chunk)
}

// of invalidates the aggregates over a span of the chunk, and over what was
// kept.
func (v invalidation) of(ctx context.Context, span []string) error {
	c, err := v.Chunk(ctx, v.chunk.Name)
	if err != nil {
		return err
	}
	if err := v.keepRows(ctx, span); err != nil {
		return err
	}
	b, err := tsdb.NewBatchFilter(ctx, v.DB, v.ht, c)
	if err != nil {
		return err
	}
	var kept []keptRow
	err = v.asUser(ctx, func() error {
		rows, err := v.Query(ctx, "select ctid::text, "+b.Values()+" from pg_temp.bf_ends")
		if err == nil {
			kept, err = pgx.CollectRows(rows, pgx.RowToStructByPos[keptRow])
		}
		return err
	})
	for _, row := range kept {
		if err == nil {
			err = v.rewrite(ctx, c, b, row)
		}
	}
	return v.Wrap(err, "tell the continuous aggregates of chunk %s", c.Name)
}

// keptRow is a row that was copied aside.
type keptRow struct {
	CTID   string
	Values []*string // of the batch filter
}

// rewrite puts a copy of a row into the chunk and takes it out again. A unique key
// may forbid that (≥ 2.28: in batches, too): then the row itself is taken out and
// put back, which decompresses its batch.
func (v invalidation) rewrite(ctx context.Context, c *tsdb.Chunk, b tsdb.BatchFilter, row keptRow) error {
	chunk, into, columns := c.Quoted(), v.beside(), copied(v.ht)
	var ctid string
	// ON CONFLICT is refused where a key is deferrable.
	err := v.savepoint(ctx, func() error {
		return v.scanAsUser(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s "+
			"from pg_temp.bf_ends "+
			"where ctid = %s::tid returning ctid::text", into, columns, pg.Literal(row.CTID)), &ctid)
	})
	switch {
	case err == nil:
		return v.deleteCopy(ctx, c.Quoted(), ctid, b.Where(row.Values))
	case pg.Code(err) != pg.UniqueViolation:
		return err
	}
	// The conflicting row may be in another segment, and (≤ 2.22) is in no batch.
	at := b[:1].Where(row.Values[:1])
	var there []*string
	err = v.asUser(ctx, func() error {
		return v.QueryRow(ctx, fmt.Sprintf("(select %s from only %s where %s limit 1) "+
			"union all (select %[1]s from %[2]s where %[3]s limit 1) limit 1", b.Values(), chunk, at),
			pgx.QueryExecModeExec).Scan(&there)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoConflict
	}
	if err != nil {
		return err
	}
	n, err := v.execAsUser(ctx, fmt.Sprintf("with row as (delete from only %s where %s returning %s) "+
		"insert into %s (%[3]s) overriding system value select %[3]s from row", chunk, b.Where(there), columns, into))
	if err == nil && n == 0 {
		err = errNoConflict
	}
	return err
}

var errNoConflict = errors.New("the conflicting row was not found")
