package target

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// copyRows replaces what the target holds in the task's range by the rows of
// the stream, in one transaction that also completes the task.
func (l *Loader) copyRows(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data io.Reader, p *place, img *tsdb.Image, s situation, res *task.Result) error {
	var loaded string // the chunk that has rows now
	err := l.inTx(ctx, t, func(tx pgx.Tx) error {
		frozen := img.Frozen
		var m *merger
		var err error
		if p.chunk != nil {
			// A writer's lock, so that the chunk cannot be compressed or
			// dropped under us; only then is its state worth looking at.
			c, err := l.lock(ctx, tx, p.chunk.Name, t, "row exclusive")
			if err != nil {
				return err
			}
			p.chunk, s.squeezed = c, c.Status&tsdb.StatusCompressed != 0
			if t.Range.Partial {
				frozen = c.Status&tsdb.StatusFrozen != 0
			}
			if m, err = l.merger(ctx, tx, ht, t, c, s.referenced); err != nil {
				return err
			}
			if s.held = m != nil; s.whyLocked == "" {
				s.whyLocked = "it was compressed a moment ago"
			}
		}
		way, why := choose(s)
		if way == rowsRoot {
			if m, err = l.merger(ctx, tx, ht, t, nil, s.referenced); err != nil {
				return err
			}
		}
		relation, stored, bytes, err := l.replace(ctx, tx, r, ht, t, p, way, m, part, data)
		if err != nil {
			return err
		}
		if err := whole(r); err != nil {
			return err
		}
		if way == rowsCompress {
			column, err := l.compress(ctx, tx, p.chunk)
			if err != nil {
				return err
			}
			if column != "" {
				way, why = rowsChunk, fmt.Sprintf("%s; compressing the target's chunk, which is older than its column %q, would lose NULLs of it", why, column)
			}
		}
		if way != rowsRoot && stored > 0 {
			loaded = relation
		}
		if frozen && p.chunk != nil {
			if err := l.freeze(ctx, tx, p.chunk); err != nil {
				return err
			}
		}
		res.Status, res.Rows, res.Bytes, res.Way, res.WhyNotRaw = task.Loaded, stored, bytes, string(way), why
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
	if err == nil && loaded != "" {
		l.analyze(ctx, loaded)
	}
	return err
}

// loosen decompresses a chunk that is compressed and has no batches, as the
// restored dump of a schema leaves it, and reports whether it is compressed
// still. In the transaction of the copy that would lock the application out of
// the chunk until the commit.
func (l *Loader) loosen(ctx context.Context, chunk *tsdb.Chunk) (squeezed bool, err error) {
	if squeezed = chunk.Status&tsdb.StatusCompressed != 0; !squeezed || chunk.Status&tsdb.StatusFrozen != 0 {
		return squeezed, nil
	}
	err = l.briefly(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "lock table only "+pg.Ident(chunk.Name.Schema, chunk.Name.Name)+" in access exclusive mode"); err != nil {
			return err
		}
		c, err := l.db.Chunk(ctx, chunk.Name)
		if err != nil || c == nil {
			return err
		}
		if squeezed = c.Status&tsdb.StatusCompressed != 0; !squeezed || c.Status&tsdb.StatusFrozen != 0 {
			return nil
		}
		batches, err := l.db.RelationName(ctx, c.Compressed)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "select exists (select from only "+batches+")").Scan(&squeezed); err != nil || squeezed {
			return err
		}
		_, err = tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "decompress_chunk")+"($1::oid::regclass)", c.OID)
		return err
	})
	return squeezed, l.db.Wrap(err, "decompress chunk %s", chunk.Name)
}

