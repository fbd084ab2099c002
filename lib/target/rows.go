package target

import (
	"context"
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// rowsInto puts the rows of the stream in the place of what the target holds in the
// task's range.
type rowsInto struct {
	*load
	facts    facts
	decision decision
	root     bool // through the hypertable, not into the task's chunk
	alone    bool // the chunk is locked against everybody in the end
}

// prepare keeps the writes through the hypertable from being in the way of the
// application until the commit.
func (w *rowsInto) prepare(ctx context.Context) error {
	if !w.root {
		return nil
	}
	chunks, err := w.overlapping(ctx)
	if err != nil {
		return err
	}
	if hides, err := w.hides(ctx, chunks); hides || err != nil {
		return err
	}
	if err := (marker{w.load}).decompressBoundary(ctx); err != nil {
		return err
	}
	return marker{w.load}.markPartial(ctx, chunks)
}

// into is the relation that the rows go into.
func (w *rowsInto) into() string {
	if w.root {
		return w.hypertable()
	}
	return w.chunk.Quoted()
}

func (w *rowsInto) copy(ctx context.Context) error {
	if w.chunk != nil {
		// A writer's lock, so that the chunk cannot be compressed or dropped under
		// us; only then is its state worth looking at.
		if err := (locker{w.load}).lockChunk(ctx, "row exclusive"); err != nil {
			return err
		}
		if w.facts.batches != w.chunk.IsCompressed() {
			return errChunkStateChanged
		}
		if w.task.Range.Partial {
			w.refreeze = w.chunk.IsFrozen()
		}
	}
	m, err := newMerger(ctx, w.load, w.root)
	if err != nil {
		return err
	}
	if !w.root {
		if m.rows != w.facts.referencedRows {
			return errChunkStateChanged
		}
		return w.replace(ctx, m)
	}
	hidden, err := w.deleteHidden(ctx, m.rows)
	if err != nil {
		return err
	}
	w.say(hidden)
	return hintAtHidden(w.replace(ctx, m), hidden)
}

// replace deletes the rows of the range and inserts those of the stream.
func (w *rowsInto) replace(ctx context.Context, m *merger) error {
	if m.rows {
		if w.root {
			if err := (marker{w.load}).reserveLocks(ctx, ""); err != nil {
				return w.Wrap(err, "merge into %s", m.relation)
			}
		}
		return m.merge(ctx)
	}
	if err := w.clear(ctx); err != nil {
		return err
	}
	if w.root && len(w.dep.OnInsert) > 0 && w.CopyCrashesBesideBatches() {
		rows, err := park(ctx, w.load, w.into())
		if err != nil {
			return err
		}
		return rows.insertInto(ctx, w.into())
	}
	_, err := w.copyRows(ctx, w.into())
	return err
}

func (w *rowsInto) finish(ctx context.Context) error {
	if left := w.result.LeftUncompressed; w.chunk != nil && (left == task.LooseRange || left == task.LoosePrivilege) {
		done, note, err := w.compressQuietly(ctx)
		if err != nil {
			return err
		}
		if note != "" {
			w.say("left uncompressed: " + note)
		}
		if done {
			w.result.Way, w.result.WhyNotRaw, w.result.LeftUncompressed = string(rowsCompress),
				w.decision.why.String(), ""
			return nil
		}
	}
	if !w.root && w.result.Rows > 0 {
		w.unanalyzed = w.into()
	}
	return nil
}

// copyRows copies the rows of the part into a relation; more are further options of
// COPY.
func (ld *load) copyRows(ctx context.Context, relation string, more ...string) (stored int64, err error) {
	options := strings.Join(append([]string{"format " + ld.part.Format}, more...), ", ")
	where, help, err := ld.inRange()
	if err != nil {
		return 0, err
	}
	// As asUser does, in fewer round trips.
	sql := fmt.Sprintf("%s; copy %s (%s) from stdin (%s)%s", userSettings, relation, columnsOf(ld.part), options, where)
	if stored, err = ld.CopyIn(ctx, ld.data, sql); err == nil {
		_, err = ld.Exec(ctx, ownSettings)
	}
	if err != nil {
		return 0, ld.Wrap(err, "copy into %s", relation)
	}
	sent, bytes := ld.reader.Part()
	ld.result.Rows += stored
	ld.result.Bytes += bytes
	if stored < sent && where != "" {
		return stored, fault(ld.task.String(), help, "only %d of %d rows are in the range and stored", stored, sent)
	}
	return stored, allStored(relation, stored, sent)
}

// inRange is the condition by which COPY leaves out rows that are not of the task, and
// what helps then. The source's server vouches for the rows of a chunk. Those of anything
// else would be beside rows that are replaced, and be lost or doubled by the next task.
func (ld *load) inRange() (where, help string, err error) {
	if ld.task.Kind == task.KindChunk {
		return "", "", nil
	}
	cond, err := ld.ht.TaskCondition(ld.DB, ld.task)
	return " where " + cond, "see that the source gives no rows outside of " + ld.task.Range.String() +
		", and that no trigger drops any", err
}

// allStored fails where rows got lost on their way.
func allStored(relation string, stored, sent int64) error {
	if stored == sent {
		return nil
	}
	return fault(relation, "does a trigger drop rows?", "stored %d of %d rows", stored, sent)
}

// parked is the table of parkedRows.
const parked = "pg_temp.bf_rows"

// parkedRows are in a temporary table, from where they go into a relation later.
type parkedRows struct {
	*load
	n int64
}

// park copies the rows of the part into a temporary table with the columns of the
// relation like.
func park(ctx context.Context, ld *load, like string) (*parkedRows, error) {
	// WITH NO DATA plans nothing: of a hypertable no chunk is locked.
	_, err := ld.Exec(ctx, fmt.Sprintf("create temporary table bf_rows on commit drop "+
		"as select %s from %s with no data", columnsOf(ld.part), like))
	if err != nil {
		return nil, ld.Wrap(err, "temporary table")
	}
	n, err := ld.copyRows(ctx, parked)
	return &parkedRows{ld, n}, err
}

// insertInto inserts all of them into a relation.
func (p *parkedRows) insertInto(ctx context.Context, relation string) error {
	stored, err := p.execAsUser(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s",
		relation, columnsOf(p.part), parked))
	if err == nil && stored != p.n {
		err = fmt.Errorf("stored %d of %d rows", stored, p.n)
	}
	return p.Wrap(err, "copy into %s", relation)
}

// deleteFrom deletes rows, running the user's functions where there are any.
func (ld *load) deleteFrom(ctx context.Context, from string) error {
	_, err := ld.execAsUser(ctx, "delete from "+from)
	if err != nil || len(ld.dep.OnDelete) == 0 {
		return err
	}
	var kept bool // by a trigger that returns NULL
	err = ld.scanAsUser(ctx, "select exists (select from "+from+")", &kept)
	if err == nil && kept {
		err = fault(ld.ht.Label().String(), "does a trigger keep them ("+strings.Join(ld.dep.OnDelete, ", ")+
			")? disable it for the time of the migration, then run the same again",
			"rows that have to be replaced are still there after DELETE")
	}
	return err
}

func columnsOf(part *stream.Part) string {
	names := make([]string, len(part.Columns))
	for i, c := range part.Columns {
		names[i] = c.Name
	}
	return pg.Idents(names)
}

// copied lists the columns of a hypertable that are copied.
func copied(ht *tsdb.Hypertable) string {
	var names []string
	for _, c := range ht.Copied() {
		names = append(names, c.Name)
	}
	return pg.Idents(names)
}
