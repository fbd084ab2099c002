package target

import (
	"context"
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
			if s.squeezed != (c.Status&tsdb.StatusCompressed != 0) {
				return errStirred
			}
			p.chunk = c
			if t.Range.Partial {
				frozen = c.Status&tsdb.StatusFrozen != 0
			}
			if m, err = l.merger(ctx, tx, ht, t, c, s.referenced); err != nil {
				return err
			}
			s.held = m != nil
		}
		way, why := choose(s)
		if way == rowsRoot {
			if m, err = l.merger(ctx, tx, ht, t, nil, s.referenced); err != nil {
				return err
			}
		}
		into := way
		if into == rowsCompress {
			if into = rowsChunk; s.squeezed || s.whyRoot != "" {
				into = rowsRoot
			}
		}
		hidden := ""
		if into == rowsRoot {
			if hidden, err = l.removeHidden(ctx, tx, ht, t, m != nil); err != nil {
				return err
			}
		}
		relation, stored, bytes, err := l.replace(ctx, tx, r, ht, t, p, into, m, part, data)
		if err != nil {
			return withHint(err, hidden)
		}
		if err := whole(r); err != nil {
			return err
		}
		if way == rowsCompress {
			loose, err := l.recompress(ctx, tx, ht, t, p.chunk)
			if err != nil {
				return err
			}
			if loose != nil {
				way, why = into, why+"; "+leftUncompressed+": "+loose.why
				s.whyLoose, s.lossy = loose.why, loose.lossy
			}
		}
		if way == rowsChunk && stored > 0 {
			loaded = relation
		}
		if left := s.loose(way, l.db.Full); p.chunk != nil && (left == task.LooseRange || left == task.LoosePrivilege) {
			done, note, err := l.quietly(ctx, tx, ht, t, p.chunk)
			if err != nil {
				return err
			}
			if done {
				way, loaded = rowsCompress, ""
				why, _, _ = strings.Cut(why, "; "+leftUncompressed)
			}
			if note != "" {
				addMessage(res, leftUncompressed+": "+note)
			}
		}
		if frozen && p.chunk != nil {
			if err := l.freeze(ctx, tx, p.chunk); err != nil {
				return err
			}
		}
		addMessage(res, hidden)
		res.Status, res.Rows, res.Bytes, res.Way, res.WhyNotRaw = task.Loaded, stored, bytes, string(way), why
		if res.LeftUncompressed = s.loose(way, l.db.Full); res.LeftUncompressed != "" && !strings.Contains(why+res.Message, leftUncompressed) {
			addMessage(res, leftUncompressed)
		}
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
	if err == nil && loaded != "" {
		l.analyze(ctx, loaded)
	}
	return err
}

// addMessage adds to what the result says.
func addMessage(res *task.Result, message string) {
	if res.Message != "" && message != "" {
		message = "; " + message
	}
	res.Message += message
}

// errStirred is a chunk that was compressed or decompressed since the way was
// chosen. Nothing of the data has been read yet.
var errStirred = errors.New("compressed or decompressed a moment ago")

// loosen decompresses a chunk that is compressed and has no batches, as the
// restored dump of a schema leaves it, and reports whether it is compressed
// still. In the transaction of the copy that would lock the application out of
// the chunk until the commit.
func (l *Loader) loosen(ctx context.Context, ht *tsdb.Hypertable, chunk *tsdb.Chunk) (squeezed bool, err error) {
	if squeezed = chunk.Status&tsdb.StatusCompressed != 0; !squeezed || chunk.Status&tsdb.StatusFrozen != 0 {
		return squeezed, nil
	}
	err = l.briefly(ctx, func(tx pgx.Tx) error {
		if err := l.lockHypertable(ctx, tx, ht, false); err != nil {
			return err
		}
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
		batches, err := l.db.RelationName(ctx, c.RelationOID)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, "select exists (select from only "+batches+")").Scan(&squeezed); err != nil || squeezed {
			return err
		}
		if n, err := l.db.HiddenRows(ctx, c, ""); n > 0 || err != nil { // which that would show
			squeezed = true
			return err
		}
		_, err = tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "decompress_chunk")+"($1::oid::regclass)", c.OID)
		return err
	})
	return squeezed, l.db.Wrap(err, "decompress chunk %s", chunk.Name)
}