// admit marks the compressed chunks in the task's range as partially compressed,
// each in a short transaction that changes nothing else. The first statement that
// puts rows beside batches, or takes rows out of them, does that, in a row of the
// catalog: until our commit, the application's first insert would wait for it.
func (l *Loader) admit(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) error {
	chunks, err := l.db.ChunksIn(ctx, ht, t.Range)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		const relevant = tsdb.StatusCompressed | tsdb.StatusPartial | tsdb.StatusFrozen
		if c.Status&relevant != tsdb.StatusCompressed {
			continue
		}
		if triggers, err := l.db.RowTriggers(ctx, ht); err != nil || len(triggers) > 0 {
			return err
		}
		err := l.briefly(ctx, func(tx pgx.Tx) error { return l.admitTo(ctx, tx, ht, c) })
		if err != nil && (pg.Code(err) == "" || l.db.Lost()) { // else somebody waits
			return l.db.Wrap(err, "mark chunk %s as partially compressed", c.Name)
		}
	}
	return nil
}

// admitTo puts a copy of one of its rows beside the chunk's batches and takes it
// away again. Where the row has to be unique, the server has marked the chunk
// before it finds that out.
func (l *Loader) admitTo(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	settings, err := l.db.ChunkSettings(ctx, c)
	if err != nil || settings == nil {
		return err
	}
	var columns, show []string
	for _, col := range ht.Copied() {
		columns = append(columns, col.Name)
	}
	// From 2.28 on a DELETE goes through the batches that may have such a row:
	// by these columns it is hardly one.
	narrow := append([]string{ht.Dimensions[0].Column}, settings.SegmentBy...)
	for _, col := range narrow {
		show = append(show, pg.Ident(col)+"::text")
	}
	chunk := pg.Ident(c.Name.Schema, c.Name.Name)
	var ctid string
	var values []*string
	err = l.asUser(ctx, tx, func() error {
		return tx.QueryRow(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s limit 1 on conflict do nothing returning ctid::text, array[%s]",
			pg.Ident(ht.Name.Schema, ht.Name.Name), pg.Idents(columns), chunk, strings.Join(show, ", "))).Scan(&ctid, &values)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	where := "ctid = " + pg.Literal(ctid) + "::tid"
	for i, col := range narrow {
		if values[i] == nil {
			where += " and " + pg.Ident(col) + " is null"
		} else {
			where += " and " + pg.Ident(col) + " = " + pg.Literal(*values[i])
		}
	}
	return l.asUser(ctx, tx, func() error {
		tag, err := tx.Exec(ctx, "delete from only "+chunk+" where "+where)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("%d rows instead of the one that was added", tag.RowsAffected())
		}
		return err
	})
}

// compress has the server compress the chunk. Up to 2.18 that turns NULLs into
// the default of a column that was added to the chunk with one: then the chunk
// stays as it is, and the column is returned.
func (l *Loader) compress(ctx context.Context, tx pgx.Tx, chunk *tsdb.Chunk) (column string, err error) {
	missing, err := l.db.Missing(ctx, chunk.OID)
	if err != nil {
		return "", err
	}
	lossy := errors.New("lossy")
	err = l.patiently(ctx, tx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass)", chunk.OID); err != nil || len(missing) == 0 {
			return err
		}
		c, err := l.db.Chunk(ctx, chunk.Name)
		if err != nil {
			return err
		}
		_, nulls, err := l.db.Batches(ctx, c.Compressed, missing, func(column string) string { return pg.Ident(column) })
		if err == nil && len(nulls) > 0 {
			column, err = nulls[0], lossy
		}
		return err
	})
	if errors.Is(err, lossy) {
		return column, nil
	}
	return "", l.db.Wrap(err, "compress chunk %s", chunk.Name)
}

