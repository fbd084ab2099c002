package target

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// clear removes the target's rows of the task's range and returns the relation
// to copy into. Rows outside of the range are not touched.
//
// DELETE, not TRUNCATE: it locks nobody out, and where continuous aggregates
// exist it logs the invalidation that makes later refreshes right. No lock
// stronger than a writer's is held during the COPY, so that the application
// goes on writing to the chunk.
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
		return relation, l.clearChunks(ctx, tx, ht, t, cond)
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
		return relation, l.db.Wrap(l.remove(ctx, tx, ht, "only "+relation+" where "+cond), "clear chunk %s", p.chunk.Name)
	}
	_, err = l.emptied(ctx, tx, ht, t, p.chunk)
	return relation, err
}

// remove deletes rows, running the user's functions where there are any.
func (l *Loader) remove(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, from string) error {
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnDelete)
	if err != nil {
		return err
	}
	return l.asUser(ctx, tx, func() error {
		if _, err := tx.Exec(ctx, "delete from "+from); err != nil || len(triggers) == 0 {
			return err
		}
		var kept bool // by a trigger that returns NULL
		err := tx.QueryRow(ctx, "select exists (select from "+from+")").Scan(&kept)
		if err == nil && kept {
			err = &pg.Error{Side: pg.Target, Object: ht.Label().String(), Err: errors.New("rows that have to be replaced are still there after DELETE"),
				Hint: "does a trigger keep them (" + strings.Join(triggers, ", ") + ")? disable it for the time of the migration, then run the same again"}
		}
		return err
	})
}

// clearChunks deletes the task's rows where it has no chunk of its own: from the
// chunks that overlap it, one by one. A DELETE from the hypertable would lock all
// of its chunks, and thousands exhaust the server's lock table.
//
// A batch of a compressed chunk may hold rows of several tasks, and is
// decompressed for the first. In READ COMMITTED, a DELETE that waited for that
// does not see the rows that came of it: lanes take turns, from here to the
// commit, and of others it is believed only that no batch is left: by then the
// rows can be seen.
func (l *Loader) clearChunks(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, cond string) error {
	chunks, err := l.chunks(ctx, ht, t)
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
			return changed(c.Name)
		}
		if chunks[i].Status == 0 {
			continue
		}
		if err := l.unhurried(ctx, tx, pg.LockClear, c.ID); err != nil {
			return l.db.Wrap(err, "clear %s", name)
		}
	}
	for _, c := range chunks {
		name := pg.Ident(c.Name.Schema, c.Name.Name)
		from := "only " + name
		for left, tries := true, 0; left; tries++ {
			if tries == 4 {
				return &pg.Error{Side: pg.Target, Object: "chunk " + name, Err: errors.New("batches in the task's range are there again and again after they were deleted"), Hint: "does an application change old rows, or a job compress them?"}
			}
			err := l.remove(ctx, tx, ht, from+" where "+cond)
			switch code := pg.Code(err); {
			case (code == pg.Frozen || code == pg.Internal) && strings.Contains(err.Error(), "frozen"): // of another partition
				return &pg.Error{Side: pg.Target, Object: "chunk " + name, Err: err, Hint: "unfreeze that chunk for the time of the migration, then run the same again"}
			case code == pg.Internal: // 2.14 to 2.22, where time is a segment
				return l.stuck(c, pg.Describe(err), l.call("decompress_chunk", c))
			}
			if err != nil {
				return l.db.Wrap(err, "clear %s", name)
			}
			if left = c.Status != 0; !left {
				break
			}
			err = l.asUser(ctx, tx, func() error {
				return tx.QueryRow(ctx, "select (select count(*) from "+name+" where "+cond+") > (select count(*) from only "+name+" where "+cond+")").Scan(&left)
			})
			if err == nil && !left { // what somebody else has decompressed
				err = l.remove(ctx, tx, ht, "only "+name+" where "+cond)
			}
			if err != nil {
				return l.db.Wrap(err, "clear %s", name)
			}
			if !left || tries > 0 {
				continue
			}
			if index, err := l.crashes(ctx, ht); err != nil {
				return err
			} else if index != "" {
				return l.stuck(c, "it would crash over an index on an expression", "drop index "+index)
			}
			// Up to 2.22 batches can be deleted from through the hypertable only.
			if err := l.takeTurns(ctx, tx, ht, ", or "+l.call("decompress_chunk", c)); err != nil {
				return l.db.Wrap(err, "clear %s", ht.Name)
			}
			from = pg.Ident(ht.Name.Schema, ht.Name.Name)
		}
	}
	return nil
}

