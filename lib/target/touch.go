package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Continuous aggregates learn of rows as those come in. What is written to a
// compressed relation is no row to TimescaleDB: a refresh would find the
// aggregates up to date. Of all that an owner may do, two things tell them:
// TRUNCATE, which keeps the application out until the commit, and a change of
// rows at both ends, between which a transaction is taken to have changed
// everything.

// truncate empties a chunk, or of a compressed one its batches, and tells the
// aggregates that all of it has changed.
func (l *Loader) truncate(ctx context.Context, tx pgx.Tx, t *task.Task, chunk *tsdb.Chunk) error {
	c, err := l.lock(ctx, tx, chunk.Name, t, "access exclusive")
	if err != nil {
		return err
	}
	if err := l.unfreeze(ctx, tx, c); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "truncate only "+pg.Ident(c.Name.Schema, c.Name.Name))
	return l.db.Wrap(err, "clear chunk %s", c.Name)
}

// remember keeps, for touch, the rows at both ends of what a chunk holds before it
// is emptied.
func (l *Loader) remember(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk) error {
	ends, err := l.span(ctx, tx, ht, chunk)
	if err != nil {
		return err
	}
	return l.keep(ctx, tx, ht, chunk, ends)
}

// tell tells the aggregates, if there are any, of all that a chunk holds, and of
// what was remembered.
func (l *Loader) tell(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk) error {
	aggregated, err := l.db.Aggregated(ctx, ht)
	if err != nil || !aggregated {
		return err
	}
	ends, err := l.span(ctx, tx, ht, chunk)
	if err != nil {
		return err
	}
	return l.touch(ctx, tx, ht, chunk, ends)
}

// untold says why the aggregates cannot be told by touch: triggers would take the
// rows that it deletes for rows that are gone.
func (l *Loader) untold(ctx context.Context, ht *tsdb.Hypertable) (why string, err error) {
	aggregated, err := l.db.Aggregated(ctx, ht)
	if err != nil || !aggregated {
		return "", err
	}
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnDelete)
	if len(triggers) > 0 {
		why = "triggers on DELETE would fire when continuous aggregates are told of the rows: " + strings.Join(triggers, ", ")
	}
	return why, err
}

// span returns, quoted, the first and the last value of the primary dimension in
// a chunk, or nil where it is empty.
func (l *Loader) span(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk) ([]string, error) {
	at := comparable(ht, pg.Ident(ht.Dimensions[0].Column))
	return l.ends(ctx, tx, "min("+at+")", "max("+at+")", pg.Ident(chunk.Name.Schema, chunk.Name.Name))
}

// spanOf is the span of a compressed relation, by its metadata; nil where it has
// none of the primary dimension.
func (l *Loader) spanOf(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, r *relation, rel string) ([]string, error) {
	var columns []string
	for _, c := range r.kept {
		if c.Index != nil && c.Index.Kind == tsdb.MinMax && slices.Equal(c.Index.Columns, []string{ht.Dimensions[0].Column}) {
			columns = append(columns, c.Name)
		}
	}
	if columns == nil {
		return nil, nil
	}
	of := pg.Idents(columns)
	return l.ends(ctx, tx, "min("+comparable(ht, "least("+of+")")+")", "max("+comparable(ht, "greatest("+of+")")+")", "only "+rel)
}

// comparable is a value of the primary dimension as min and max take it: there are
// none of uuid before PostgreSQL 18.
func comparable(ht *tsdb.Hypertable, value string) string {
	if ht.Dimensions[0].Type == "uuid" {
		return value + `::text collate "C"`
	}
	return value
}

func (l *Loader) ends(ctx context.Context, tx pgx.Tx, first, last, from string) (ends []string, err error) {
	err = l.asUser(ctx, tx, func() error {
		var both []*string
		// A plan that is kept would not see batches attached since (2.14).
		err := tx.QueryRow(ctx, fmt.Sprintf("select array[quote_literal(%s), quote_literal(%s)] from %s", first, last, from), pgx.QueryExecModeExec).Scan(&both)
		for _, e := range both {
			if e != nil {
				ends = append(ends, *e)
			}
		}
		return err
	})
	return ends, l.db.Wrap(err, "look into %s", from)
}