// copyRaw replaces the chunk by the compressed relation of the stream and the
// rows beside it, in one transaction that also completes the task. A fresh
// relation is filled first, under locks that nobody else meets; the chunk is
// touched at the end.
func (l *Loader) copyRaw(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, data io.Reader, img *tsdb.Image, rr *relation, w way, res *task.Result) error {
	return l.inTx(ctx, t, func(tx pgx.Tx) error {
		into := pg.Ident(chunk.Name.Schema, chunk.Name.Name)
		var rel string
		var err error
		if w == rawFresh {
			rel, err = l.build(ctx, tx, ht, chunk, rr)
		} else {
			if err := l.invalidate(ctx, tx, ht, t, chunk); err != nil {
				return err
			}
			rel, err = l.existing(ctx, tx, ht, t, chunk, rr)
			// Rows that go through the hypertable mark the chunk as partial.
			into = pg.Ident(ht.Name.Schema, ht.Name.Name)
		}
		if err != nil {
			return err
		}
		bytes, err := l.batches(ctx, r, data, rel, rr, w == rawFresh)
		if err != nil {
			return err
		}
		part, err := r.NextPart()
		if err != nil {
			return err
		}
		if err := l.refer(ctx, tx, chunk, rel, rr.keys); err != nil {
			return err
		}
		// To empty a compressed chunk, or one that aggregates are on, takes a lock
		// that keeps the application out: the rows had better have come by then.
		early := false
		if w == rawFresh {
			if early, err = l.db.Aggregated(ctx, ht); err != nil {
				return err
			}
			early = early || chunk.Status&tsdb.StatusCompressed != 0
		}
		beside := newPart(r)
		var stored, more int64
		if early {
			if stored, more, err = l.park(ctx, tx, r, into, part, beside); err == nil {
				err = whole(r)
			}
		}
		if err == nil && w == rawFresh {
			chunk, err = l.ready(ctx, tx, ht, t, chunk, rel, rr)
		}
		if err != nil {
			return err
		}
		if early {
			err = l.unpark(ctx, tx, into, part, stored)
		} else if stored, more, err = l.rows(ctx, tx, r, into, part, beside); err == nil {
			err = whole(r)
		}
		if err != nil {
			return err
		}
		if w == rawFresh {
			if err := l.become(ctx, tx, ht, chunk, rel, rr); err != nil {
				return err
			}
		}
		if img.Frozen {
			if err := l.freeze(ctx, tx, chunk); err != nil {
				return err
			}
		}
		res.Status, res.Rows, res.Bytes, res.Way = task.Loaded, rr.Rows+stored, bytes+more, string(w)
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
}

// ready sees to it that a filled relation can become the chunk's: indexed, the
// chunk without rows, and aggregates told of that.
func (l *Loader) ready(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, rel string, r *relation) (*tsdb.Chunk, error) {
	if err := l.index(ctx, tx, rel, r); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, "analyze "+rel); err != nil {
		return nil, err
	}
	if err := l.invalidate(ctx, tx, ht, t, chunk); err != nil {
		return nil, err
	}
	return l.empty(ctx, tx, ht, t, chunk)
}

// become makes a relation that is ready the chunk's.
func (l *Loader) become(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, rel string, r *relation) error {
	if err := l.patiently(ctx, tx, func(tx pgx.Tx) error { return l.attach(ctx, tx, ht, chunk, rel, r, true) }); err != nil {
		return l.db.Wrap(err, "attach the compressed relation to chunk %s", chunk.Name)
	}
	return l.finish(ctx, tx, ht, chunk, rel)
}

// rows copies the rows of a part into a relation; more are further options of
// COPY.
func (l *Loader) rows(ctx context.Context, tx pgx.Tx, r *stream.Reader, relation string, part *stream.Part, data io.Reader, more ...string) (stored, bytes int64, err error) {
	options := strings.Join(append([]string{"format " + part.Format}, more...), ", ")
	err = l.asUser(ctx, tx, func() error {
		var err error
		stored, err = l.db.CopyIn(ctx, data, fmt.Sprintf("copy %s (%s) from stdin (%s)", relation, columnsOf(part), options))
		return err
	})
	if err != nil {
		return 0, 0, l.db.Wrap(err, "copy into %s", relation)
	}
	sent, bytes := r.Part()
	if stored != sent {
		return 0, 0, &pg.Error{Side: pg.Target, Object: relation, Err: fmt.Errorf("stored %d of %d rows", stored, sent), Hint: "does a trigger drop rows?"}
	}
	return stored, bytes, nil
}

// asUser runs f with the search_path that database and role set: functions of
// the user (of triggers, constraints, expression indexes, of a dimension) may
// rely on it.
func (l *Loader) asUser(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "set local search_path to default"); err != nil {
		return l.db.Wrap(err, "search_path")
	}
	if err := f(); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "set local search_path = pg_catalog, pg_temp")
	return l.db.Wrap(err, "search_path")
}

