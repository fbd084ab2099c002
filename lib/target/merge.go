package target

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// replace puts the rows of the stream in the place of what the target holds in
// the task's range, and returns the relation that they are in. m is how, where
// some of it is referenced; else nil.
func (l *Loader) replace(ctx context.Context, tx pgx.Tx, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, p *place, w way, m *merger, part *stream.Part, data io.Reader) (relation string, stored, bytes int64, err error) {
	if m != nil {
		if w == rowsRoot {
			if err := l.takeTurns(ctx, tx, ht, ""); err != nil {
				return "", 0, 0, l.db.Wrap(err, "merge into %s", m.relation)
			}
		}
		stored, bytes, err = l.merge(ctx, tx, r, m, part, data)
		return m.relation, stored, bytes, err
	}
	if relation, err = l.clear(ctx, tx, ht, t, p, w); err != nil {
		return "", 0, 0, err
	}
	if w == rowsRoot && !l.db.SettingsPerChunk() {
		// 2.11 crashes when COPY puts rows beside batches that unique keys are
		// looked for in, and row triggers fire. INSERT does not.
		triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnInsert)
		if err != nil {
			return "", 0, 0, err
		}
		if len(triggers) > 0 {
			if stored, bytes, err = l.park(ctx, tx, r, relation, part, data); err == nil {
				err = l.unpark(ctx, tx, relation, part, stored)
			}
			return relation, stored, bytes, err
		}
	}
	stored, bytes, err = l.rows(ctx, tx, r, relation, part, data)
	return relation, stored, bytes, err
}

// merger is how rows are replaced that other tables reference. To delete them
// and put them back would violate the foreign keys, or cascade: rows of other
// tables would be gone for good. So what has an equal on the source is updated.
type merger struct {
	table    string   // the hypertable
	relation string   // it, or the chunk
	only     string   // "only " for a chunk
	where    string   // the rows of the task's range
	key      []string // columns of a unique key that is referenced
}

// whyMerged says why a chunk's rows do not become a compressed chunk's.
const whyMerged = "other tables reference rows of the target's chunk"

// merger returns nil when nothing references the hypertable (by key, see
// referenced) or the target holds no rows in the range, in the chunk or (nil) in
// all of them: then rows are just copied.
func (l *Loader) merger(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, c *tsdb.Chunk, key []string) (*merger, error) {
	if key == nil {
		return nil, nil
	}
	table := pg.Ident(ht.Name.Schema, ht.Name.Name)
	m := &merger{table: table, relation: table, key: key}
	var err error
	if c != nil {
		m.relation = pg.Ident(c.Name.Schema, c.Name.Name)
		if c.Status&tsdb.StatusCompressed == 0 {
			m.only = "only " // which does not show what is in batches
		}
		m.where, err = l.db.RangeCondition(ht, t)
	} else {
		m.where, err = l.db.TaskCondition(ht, t)
	}
	if err != nil {
		return nil, err
	}
	var held bool
	err = l.asUser(ctx, tx, func() error {
		return tx.QueryRow(ctx, "select exists (select from "+m.only+m.relation+" where "+m.where+")").Scan(&held)
	})
	if err != nil || !held {
		return nil, l.db.Wrap(err, "look into %s", m.relation)
	}
	return m, nil
}