// stuck is a chunk whose batches the server cannot delete from, and what helps. To
// decompress it here would keep the application out: when is for the user to say.
func (l *Loader) stuck(c *tsdb.Chunk, why, helps string) error {
	return &pg.Error{Side: pg.Target, Object: "chunk " + c.Name.String(), Err: fmt.Errorf("TimescaleDB %s cannot delete rows from its batches: %s", l.db.TimescaleDB, why),
		Hint: helps + " on the target, then run the same again"}
}

// crashes returns an index on an expression where the server crashes over it when
// it decompresses rows (2.11; decompress_chunk does so, too), and "" elsewhere.
func (l *Loader) crashes(ctx context.Context, ht *tsdb.Hypertable) (index string, err error) {
	if l.db.SettingsPerChunk() {
		return "", nil
	}
	err = l.db.QueryRow(ctx, "select coalesce((select indexrelid::regclass::text from pg_index where indrelid = $1 and indexprs is not null limit 1), '')", ht.OID).Scan(&index)
	return index, l.db.Wrap(err, "indexes of %s", ht.Name)
}

// chunks lists the chunks that rows of the task may be in. Those of other
// partitions are none of its business: they may be frozen, and a condition on the
// hash would not keep the server from decompressing all of their batches.
func (l *Loader) chunks(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) ([]*tsdb.Chunk, error) {
	chunks, err := l.db.ChunksIn(ctx, ht, t.Range)
	return slices.DeleteFunc(chunks, func(c *tsdb.Chunk) bool {
		return slices.ContainsFunc(t.Slices[1:], func(want task.Slice) bool {
			d := ht.Dimension(want.Column)
			from, until := want.Bounds()
			return d != nil && d.Hash() == want.Hash && slices.ContainsFunc(c.Slices, func(s task.Slice) bool {
				begins, ends := s.Bounds()
				return s.Column == want.Column && (begins >= until || ends <= from)
			})
		})
	}), err
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
		return l.unhurried(ctx, tx, pg.LockSweep, ht.ID)
	default:
		return &pg.Error{Side: pg.Target, Object: ht.Label().String(), Err: fmt.Errorf("the statement needed here would lock every chunk and index: %d locks, and the server has room for %d", needed, room),
			Hint: fmt.Sprintf("set max_locks_per_transaction = %d on the target and restart it%s; then run the same again", 2*needed/slots+1, instead)}
	}
}

// admit marks the compressed chunks in the task's range as partially compressed,
// each in a short transaction that changes nothing else. The first statement that
// puts rows beside batches, or takes rows out of them, does that, in a row of the
// catalog: until our commit, the application's first insert would wait for it.
func (l *Loader) admit(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) error {
	chunks, err := l.chunks(ctx, ht, t)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		const relevant = tsdb.StatusCompressed | tsdb.StatusPartial | tsdb.StatusFrozen
		if c.Status&relevant != tsdb.StatusCompressed {
			continue
		}
		if err := l.admitChunk(ctx, ht, c); err != nil {
			return err
		}
	}
	return nil
}

// admitChunk does that for one of them, frozen or not. It may fail without an error:
// then the chunk is not marked.
func (l *Loader) admitChunk(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	err := l.briefly(ctx, func(tx pgx.Tx) error {
		if err := l.unfreeze(ctx, tx, c); err != nil {
			return err
		}
		err := l.mark(ctx, tx, ht, c)
		if err == nil && c.Status&tsdb.StatusFrozen != 0 {
			err = l.freeze(ctx, tx, c)
		}
		return err
	})
	if err != nil && err != errAdmit && (pg.Code(err) == "" || l.db.Lost()) { // else somebody waits
		return l.db.Wrap(err, "mark chunk %s as partially compressed", c.Name)
	}
	return nil
}

