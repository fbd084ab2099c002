package target

import (
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// Rows beside the batches of a compressed chunk that is not marked as partially
// compressed are in no query (see tsdb.Chunk.Hides). Those of the source do not
// travel. Those of the target would be shown as soon as a copy, or the application,
// marks the chunk: what is in the task's range has to be gone by then.

// notCopied says that rows of the source are hidden there, and what helps.
func notCopied(ld *load) string {
	if ld.image.Hidden == 0 {
		return ""
	}
	return fmt.Sprintf("not copied: %d rows beside the batches of the source's chunk, which no query there shows; %s",
		ld.image.Hidden, tsdb.Unhide(ld.header.Source.TimescaleDB, ld.task.Hypertable, ld.task.Chunk, ld.image.Frozen))
}

// hides reports whether a chunk that the task writes to has hidden rows. To mark it
// in a transaction of its own, ahead of the copy, would show them.
func (w *rowsInto) hides(ctx context.Context, chunks []*tsdb.Chunk) (bool, error) {
	for _, c := range chunks {
		if n, err := c.HiddenRows(ctx, w.DB, ""); n > 0 || err != nil {
			return true, err
		}
	}
	return false, nil
}

// deleteHidden deletes the hidden rows of the task's range, before rows go through
// the hypertable. Those outside of the range stay: note says that there are some.
func (w *rowsInto) deleteHidden(ctx context.Context, merge bool) (note string, err error) {
	chunks, err := w.overlapping(ctx)
	if err != nil {
		return "", err
	}
	where, err := w.ht.TaskCondition(w.DB, w.task)
	if err != nil {
		return "", err
	}
	for _, c := range chunks {
		if n, err := c.HiddenRows(ctx, w.DB, ""); err != nil {
			return "", err
		} else if n == 0 {
			continue
		}
		if err := w.lock(ctx, c.Quoted(), "row exclusive"); err != nil {
			return "", err
		}
		if c, err = w.Chunk(ctx, c.Name); err != nil || c == nil {
			return "", errOr(err, changed(w.task.Chunk))
		}
		outside, err := w.deleteHiddenOf(ctx, c, where, merge)
		if err != nil {
			return "", err
		}
		if outside > 0 {
			note = fmt.Sprintf("the target's chunk %s has %d rows outside of the range that no query showed: "+
				"they are shown once a chunk is marked as partially compressed, as by this copy", c.Name, outside)
		}
	}
	return note, nil
}

// deleteHiddenOf does so in one chunk, and returns how many stay.
func (w *rowsInto) deleteHiddenOf(
	ctx context.Context, c *tsdb.Chunk, where string, merge bool) (outside int64, err error) {
	var all, inside int64
	if err := w.asUser(ctx, func() (err error) {
		if all, err = c.HiddenRows(ctx, w.DB, ""); err == nil {
			inside, err = c.HiddenRows(ctx, w.DB, where)
		}
		return err
	}); err != nil {
		return 0, err
	}
	batches := tsdb.DeletesBatches(w.TimescaleDB)
	switch {
	case inside > 0 && batches && merge:
		// To delete them would delete rows of batches that other tables reference.
		return 0, fault("chunk "+c.Name.String(), tsdb.Unhide(w.TimescaleDB, w.ht.Name, c.Name, c.IsFrozen()),
			"%d rows beside its batches are shown by no query, and other tables reference the chunk's rows", inside)
	case inside > 0 && !batches: // else clear deletes them with the batches
		if err := c.Unfreeze(ctx, w.DB); err != nil {
			return 0, err
		}
		err = w.Wrap(w.deleteFrom(ctx, "only "+c.Quoted()+" where "+where), "clear chunk %s", c.Name)
	}
	return all - inside, err
}

// hintAtHidden says of rows that stay hidden outside of the range what helps where
// they are twins of rows in a batch: that batch cannot be decompressed.
func hintAtHidden(err error, note string) error {
	if note == "" || pg.Code(err) != pg.UniqueViolation {
		return err
	}
	return &pg.Error{Side: pg.Target, Err: err, Hint: note + "; delete them first"}
}
