package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// twin is a hypertable like the task's with one chunk of the same extent. It
// lives and dies within a transaction: nobody else sees it, or waits for what
// happens to it.
type twin struct {
	ht    *tsdb.Hypertable
	chunk *tsdb.Chunk
	table *tsdb.Blueprint // of ht
}

// apart decides whether rows can be compressed in a twin, and how what comes of
// it gets into the chunk. compress_chunk on the chunk itself would lock the
// application out of it for as long as that takes.
func (l *Loader) apart(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, s *situation) error {
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnInsert)
	if err != nil {
		return err
	}
	if len(triggers) > 0 { // they may look at the rows before theirs
		s.whyInto = "row triggers of the target have to fire: " + strings.Join(triggers, ", ")
	} else if _, s.whyInto, err = l.keys(ctx, ht); err != nil {
		return err
	}
	missing, err := l.db.Missing(ctx, chunk.OID)
	if err != nil {
		return err
	}
	for _, c := range ht.Columns { // its rows may have to stay as they are
		if s.whyInto == "" && !c.NotNull && slices.Contains(missing, c.Name) {
			s.whyInto = fmt.Sprintf("column %q was added with a default to the target's chunk", c.Name)
		}
	}
	if l.tried == nil || l.tried.ht != ht { // as it was last read
		if l.tried, err = l.tryApart(ctx, ht, t, chunk); err != nil {
			return err
		}
	}
	if s.whyLoose = l.tried.why; s.whyLoose == "" {
		_, err = l.settle(ctx, ht, t, l.tried.relation, s)
		s.whyLoose = s.unfit
	}
	return err
}

// trial is what the compression of a hypertable's rows in a twin comes to.
type trial struct {
	ht       *tsdb.Hypertable
	why      string    // why there can be none
	relation *relation // else: what it makes
}

// tryApart has the server compress a twin without a row, in a transaction that
// is rolled back. A lane does that once for a hypertable.
func (l *Loader) tryApart(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (*trial, error) {
	rehearsal := errors.New("a rehearsal")
	tried := &trial{ht: ht}
	err := l.briefly(ctx, func(tx pgx.Tx) error {
		tw, err := l.twin(ctx, tx, ht, t, chunk)
		if err == nil {
			tried.relation, _, err = l.squeeze(ctx, tx, ht, tw)
		}
		return cmpErr(err, rehearsal)
	})
	if err == rehearsal {
		return tried, nil
	}
	var misfit *misfitError
	if err = l.misfit(err); errors.As(err, &misfit) {
		tried.why, err = misfit.why, nil
	}
	return tried, err
}

// twin makes the twin, with the columns and checks of the chunk: a lock on the
// hypertable would be in the way of lanes that have to alter its settings.
func (l *Loader) twin(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (*twin, error) {
	b, err := l.blueprint(ctx, ht, chunk.Name, t)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, strings.Join(b.Table, ";")); err != nil {
		return nil, l.db.Wrap(err, "create table %s", b.Name)
	}
	d := ht.Dimensions[0]
	from, until := t.Slices[0].Bounds()
	args := fmt.Sprintf("%s::regclass, %s::name, chunk_time_interval => %d::bigint, create_default_indexes => false", pg.Literal(b.Name), pg.Literal(d.Column), until-from)
	if !d.Func.IsZero() {
		args += ", time_partitioning_func => " + pg.Literal(pg.Ident(d.Func.Schema, d.Func.Name)) + "::regproc"
	}
	if _, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "create_hypertable")+"("+args+")"); err != nil {
		return nil, l.db.Wrap(err, "create hypertable %s", b.Name)
	}
	tw := &twin{ht: new(tsdb.Hypertable), table: b}
	*tw.ht = *ht
	tw.ht.Dimensions = ht.Dimensions[:1]
	if err := tx.QueryRow(ctx, `select h.id, c.oid, n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join _timescaledb_catalog.hypertable h on h.schema_name = n.nspname and h.table_name = c.relname
        where c.oid = $1::text::regclass`, b.Name).Scan(&tw.ht.ID, &tw.ht.OID, &tw.ht.Name.Schema, &tw.ht.Name.Name); err != nil {
		return nil, err
	}
	if _, _, err := l.db.CreateChunk(ctx, tw.ht, t.Slices[:1]); err != nil {
		return nil, err
	}
	if tw.chunk, err = l.db.ChunkOf(ctx, tw.ht, t.Slices[:1]); err == nil && tw.chunk == nil {
		err = &misfitError{why: whyOther}
	}
	return tw, err
}

// squeeze has the server compress the twin's chunk, with the settings of the
// hypertable, and returns what its relation is like and called. The twin's
// indexes see to it that rows are unique where they have to be, and tell the
// server which sparse indexes to make; they come first, because 2.11 makes no
// unique one once compression is enabled.
func (l *Loader) squeeze(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, tw *twin) (r *relation, name string, err error) {
	if err := l.indexRows(ctx, tx, ht, tw.table); err != nil {
		return nil, "", err
	}
	own, configured, err := l.ownSettings(ctx, ht)
	if err != nil {
		return nil, "", err
	}
	settings := "timescaledb.compress"
	if own != nil {
		settings = l.db.SettingsSQL(own, configured)
	}
	if _, err := tx.Exec(ctx, "alter table "+tw.table.Name+" set ("+settings+")"); err != nil {
		return nil, "", l.db.Wrap(err, "alter table %s", tw.table.Name)
	}
	if _, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass)", tw.chunk.OID); err != nil {
		return nil, "", l.db.Wrap(err, "compress the rows of %s", ht.Name)
	}
	c, err := l.db.Chunk(ctx, tw.chunk.Name)
	if err != nil {
		return nil, "", err
	}
	r = new(relation)
	var why string
	if r.Relation, why, err = l.db.Relation(ctx, c, tw.ht); err != nil {
		return nil, "", err
	}
	if why != "" {
		return nil, "", &misfitError{why: why}
	}
	r.kept, r.sparse = r.Columns, r.Sparse(nil)
	if name, err = l.db.RelationName(ctx, c.RelationOID); r.Broken() != "" {
		r.like = name
	}
	return r, name, err
}