// copyRaw replaces the chunk by the compressed relation of the stream and the
// rows beside it, in one transaction that also completes the task.
func (l *Loader) copyRaw(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, data io.Reader, img *tsdb.Image, rr *relation, w way, res *task.Result) error {
	return l.inTx(ctx, t, func(tx pgx.Tx) error {
		replace := l.rawFresh
		if w == rawExisting {
			replace = l.rawExisting
		}
		stored, bytes, err := replace(ctx, tx, r, ht, t, chunk, data, rr)
		if err != nil {
			return err
		}
		if img.Frozen {
			if err := l.freeze(ctx, tx, chunk); err != nil {
				return err
			}
		}
		res.Status, res.Rows, res.Bytes, res.Way = task.Loaded, rr.Rows+stored, bytes, string(w)
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
}

// rawFresh fills a relation first, under locks that nobody else meets; the chunk
// is touched at the end.
func (l *Loader) rawFresh(ctx context.Context, tx pgx.Tx, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, data io.Reader, rr *relation) (stored, bytes int64, err error) {
	rel, err := l.build(ctx, tx, ht, chunk, rr)
	if err != nil {
		return 0, 0, err
	}
	part, bytes, err := l.batches(ctx, tx, r, chunk, data, rel, rr, "freeze")
	if err != nil {
		return 0, 0, err
	}
	aggregated, err := l.db.Aggregated(ctx, ht)
	if err != nil {
		return 0, 0, err
	}
	into, err := l.relation(ctx, ht, chunk)
	if err != nil {
		return 0, 0, err
	}
	beside := newPart(r)
	many, err := l.many(ctx, chunk)
	if err != nil {
		return 0, 0, err
	}
	e := end{ht: ht, task: t, chunk: chunk, r: rr, rel: rel}
	squeezed := chunk.Status&tsdb.StatusCompressed != 0
	// To empty a chunk that is compressed, has many rows or is aggregated takes a
	// lock that keeps the application out: the rows had better have come by then,
	// and be few.
	if !aggregated && !squeezed && !many {
		stored, more, err := l.besideFirst(ctx, tx, e, func() (int64, int64, error) {
			stored, more, err := l.rows(ctx, tx, r, into, part, beside)
			return stored, more, cmpErr(err, whole(r))
		})
		return stored, bytes + more, err
	}
	stored, more, err := l.park(ctx, tx, r, into, part, beside)
	if err != nil {
		return 0, 0, err
	}
	if err := whole(r); err != nil {
		return 0, 0, err
	}
	if stored <= few {
		return stored, bytes + more, l.replaceChunk(ctx, tx, e, aggregated || many, func(tx pgx.Tx) error {
			return l.unpark(ctx, tx, into, part, stored)
		})
	}
	return stored, bytes + more, l.manyBeside(ctx, tx, e, stored, !squeezed && !many, func() error {
		return l.unpark(ctx, tx, into, part, stored)
	})
}

// manyBeside makes a filled relation the chunk's, and fill puts so many rows beside it
// that the chunk must not be locked meanwhile. It can do without if the chunk is bare:
// neither compressed nor with many rows. Then aggregates are told of the change by
// the rows at its ends.
func (l *Loader) manyBeside(ctx context.Context, tx pgx.Tx, e end, rows int64, bare bool, fill func() error) error {
	why, err := l.untold(ctx, e.ht)
	if err != nil {
		return err
	}
	var ends []string
	if bare && why == "" {
		if ends, err = l.spanOf(ctx, tx, e.ht, e.r, e.rel); err != nil {
			return err
		}
	}
	if ends == nil {
		return byRows(e.task, fmt.Sprintf("the target's chunk would be locked for as long as it takes to put %d rows beside the batches", rows))
	}
	if err := l.remember(ctx, tx, e.ht, e.chunk); err != nil {
		return err
	}
	if _, _, err := l.besideFirst(ctx, tx, e, func() (int64, int64, error) { return 0, 0, fill() }); err != nil {
		return err
	}
	return l.touch(ctx, tx, e.ht, e.chunk, ends)
}

// besideFirst makes a filled relation the chunk's when the rows beside it, which
// fill puts there, have come. The chunk holds few rows, and meanwhile writers of
// other rows are not kept out of it.
func (l *Loader) besideFirst(ctx context.Context, tx pgx.Tx, e end, fill func() (stored, bytes int64, err error)) (stored, bytes int64, err error) {
	if err := l.ready(ctx, tx, e.rel, e.r); err != nil {
		return 0, 0, err
	}
	if e.chunk, err = l.empty(ctx, tx, e.ht, e.task, e.chunk, false); err != nil {
		return 0, 0, err
	}
	if stored, bytes, err = fill(); err != nil {
		return 0, 0, err
	}
	e.mode = "share"
	return stored, bytes, l.atLast(ctx, tx, e, func(tx pgx.Tx, c *tsdb.Chunk, alter bool) error {
		return l.become(ctx, tx, e, c, alter)
	})
}

// replaceChunk makes a filled relation the chunk's in place of all that the chunk
// holds, and fill puts rows beside it. The chunk is emptied by TRUNCATE if that is
// what it takes. Nobody writes to the chunk meanwhile.
func (l *Loader) replaceChunk(ctx context.Context, tx pgx.Tx, e end, truncate bool, fill func(tx pgx.Tx) error) error {
	if err := l.ready(ctx, tx, e.rel, e.r); err != nil {
		return err
	}
	if e.mode = "share row exclusive"; truncate || e.chunk.Status&tsdb.StatusCompressed != 0 {
		e.mode = "access exclusive"
	}
	return l.atLast(ctx, tx, e, func(tx pgx.Tx, c *tsdb.Chunk, alter bool) error {
		c, err := l.empty(ctx, tx, e.ht, e.task, c, truncate)
		if err != nil {
			return err
		}
		if err := fill(tx); err != nil {
			return err
		}
		return l.become(ctx, tx, e, c, alter)
	})
}

// rawExisting fills the relation that the chunk has.
func (l *Loader) rawExisting(ctx context.Context, tx pgx.Tx, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, data io.Reader, rr *relation) (stored, bytes int64, err error) {
	rel, err := l.existing(ctx, tx, ht, t, chunk, rr)
	if err != nil {
		return 0, 0, err
	}
	part, bytes, err := l.batches(ctx, tx, r, chunk, data, rel, rr)
	if err != nil {
		return 0, 0, err
	}
	// Rows that go through the hypertable mark the chunk as partial.
	stored, more, err := l.rows(ctx, tx, r, pg.Ident(ht.Name.Schema, ht.Name.Name), part, newPart(r))
	if err != nil {
		return 0, 0, err
	}
	if err := whole(r); err != nil {
		return 0, 0, err
	}
	return stored, bytes + more, l.tell(ctx, tx, ht, chunk)
}

// ready indexes a filled relation, before it becomes the chunk's.
func (l *Loader) ready(ctx context.Context, tx pgx.Tx, rel string, r *relation) error {
	if err := l.index(ctx, tx, rel, r); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "analyze "+rel)
	return err
}

// become makes a relation that is ready that of c, the chunk of e.
func (l *Loader) become(ctx context.Context, tx pgx.Tx, e end, c *tsdb.Chunk, alter bool) error {
	if err := l.attach(ctx, tx, e.ht, c, e.rel, e.r, alter); err != nil {
		return l.db.Wrap(err, "attach the compressed relation to chunk %s", c.Name)
	}
	if err := l.finish(ctx, tx, e.ht, c, e.rel); err != nil {
		return err
	}
	return l.db.NameCompressed(ctx, tx, c)
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

// asUser runs f with the search_path and the time zone that database and role
// set: functions of the user (of triggers, constraints, expression indexes, of a
// dimension) may rely on them, and calendar chunks that are made by a row are
// cut in the session's time zone.
func (l *Loader) asUser(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "set local search_path to default; set local timezone to default"); err != nil {
		return l.db.Wrap(err, "search_path and time zone")
	}
	if err := f(); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "set local search_path = pg_catalog, pg_temp; set local timezone = 'UTC'")
	return l.db.Wrap(err, "search_path and time zone")
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

// whole returns nil when the trailer proves that all of the segment came.
func whole(r *stream.Reader) error {
	if _, err := r.NextPart(); err != io.EOF {
		return cmpErr(err, errors.New("another part where none was announced"))
	}
	return nil
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
	if l.inBrief {
		if err := within(ctx, tx, moreWait); err != nil {
			return nil, err
		}
	}
	c, err := l.db.Chunk(ctx, name)
	if err != nil {
		return nil, err
	}
	if c == nil || !c.SameSlices(t.Slices) {
		return nil, changed(name)
	}
	return c, nil
}

func changed(chunk task.Name) error {
	return &pg.Error{Side: pg.Target, Object: "chunk " + chunk.String(), Err: errors.New("changed while it was being loaded"), Hint: "run the task again"}
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
	err = l.asUser(ctx, tx, func() error {
		_, err := tx.Exec(ctx, fmt.Sprintf(`with one as (delete from only %s where ctid = (select ctid from only %[1]s limit 1) returning %s)
        insert into %s (%[2]s) overriding system value select %[2]s from one`, name, copied(ht), pg.Ident(ht.Name.Schema, ht.Name.Name)))
		return err
	})
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