// analyze gives a relation the statistics that a native chunk has after its
// first autoanalyze, before anybody queries it. It comes after the commit: in
// the transaction of the COPY it would not keep the server from doing the same
// again, because the rows are counted as changes when that ends. A failure does
// no harm: an expression index whose function relies on a search_path makes
// ANALYZE fail from PostgreSQL 17 on, natively too.
func (l *Loader) analyze(ctx context.Context, relation string) {
	if l.db.Postgres >= 150000 {
		// Counts are sent once a second, and must not arrive after it.
		_, _ = l.db.Exec(ctx, "select pg_stat_force_next_flush()")
	}
	if _, err := l.db.Exec(ctx, "begin; set local search_path to default; analyze "+relation+"; commit"); err != nil {
		_, _ = l.db.Exec(ctx, "rollback")
	}
}

// remove deletes rows, running the user's functions where there are any.
func (l *Loader) remove(ctx context.Context, tx pgx.Tx, from string) error {
	return l.asUser(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "delete from "+from)
		return err
	})
}

// whole returns nil when the trailer proves that all of the segment came.
func whole(r *stream.Reader) error {
	if _, err := r.NextPart(); err != io.EOF {
		return cmpErr(err, errors.New("another part where none was announced"))
	}
	return nil
}

// clear removes the target's rows of the task's range and returns the relation
// to copy into. Rows outside of the range are not touched.
//
// DELETE, not TRUNCATE: it locks nobody out, and where continuous aggregates
// exist it logs the invalidation that makes later refreshes right. No lock
// stronger than a writer's is held during the COPY, so that the application
// goes on writing to the chunk; only a chunk that is compressed is locked for
// longer, and its batches go at once.
func (l *Loader) clear(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, p *place, w way) (relation string, err error) {
	if w == rowsRoot {
		relation = pg.Ident(ht.Name.Schema, ht.Name.Name)
		cond, err := l.db.TaskCondition(ht, t)
		if err != nil {
			return "", err
		}
		if p.chunk != nil {
			if err := l.unfreeze(ctx, tx, p.chunk); err != nil {
				return "", err
			}
		}
		// Batches that the range cuts are decompressed, however many.
		if _, err := tx.Exec(ctx, "select set_config(name, '0', true) from pg_settings where name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"); err != nil {
			return "", err
		}
		if err := l.clearChunks(ctx, tx, ht, t, cond); err != nil {
			return "", err
		}
		return relation, nil
	}
	relation = pg.Ident(p.chunk.Name.Schema, p.chunk.Name.Name)
	if t.Range.Partial {
		cond, err := l.db.RangeCondition(ht, t)
		if err != nil {
			return "", err
		}
		if err := l.unfreeze(ctx, tx, p.chunk); err != nil {
			return "", err
		}
		return relation, l.db.Wrap(l.remove(ctx, tx, "only "+relation+" where "+cond), "clear chunk %s", p.chunk.Name)
	}
	_, err = l.emptied(ctx, tx, t, p.chunk)
	return relation, err
}

// clearClass is the first key of the advisory lock under which lanes wait for
// each other in clearChunks; the second is the chunk's number.
const clearClass = 0x6269