// copyApart has the rows compressed in a twin and then replaces the chunk as
// copyRaw does, in one transaction that also completes the task.
func (l *Loader) copyApart(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, part *stream.Part, data io.Reader, img *tsdb.Image, w way, why string, res *task.Result) error {
	return l.inTx(ctx, t, func(tx pgx.Tx) error {
		tw, err := l.twin(ctx, tx, ht, t, chunk)
		if err != nil {
			return err
		}
		into := pg.Ident(tw.chunk.Name.Schema, tw.chunk.Name.Name)
		stored, bytes, err := l.rows(ctx, tx, r, into, part, data)
		if err != nil {
			var e *pg.Error
			if errors.As(err, &e) { // nobody knows the twin
				e.Object = "copy the rows of chunk " + chunk.Name.String()
			}
			return err
		}
		if err := whole(r); err != nil {
			return err
		}
		keys, _, err := l.keys(ctx, ht)
		if err != nil {
			return err
		}
		if err := l.refer(ctx, tx, chunk, into, keys); err != nil {
			return err
		}
		if chunk, err = l.exchange(ctx, tx, ht, t, chunk, tw, w); err != nil {
			return err
		}
		if img.Frozen {
			if err := l.freeze(ctx, tx, chunk); err != nil {
				return err
			}
		}
		res.Status, res.Rows, res.Bytes, res.Way, res.WhyNotRaw = task.Loaded, stored, bytes, string(w), why
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
}

// recompress has the rows that are in the chunk compressed in a twin, and the
// chunk replaced by that. It returns why the rows stay as they are instead, nil if
// they do not.
func (l *Loader) recompress(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (misfit *misfitError, err error) {
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		tw, err := l.twin(ctx, tx, ht, t, chunk)
		if err != nil {
			return err
		}
		if err := l.asUser(ctx, tx, func() error {
			// What triggers have deferred would forbid TRUNCATE.
			_, err := tx.Exec(ctx, fmt.Sprintf("set constraints all immediate; insert into %s (%s) overriding system value select %[2]s from only %s",
				pg.Ident(tw.chunk.Name.Schema, tw.chunk.Name.Name), copied(ht), pg.Ident(chunk.Name.Schema, chunk.Name.Name)))
			return err
		}); err != nil {
			return l.db.Wrap(err, "copy the rows of chunk %s", chunk.Name)
		}
		_, err = l.exchange(ctx, tx, ht, t, chunk, tw, rowsCompress)
		return err
	})
	if errors.As(l.misfit(err), &misfit) {
		return misfit, nil
	}
	return nil, err
}

// exchange has the rows of the twin compressed and puts what comes of it in the
// place of what the chunk holds.
func (l *Loader) exchange(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, tw *twin, w way) (*tsdb.Chunk, error) {
	r, from, err := l.squeeze(ctx, tx, ht, tw)
	if err != nil {
		return nil, err
	}
	if why, err := l.lossy(ctx, chunk, r); err != nil {
		return nil, err
	} else if why != "" {
		return nil, &misfitError{why: why, lossy: true}
	}
	var rel string
	if w == rowsExisting {
		rel, err = l.existing(ctx, tx, ht, t, chunk, r)
	} else {
		rel, err = l.build(ctx, tx, ht, chunk, r)
	}
	if err != nil {
		return nil, err
	}
	if err := l.refill(ctx, tx, rel, r, from); err != nil {
		return nil, err
	}
	// With the hypertable alone, 2.28 would leave the batches behind for good.
	for _, table := range []string{pg.Ident(tw.chunk.Name.Schema, tw.chunk.Name.Name), tw.table.Name} {
		if _, err := tx.Exec(ctx, "drop table "+table); err != nil {
			return nil, l.db.Wrap(err, "drop table %s", table)
		}
	}
	if w == rowsExisting {
		return chunk, l.tell(ctx, tx, ht, chunk)
	}
	truncate := w == rowsCompress // triggers would see rows deleted that came into the chunk
	if !truncate {
		if truncate, err = l.db.Aggregated(ctx, ht); err != nil {
			return nil, err
		}
	}
	if !truncate {
		if truncate, err = l.many(ctx, chunk); err != nil {
			return nil, err
		}
	}
	return chunk, l.replaceChunk(ctx, tx, end{ht: ht, task: t, chunk: chunk, r: r, rel: rel}, truncate, func(pgx.Tx) error { return nil })
}

// refill copies the batches of a relation like r into another one with the same
// columns, whatever their order, without naming them.
func (l *Loader) refill(ctx context.Context, tx pgx.Tx, rel string, r *relation, from string) error {
	var oid uint32
	if err := tx.QueryRow(ctx, "select $1::text::regclass::oid", rel).Scan(&oid); err != nil {
		return err
	}
	into, _, err := l.db.RelationColumns(ctx, oid)
	if err != nil {
		return err
	}
	var columns []string
	for _, c := range into {
		columns = append(columns, r.NumberOf(c.Name))
	}
	tag, err := tx.Exec(ctx, fmt.Sprintf("insert into %s select %s from %s", rel, strings.Join(columns, ", "), r.Numbered(from)))
	r.filled = tag.RowsAffected()
	return l.db.Wrap(err, "copy into %s", rel)
}