// mark marks a compressed chunk as partially compressed: by a row, unless triggers
// would fire for it, or a key is deferrable, which ON CONFLICT is refused for; else
// by a batch.
func (l *Loader) mark(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	triggers, err := l.db.RowTriggers(ctx, ht, tsdb.OnInsert|tsdb.OnDelete)
	if err != nil {
		return err
	}
	if len(triggers) == 0 {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return l.admitTo(ctx, tx, ht, c) })
		if pg.Code(err) != pg.NotInPrerequisiteState {
			return err
		}
	}
	return l.crack(ctx, tx, ht, c)
}

// cut decompresses the batches that the ends of the task's range cut, in a short
// transaction that changes nothing else. Up to 2.16 an insert into a chunk with a
// unique key decompresses whatever batch might have the key: for those that we
// are at it would wait until our commit.
func (l *Loader) cut(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) error {
	if !t.Range.Partial || tsdb.AtLeast(l.db.TimescaleDB, "2.17") {
		return nil
	}
	if index, err := l.crashes(ctx, ht); err != nil || index != "" {
		return err
	}
	root := pg.Ident(ht.Name.Schema, ht.Name.Name)
	for _, end := range []string{t.Range.From, t.Range.Until} {
		at, err := l.db.Beginning(ht, task.Slice{Column: t.Range.Column, From: end})
		if err != nil {
			return err
		}
		if at == "" {
			continue
		}
		err = l.briefly(ctx, func(tx pgx.Tx) error {
			if err := l.takeTurns(ctx, tx, ht, ""); err != nil {
				return err
			}
			// Never, but the server does not know. (No system column instead:
			// 2.11 crashes over one.)
			return l.remove(ctx, tx, ht, root+" where "+pg.Ident(t.Range.Column)+" = "+at+" and random() < 0")
		})
		if err != nil && (pg.Code(err) == "" || l.db.Lost()) {
			return l.db.Wrap(err, "decompress what the range cuts of %s", ht.Name)
		}
	}
	return nil
}

// errAdmit undoes what is not just what was meant.
var errAdmit = errors.New("not the one row that was added")