// clearChunks deletes the task's rows where it has no chunk of its own: from the
// chunks that overlap it, one by one. A DELETE from the hypertable would lock all
// of its chunks, and thousands exhaust the server's lock table.
//
// A batch of a compressed chunk may hold rows of several tasks, and is
// decompressed for the first. In READ COMMITTED, a DELETE that waited for that
// does not see the rows that came of it: lanes take turns, from here to the
// commit, and nothing of others is believed but that no row is left.
func (l *Loader) clearChunks(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, cond string) error {
	chunks, err := l.db.ChunksIn(ctx, ht, t.Range)
	if err != nil {
		return err
	}
	// All locks before all else, and in order: lanes must not wait for each
	// other in a circle.
	for i, c := range chunks {
		name := pg.Ident(c.Name.Schema, c.Name.Name)
		if _, err := tx.Exec(ctx, "lock table only "+name+" in row exclusive mode"); err != nil {
			return l.db.Wrap(err, "chunk %s", c.Name)
		}
		// Only now is its state worth looking at.
		if chunks[i], err = l.db.Chunk(ctx, c.Name); err != nil {
			return err
		}
		if chunks[i] == nil {
			return changed(c)
		}
		if chunks[i].Status == 0 {
			continue
		}
		if err := l.unhurried(ctx, tx, fmt.Sprintf("select pg_advisory_xact_lock(%d, %d)", clearClass, c.ID)); err != nil {
			return l.db.Wrap(err, "clear %s", name)
		}
	}
	for _, c := range chunks {
		name := pg.Ident(c.Name.Schema, c.Name.Name)
		from := "only " + name
		for left, tries := true, 0; left; tries++ {
			if tries == 4 {
				return &pg.Error{Side: pg.Target, Object: "chunk " + name, Err: errors.New("rows in the task's range are there again and again after they were deleted"), Hint: "does a trigger keep them, or does an application change old rows?"}
			}
			if err := l.remove(ctx, tx, from+" where "+cond); err != nil {
				return l.db.Wrap(err, "clear %s", name)
			}
			if left = c.Status != 0; left {
				err := l.asUser(ctx, tx, func() error {
					return tx.QueryRow(ctx, "select exists (select from "+name+" where "+cond+")").Scan(&left)
				})
				if err != nil {
					return l.db.Wrap(err, "clear %s", name)
				}
			}
			if left && tries == 0 {
				// Up to 2.22 batches can be deleted from through the hypertable only.
				if err := l.takeTurns(ctx, tx, ht, ", or select "+pg.Ident(l.db.ExtensionSchema, "decompress_chunk")+"("+pg.Literal(name)+")"); err != nil {
					return l.db.Wrap(err, "clear %s", ht.Name)
				}
				from = pg.Ident(ht.Name.Schema, ht.Name.Name)
			}
		}
	}
	return nil
}

//go:embed locks.sql
var locksSQL string

// takeTurns goes before a statement on the hypertable that locks all of its
// chunks. Where several of those at once could exhaust the server's lock table,
// one lane at a time goes on until its commit; a sixteenth of the table leaves
// room for others. What would take most of it alone is refused: others, the
// application among them, would be out of locks. instead is what helps as well.
func (l *Loader) takeTurns(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, instead string) error {
	var needed, each, slots int64
	if err := tx.QueryRow(ctx, locksSQL, ht.OID).Scan(&needed, &each, &slots); err != nil {
		return err
	}
	switch room := each * slots; {
	case needed*16 <= room:
		return nil
	case needed*4 <= room*3:
		return l.unhurried(ctx, tx, fmt.Sprintf("select pg_advisory_xact_lock(%d, %d)", clearClass, -ht.ID))
	default:
		return &pg.Error{Side: pg.Target, Object: ht.Label().String(), Err: fmt.Errorf("the statement needed here would lock every chunk and index: %d locks, and the server has room for %d", needed, room),
			Hint: fmt.Sprintf("set max_locks_per_transaction = %d on the target and restart it%s; then run the same again", 2*needed/slots+1, instead)}
	}
}

// unhurried runs a statement that waits for other lanes alone, however long they
// copy.
func (l *Loader) unhurried(ctx context.Context, tx pgx.Tx, sql string) error {
	timeout, err := l.ownLockTimeout(ctx, tx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "set local lock_timeout = 0; "+sql+"; set local lock_timeout = "+timeout)
	return err
}

