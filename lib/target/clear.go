package target

import (
	"context"
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// clear removes the target's rows of the task's range. Rows outside of the range
// are not touched.
//
// DELETE, not TRUNCATE: it blocks neither readers nor writers, and where continuous
// aggregates exist it logs the invalidation that later refreshes need. No lock
// stronger than ROW EXCLUSIVE is held during the COPY: the application goes on writing
// to the chunk.
func (w *rowsInto) clear(ctx context.Context) error {
	if w.root {
		cond, err := w.ht.TaskCondition(w.DB, w.task)
		if err != nil {
			return err
		}
		if w.chunk != nil {
			if err := w.chunk.Unfreeze(ctx, w.DB); err != nil {
				return err
			}
		}
		if err := w.UnlimitDecompression(ctx, false); err != nil {
			return err
		}
		return w.clearChunks(ctx, cond)
	}
	if !w.task.Range.Partial {
		return emptier{w.load}.empty(ctx, false)
	}
	cond, err := w.ht.RangeCondition(w.DB, w.task)
	if err != nil {
		return err
	}
	if err := w.chunk.Unfreeze(ctx, w.DB); err != nil {
		return err
	}
	err = w.deleteFrom(ctx, "only "+w.chunk.Quoted()+" where "+cond)
	return w.Wrap(err, "clear chunk %s", w.chunk.Name)
}

// clearChunks deletes the task's rows where it has no chunk of its own: from the
// chunks that overlap it, one by one. A DELETE from the hypertable would lock all
// of its chunks, and thousands exhaust the server's lock table.
//
// A batch of a compressed chunk may hold rows of several tasks, and is
// decompressed for the first. In READ COMMITTED, a DELETE that waited for that
// does not see the rows that came of it: lanes take turns, from here to the
// commit, and of others we trust only that no batch is left: by then the rows can
// be seen.
func (w *rowsInto) clearChunks(ctx context.Context, cond string) error {
	chunks, err := w.overlapping(ctx)
	if err != nil {
		return err
	}
	// All locks before all else, and in order: lanes must not wait for each
	// other in a circle.
	for i, c := range chunks {
		if err := w.lock(ctx, c.Quoted(), "row exclusive"); err != nil {
			return err
		}
		// Only now is its state worth looking at.
		if chunks[i], err = w.Chunk(ctx, c.Name); err != nil {
			return err
		}
		if chunks[i] == nil {
			return changed(c.Name)
		}
		if chunks[i].Status == 0 {
			continue
		}
		if err := w.awaitLanes(ctx, pg.LockClear, c.ID); err != nil {
			return w.Wrap(err, "clear %s", c.Name)
		}
	}
	for _, c := range chunks {
		if err := w.clearPart(ctx, c, cond); err != nil {
			return w.Wrap(err, "clear %s", c.Name)
		}
	}
	return nil
}

// clearPart deletes the rows that meet a condition from a locked chunk. A
// statement may decompress batches and leave their rows, so it is repeated until
// none is left.
func (w *rowsInto) clearPart(ctx context.Context, c *tsdb.Chunk, cond string) error {
	from, beside := "only "+c.Quoted(), "only "+c.Quoted()+" where "+cond
	for range 4 {
		err := w.deleteFrom(ctx, from+" where "+cond)
		switch code := pg.Code(err); {
		// of another partition
		case (code == pg.Frozen || code == pg.Internal) && strings.Contains(err.Error(), "frozen"):
			return fault("chunk "+c.Quoted(),
				"unfreeze that chunk for the time of the migration, then run the same again",
				"%w", err)
		case code == pg.Internal: // 2.14 to 2.22, where time is a segment
			return w.cannotDelete(c, pg.Describe(err), c.DecompressSQL(w.DB))
		}
		if err != nil || c.Status == 0 {
			return err
		}
		var left bool // in batches
		if err := w.scanAsUser(ctx, fmt.Sprintf("select (select count(*) from %s where %s) > (select count(*) from %s)",
			c.Quoted(), cond, beside), &left); err != nil {
			return err
		}
		if !left { // but for what somebody else has decompressed
			return w.deleteFrom(ctx, beside)
		}
		if from == w.hypertable() {
			continue
		}
		// ≤ 2.22: batches can be deleted from through the hypertable only.
		if index, err := tsdb.CrashingIndex(ctx, w.DB, w.ht); err != nil {
			return err
		} else if index != nil {
			return w.cannotDelete(c, "it would crash over an index on an expression", "drop index "+*index)
		}
		if err := (marker{w.load}).reserveLocks(ctx, ", or "+c.DecompressSQL(w.DB)); err != nil {
			return err
		}
		if w.alone { // or two lanes that have a lock on every chunk would wait for each other's
			if err := w.awaitLanes(ctx, pg.LockSweep, w.ht.ID); err != nil {
				return err
			}
		}
		from = w.hypertable()
	}
	return fault("chunk "+c.Quoted(), "does an application change old rows, or a job compress them?",
		"batches in the task's range are there again and again after they were deleted")
}

// cannotDelete is a chunk whose batches the server cannot delete from, and what
// helps. To decompress it here would keep the application out: when is for the
// user to say.
func (w *rowsInto) cannotDelete(c *tsdb.Chunk, why, helps string) error {
	return fault("chunk "+c.Name.String(), helps+" on the target, then run the same again",
		"TimescaleDB %s cannot delete rows from its batches: %s", w.TimescaleDB, why)
}