// keep copies a row of each end aside, for touch.
func (l *Loader) keep(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, ends []string) error {
	name, columns := pg.Ident(chunk.Name.Schema, chunk.Name.Name), copied(ht)
	err := l.asUser(ctx, tx, func() error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("create temporary table if not exists bf_ends on commit drop as select %s from only %s with no data", columns, name)); err != nil {
			return err
		}
		for _, end := range ends { // a literal: by that the server skips batches
			if _, err := tx.Exec(ctx, fmt.Sprintf("insert into pg_temp.bf_ends select %s from %s where %s = %s limit 1", columns, name, pg.Ident(ht.Dimensions[0].Column), end)); err != nil {
				return err
			}
		}
		return nil
	})
	return l.db.Wrap(err, "look into %s", name)
}

// touch tells the aggregates of what is between these ends of a chunk, and of what
// was remembered: a copy of each row goes into the chunk and
// out of it again. A unique key may forbid that (2.28 and newer look for it in
// batches, too): then the row itself is taken out and put back, which decompresses
// its batch.
func (l *Loader) touch(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, ends []string) error {
	c, err := l.db.Chunk(ctx, chunk.Name)
	if err != nil {
		return err
	}
	if err := l.keep(ctx, tx, ht, c, ends); err != nil {
		return err
	}
	s, err := l.sight(ctx, ht, c)
	if err != nil {
		return err
	}
	name, columns := pg.Ident(c.Name.Schema, c.Name.Name), copied(ht)
	into, err := l.relation(ctx, ht, c)
	if err != nil {
		return err
	}
	err = l.asUser(ctx, tx, func() error {
		rows, err := tx.Query(ctx, "select ctid::text, "+s.values()+" from pg_temp.bf_ends")
		if err != nil {
			return err
		}
		type row struct {
			CTID   string
			Values []*string
		}
		kept, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			return err
		}
		for _, e := range kept {
			var ctid string
			// ON CONFLICT is refused where a key is deferrable.
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from pg_temp.bf_ends where ctid = %s::tid returning ctid::text",
					into, columns, pg.Literal(e.CTID))).Scan(&ctid)
			})
			var tag pgconn.CommandTag
			switch {
			case pg.Code(err) == pg.UniqueViolation:
				// By another segment, maybe, and up to 2.22 by none of the batches.
				var there []*string
				at := sight(s[:1]).where(e.Values[:1])
				err = tx.QueryRow(ctx, fmt.Sprintf("(select %s from only %s where %s limit 1) union all (select %[1]s from %[2]s where %[3]s limit 1) limit 1", s.values(), name, at), pgx.QueryExecModeExec).Scan(&there)
				if err == nil {
					tag, err = tx.Exec(ctx, fmt.Sprintf("with row as (delete from only %s where %s returning %s) insert into %s (%[3]s) overriding system value select %[3]s from row", name, s.where(there), columns, into))
				}
				if errors.Is(err, pgx.ErrNoRows) || err == nil && tag.RowsAffected() == 0 {
					err = errors.New("the row that is in the way is not there")
				}
			case err == nil:
				tag, err = tx.Exec(ctx, "delete from only "+name+" where ctid = "+pg.Literal(ctid)+"::tid and "+s.where(e.Values))
				if err == nil && tag.RowsAffected() != 1 {
					err = fmt.Errorf("%d rows instead of one were deleted", tag.RowsAffected())
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return l.db.Wrap(err, "tell the continuous aggregates of chunk %s", c.Name)
}

// copied lists the columns that are copied.
func copied(ht *tsdb.Hypertable) string {
	var names []string
	for _, c := range ht.Copied() {
		names = append(names, c.Name)
	}
	return pg.Idents(names)
}

// sight is by which columns a statement finds the few batches that may have a
// row: from 2.28 on DELETE and UPDATE go through batches, and a ctid does not
// keep them from that.
type sight []string

func (l *Loader) sight(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) (sight, error) {
	s := sight{ht.Dimensions[0].Column}
	settings, err := l.db.ChunkSettings(ctx, c)
	if err == nil && settings != nil {
		s = append(s, settings.SegmentBy...)
	}
	return s, err
}

// values is an expression for where.
func (s sight) values() string {
	var show []string
	for _, c := range s {
		show = append(show, pg.Ident(c)+"::text")
	}
	return "array[" + strings.Join(show, ", ") + "]"
}

// where finds rows with these values. It is volatile: else batches all of whose
// rows have them would be deleted as a whole, whatever the ctid is.
func (s sight) where(values []*string) string {
	where := "random() <= 1"
	for i, c := range s {
		if values[i] == nil {
			where += " and " + pg.Ident(c) + " is null"
		} else {
			where += " and " + pg.Ident(c) + " = " + pg.Literal(*values[i])
		}
	}
	return where
}