// empty locks the chunk against a change of its state and empties it. Rows that
// other tables reference are not for deleting: they have to be merged.
func (l *Loader) empty(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (*tsdb.Chunk, error) {
	c, err := l.lock(ctx, tx, chunk.Name, t, "row exclusive")
	if err != nil {
		return nil, err
	}
	if err := l.unheld(ctx, tx, ht, t, c); err != nil {
		return nil, err
	}
	return l.emptied(ctx, tx, t, c)
}

// emptied leaves a locked chunk uncompressed and without rows, and returns it as
// it is then. A compressed one is truncated, which keeps the application out for
// milliseconds: decompressing no batches is cheap, and from 2.28 on DELETE would
// go through them one by one. Where other tables reference the hypertable that
// is refused, and the batches alone are truncated.
func (l *Loader) emptied(ctx context.Context, tx pgx.Tx, t *task.Task, c *tsdb.Chunk) (*tsdb.Chunk, error) {
	relation := pg.Ident(c.Name.Schema, c.Name.Name)
	if err := l.unfreeze(ctx, tx, c); err != nil {
		return nil, err
	}
	if c.Status&tsdb.StatusCompressed != 0 {
		var err error
		if c, err = l.lock(ctx, tx, c.Name, t, "access exclusive"); err != nil {
			return nil, err
		}
		batches, err := l.db.RelationName(ctx, c.Compressed)
		if err != nil {
			return nil, err
		}
		truncate := func(what string) error {
			return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "truncate "+what)
				return err
			})
		}
		if err = truncate("only " + relation); pg.Code(err) == pg.NotSupported {
			err = truncate(batches)
		}
		if err != nil {
			return nil, l.db.Wrap(err, "clear chunk %s", c.Name)
		}
		if _, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "decompress_chunk")+"($1::oid::regclass)", c.OID); err != nil {
			return nil, l.db.Wrap(err, "clear chunk %s", c.Name)
		}
	}
	// A DELETE of nothing is refused, too, where a publication wants to tell
	// subscribers which rows it was, and there is no key.
	var some bool
	if err := tx.QueryRow(ctx, "select exists (select from only "+relation+")").Scan(&some); err != nil || !some {
		return c, l.db.Wrap(err, "clear chunk %s", c.Name)
	}
	return c, l.db.Wrap(l.remove(ctx, tx, "only "+relation), "clear chunk %s", c.Name)
}

// invalidate logs all of a chunk as changed, for the continuous aggregates on
// its hypertable. Rows do that as they come in, but what is written to a
// compressed relation is no row to TimescaleDB: a refresh would find the
// aggregates up to date. Of all that an owner may do, TRUNCATE logs the whole
// chunk, batches too. It comes first, so that what the lock keeps out is not
// lost.
func (l *Loader) invalidate(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) error {
	aggregated, err := l.db.Aggregated(ctx, ht)
	if err != nil || !aggregated {
		return err
	}
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

// existing empties the compressed relation that the chunk has and returns it.
// DELETE, not TRUNCATE: readers see the old batches until the commit.
func (l *Loader) existing(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, r *relation) (rel string, err error) {
	c, err := l.lock(ctx, tx, chunk.Name, t, "row exclusive")
	if err != nil {
		return "", err
	}
	if err := l.unheld(ctx, tx, ht, t, c); err != nil {
		return "", err
	}
	if err := l.matches(ctx, c, r); err != nil {
		return "", changed(chunk)
	}
	if err := l.unfreeze(ctx, tx, c); err != nil {
		return "", err
	}
	if rel, err = l.db.RelationName(ctx, c.Compressed); err != nil {
		return "", err
	}
	for _, from := range []string{rel, pg.Ident(c.Name.Schema, c.Name.Name)} {
		if err := l.remove(ctx, tx, "only "+from); err != nil {
			return "", l.db.Wrap(err, "clear chunk %s", c.Name)
		}
	}
	return rel, nil
}

// lock locks the chunk and then looks at its state.
func (l *Loader) lock(ctx context.Context, tx pgx.Tx, name task.Name, t *task.Task, mode string) (*tsdb.Chunk, error) {
	err := l.patiently(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "lock table only "+pg.Ident(name.Schema, name.Name)+" in "+mode+" mode")
		return err
	})
	if err != nil {
		return nil, l.db.Wrap(err, "chunk %s", name)
	}
	c, err := l.db.Chunk(ctx, name)
	if err != nil {
		return nil, err
	}
	if c == nil || !c.SameSlices(t.Slices) {
		return nil, changed(&tsdb.Chunk{Name: name})
	}
	return c, nil
}

func changed(c *tsdb.Chunk) error {
	return &pg.Error{Side: pg.Target, Object: "chunk " + c.Name.String(), Err: errors.New("changed while it was being loaded"), Hint: "run the task again"}
}