// admitTo puts a copy of one of its rows beside the chunk's batches and takes it
// away again. Where the row has to be unique, the server has marked the chunk
// before it finds that out.
func (l *Loader) admitTo(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	s, err := l.sight(ctx, ht, c)
	if err != nil {
		return err
	}
	chunk := pg.Ident(c.Name.Schema, c.Name.Name)
	var ctid string
	var values []*string
	err = l.asUser(ctx, tx, func() error {
		return tx.QueryRow(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s limit 1 on conflict do nothing returning ctid::text, %s",
			pg.Ident(ht.Name.Schema, ht.Name.Name), copied(ht), chunk, s.values())).Scan(&ctid, &values)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.asUser(ctx, tx, func() error {
		tag, err := tx.Exec(ctx, "delete from only "+chunk+" where ctid = "+pg.Literal(ctid)+"::tid and "+s.where(values))
		if err == nil && tag.RowsAffected() != 1 {
			err = errAdmit
		}
		return err
	})
}

// crack decompresses a batch of the chunk, by a DELETE that deletes nothing.
func (l *Loader) crack(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	s, err := l.sight(ctx, ht, c)
	if err != nil {
		return err
	}
	chunk := pg.Ident(c.Name.Schema, c.Name.Name)
	var values []*string
	err = tx.QueryRow(ctx, "select "+s.values()+" from "+chunk+" limit 1").Scan(&values)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	where := " where random() < 0 and " + s.where(values)
	if err := l.remove(ctx, tx, ht, "only "+chunk+where); err != nil {
		return err
	}
	if c, err = l.db.Chunk(ctx, c.Name); err != nil || c == nil || c.Status&tsdb.StatusPartial != 0 {
		return err
	}
	// Up to 2.22 only DELETE from the hypertable decompresses.
	if index, err := l.crashes(ctx, ht); err != nil || index != "" {
		return err
	}
	if err := l.takeTurns(ctx, tx, ht, ""); err != nil {
		return err
	}
	return l.remove(ctx, tx, ht, pg.Ident(ht.Name.Schema, ht.Name.Name)+where)
}

// empty locks the chunk against a change of its state and empties it, by TRUNCATE
// if that is what it takes. Rows that other tables reference are not for deleting:
// they have to be merged.
func (l *Loader) empty(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk, truncate bool) (*tsdb.Chunk, error) {
	c, err := l.lock(ctx, tx, chunk.Name, t, "row exclusive")
	if err != nil {
		return nil, err
	}
	if err := l.unheld(ctx, tx, ht, t, c); err != nil {
		return nil, err
	}
	if truncate {
		if err := l.truncate(ctx, tx, t, c); err != nil {
			return nil, err
		}
	}
	return l.emptied(ctx, tx, ht, t, c)
}

// few is how many rows a chunk may be locked for: a server compresses, moves or
// deletes them within a few milliseconds.
const few = 5000

// many reports whether more rows than that are in the chunk, outside of batches.
// To delete them is no way to empty it before a relation is attached: under the
// lock of that, the server would look through what DELETE has left.
func (l *Loader) many(ctx context.Context, chunk *tsdb.Chunk) (many bool, err error) {
	name := pg.Ident(chunk.Name.Schema, chunk.Name.Name)
	err = l.db.QueryRow(ctx, fmt.Sprintf("select exists (select from only %s offset %d)", name, few)).Scan(&many)
	return many, l.db.Wrap(err, "look into %s", name)
}

// emptied leaves a locked chunk uncompressed and without rows, and returns it as
// it is then. A compressed one is truncated, which keeps the application out for
// milliseconds: once for its batches, which is all that TRUNCATE empties of it,
// and once, when it has none, for its rows. From 2.28 on DELETE would go through
// batches one by one. Where other tables reference the hypertable, TRUNCATE of the
// chunk is refused.
func (l *Loader) emptied(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, c *tsdb.Chunk) (*tsdb.Chunk, error) {
	relation := pg.Ident(c.Name.Schema, c.Name.Name)
	if err := l.unfreeze(ctx, tx, c); err != nil {
		return nil, err
	}
	if c.Status&tsdb.StatusCompressed != 0 {
		var err error
		if c, err = l.lock(ctx, tx, c.Name, t, "access exclusive"); err != nil {
			return nil, err
		}
		batches, err := l.db.RelationName(ctx, c.RelationOID)
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
		if err := l.bounded(ctx, ht, c); err != nil {
			return nil, err
		}
		if err = truncate("only " + relation); pg.Code(err) != pg.NotSupported {
			return c, l.db.Wrap(err, "clear chunk %s", c.Name)
		}
	}
	return c, l.wipe(ctx, tx, ht, c, relation)
}

// wipe deletes all rows of a chunk or of its compressed relation. A DELETE of
// nothing is refused, too, where a publication wants to tell subscribers which
// rows it was, and there is no key.
func (l *Loader) wipe(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, c *tsdb.Chunk, relation string) error {
	var some bool
	err := tx.QueryRow(ctx, "select exists (select from only "+relation+")").Scan(&some)
	if err == nil && some {
		err = l.remove(ctx, tx, ht, "only "+relation)
	}
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
		return "", changed(chunk.Name)
	}
	if err := l.unfreeze(ctx, tx, c); err != nil {
		return "", err
	}
	if rel, err = l.db.RelationName(ctx, c.RelationOID); err != nil {
		return "", err
	}
	if aggregated, err := l.db.Aggregated(ctx, ht); err != nil {
		return "", err
	} else if aggregated {
		if err := l.remember(ctx, tx, ht, c); err != nil {
			return "", err
		}
	}
	for _, from := range []string{rel, pg.Ident(c.Name.Schema, c.Name.Name)} {
		if err := l.wipe(ctx, tx, ht, c, from); err != nil {
			return "", err
		}
	}
	return rel, nil
}