// merge loads the rows into a temporary table first.
func (l *Loader) merge(ctx context.Context, tx pgx.Tx, r *stream.Reader, m *merger, part *stream.Part, data io.Reader) (stored, bytes int64, err error) {
	const rows = parked
	columns := columnsOf(part)
	if stored, bytes, err = l.park(ctx, tx, r, m.relation, part, data); err != nil {
		return 0, 0, err
	}
	// The server updates no column that is GENERATED ALWAYS AS IDENTITY.
	var always []string
	if err := tx.QueryRow(ctx, "select coalesce(array_agg(attname::text), '{}') from pg_attribute where attrelid = $1::text::regclass and attidentity = 'a'", m.relation).Scan(&always); err != nil {
		return 0, 0, err
	}
	var same, set, fixed []string
	for _, k := range m.key {
		same = append(same, fmt.Sprintf("o.%[1]s = n.%[1]s", pg.Ident(k)))
	}
	equal := strings.Join(same, " and ")
	for _, c := range part.Columns {
		switch {
		case slices.Contains(m.key, c.Name):
		case slices.Contains(always, c.Name):
			fixed = append(fixed, fmt.Sprintf("o.%[1]s is distinct from n.%[1]s", pg.Ident(c.Name)))
		default:
			set = append(set, fmt.Sprintf("%[1]s = n.%[1]s", pg.Ident(c.Name)))
		}
	}
	old := m.only + m.relation + " o"
	var kept int64
	err = l.asUser(ctx, tx, func() error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("analyze %s", rows)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("delete from %s where %s and not exists (select from %s n where %s)", old, m.where, rows, equal)); err != nil {
			return err
		}
		if len(fixed) > 0 {
			var other bool
			if err := tx.QueryRow(ctx, fmt.Sprintf("select exists (select from %s, %s n where %s and (%s))", old, rows, equal, strings.Join(fixed, " or "))).Scan(&other); err != nil {
				return err
			}
			if other {
				column := pg.Ident(always[0])
				return &pg.Error{Side: pg.Target, Object: m.relation, Err: fmt.Errorf("rows that other tables may reference have another %s, which is generated always as identity and cannot be updated", column),
					Hint: fmt.Sprintf("for the time of the migration: alter table %s alter column %s set generated by default; then run the same again", m.table, column)}
			}
		}
		if len(set) > 0 {
			tag, err := tx.Exec(ctx, fmt.Sprintf("update %s set %s from %s n where %s", old, strings.Join(set, ", "), rows, equal))
			if err != nil {
				return err
			}
			kept += tag.RowsAffected()
		} else if err := tx.QueryRow(ctx, fmt.Sprintf("select count(*) from %s, %s n where %s", old, rows, equal)).Scan(&kept); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %s from %s n where not exists (select from %s where %s)",
			m.relation, columns, columns, rows, old, equal))
		kept += tag.RowsAffected()
		return err
	})
	if pg.Code(err) == pg.NotSupported { // ≥ 2.28: UPDATE of a column of another key, in batches
		return 0, 0, &pg.Error{Side: pg.Target, Object: "merge into " + m.relation, Err: err,
			Hint: "decompress the target's chunks of the range, or drop the foreign keys to " + m.table + " for the time of the migration; then run the same again"}
	}
	if err != nil {
		return 0, 0, l.db.Wrap(err, "merge into %s", m.relation)
	}
	if kept != stored {
		return 0, 0, &pg.Error{Side: pg.Target, Object: m.relation, Err: fmt.Errorf("stored %d of %d rows", kept, stored), Hint: "does a trigger drop rows?"}
	}
	return stored, bytes, nil
}

// parked is where park puts rows.
const parked = "pg_temp.bf_rows"

// park copies the rows of a part into a temporary table, from where they go
// into the relation like later.
func (l *Loader) park(ctx context.Context, tx pgx.Tx, r *stream.Reader, like string, part *stream.Part, data io.Reader) (stored, bytes int64, err error) {
	// WITH NO DATA plans nothing: of a hypertable no chunk is locked.
	if _, err := tx.Exec(ctx, fmt.Sprintf("create temporary table bf_rows on commit drop as select %s from %s with no data", columnsOf(part), like)); err != nil {
		return 0, 0, l.db.Wrap(err, "temporary table")
	}
	return l.rows(ctx, tx, r, parked, part, data)
}

// unpark puts parked rows, as many as there have to be, into a relation.
func (l *Loader) unpark(ctx context.Context, tx pgx.Tx, relation string, part *stream.Part, rows int64) error {
	return l.asUser(ctx, tx, func() error {
		tag, err := tx.Exec(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from "+parked, relation, columnsOf(part)))
		if err == nil && tag.RowsAffected() != rows {
			err = fmt.Errorf("stored %d of %d rows", tag.RowsAffected(), rows)
		}
		return l.db.Wrap(err, "copy into %s", relation)
	})
}

// unheld refuses a compressed chunk for one whose rows other tables reference.
func (l *Loader) unheld(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, c *tsdb.Chunk) error {
	key, err := l.db.Referenced(ctx, ht)
	if err != nil {
		return err
	}
	m, err := l.merger(ctx, tx, ht, t, c, key)
	if err == nil && m != nil {
		err = byRows(t, whyMerged)
	}
	return err
}