// finish makes an attached chunk behave like one that the server compressed.
func (l *Loader) finish(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, chunk *tsdb.Chunk, rel string) error {
	name := pg.Ident(chunk.Name.Schema, chunk.Name.Name)
	c, err := l.db.Chunk(ctx, chunk.Name)
	if err != nil {
		return err
	}
	// 2.14 and 2.15 move the foreign keys of the hypertable from the chunk to
	// its compressed relation, but not when one is attached.
	rows, err := tx.Query(ctx, `select pg_get_constraintdef(k.oid) from pg_constraint k
        where k.conrelid = $1 and k.contype = 'f'
          and not exists (select from pg_constraint o where o.conrelid in ($2, $3::text::regclass) and o.contype = 'f' and o.confrelid = k.confrelid
                            and pg_get_constraintdef(o.oid) = pg_get_constraintdef(k.oid))`, ht.OID, c.OID, rel)
	if err != nil {
		return err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := tx.Exec(ctx, "alter table "+rel+" add "+k); err != nil {
			return l.db.Wrap(err, "foreign key of chunk %s", c.Name)
		}
	}
	// Rows beside the batches are seen only on a chunk that is marked partial.
	// Up to 2.13 attaching does not look for them: let one come in by the
	// hypertable.
	var loose bool
	if err := tx.QueryRow(ctx, "select exists (select from only "+name+")").Scan(&loose); err != nil {
		return err
	}
	if !loose || c.Status&tsdb.StatusPartial != 0 {
		return nil
	}
	var columns []string
	for _, col := range ht.Copied() {
		columns = append(columns, col.Name)
	}
	_, err = tx.Exec(ctx, fmt.Sprintf(`with one as (delete from only %s where ctid = (select ctid from only %[1]s limit 1) returning %s)
        insert into %s (%[2]s) overriding system value select %[2]s from one`, name, pg.Idents(columns), pg.Ident(ht.Name.Schema, ht.Name.Name)))
	return l.db.Wrap(err, "mark chunk %s as partially compressed", c.Name)
}

// freeze and unfreeze set and take the bit that forbids changes to a chunk.
func (l *Loader) freeze(ctx context.Context, tx pgx.Tx, c *tsdb.Chunk) error {
	_, err := tx.Exec(ctx, "select "+l.db.Fn("freeze_chunk")+"($1::oid::regclass)", c.OID)
	return l.db.Wrap(err, "freeze chunk %s", c.Name)
}

func (l *Loader) unfreeze(ctx context.Context, tx pgx.Tx, c *tsdb.Chunk) error {
	if c.Status&tsdb.StatusFrozen == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "select "+l.db.Fn("unfreeze_chunk")+"($1::oid::regclass)", c.OID)
	return l.db.Wrap(err, "unfreeze chunk %s", c.Name)
}

// patiently runs f inside of the transaction, with locks that are waited for
// only briefly, again and again: what was copied so far is not lost over a
// lock, and nobody queues behind us for long.
func (l *Loader) patiently(ctx context.Context, tx pgx.Tx, f func(tx pgx.Tx) error) error {
	timeout, err := l.ownLockTimeout(ctx, tx)
	if err != nil {
		return err
	}
	return untilLocked(ctx, func() error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("savepoint patiently; set local lock_timeout = %d", lockWait.Milliseconds())); err != nil {
			return err
		}
		err := f(tx)
		if err == nil {
			_, err = tx.Exec(ctx, "release patiently; set local lock_timeout = "+timeout)
			return err
		}
		if _, e := tx.Exec(context.WithoutCancel(ctx), "rollback to patiently; release patiently"); e != nil {
			return fmt.Errorf("%v; and then: %w", err, e)
		}
		return err
	})
}

// ownLockTimeout returns the lock_timeout to go back to, quoted: that of the
// transaction (briefly) or of the session.
func (l *Loader) ownLockTimeout(ctx context.Context, tx pgx.Tx) (string, error) {
	if l.lockTimeout != "" {
		return l.lockTimeout, nil
	}
	err := tx.QueryRow(ctx, "select quote_literal(current_setting('lock_timeout'))").Scan(&l.lockTimeout)
	return l.lockTimeout, err
}
