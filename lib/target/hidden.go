package target

import (
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Rows beside the batches of a compressed chunk that is not marked as partially
// compressed are in no query (see tsdb.Chunk.Hides). Those of the source do not
// travel. Those of the target would be shown as soon as a copy, or the application,
// marks the chunk: what is in the task's range has to be gone by then.

// notCopied says that rows of the source are hidden there, and what helps.
func notCopied(h *stream.Header, img *tsdb.Image) string {
	if img.Hidden == 0 {
		return ""
	}
	return fmt.Sprintf("not copied: %d rows beside the batches of the source's chunk, which no query there shows; %s",
		img.Hidden, tsdb.Unhide(h.Source.TimescaleDB, h.Task.Hypertable, h.Task.Chunk, img.Frozen))
}

// hides reports whether a chunk that the task writes to has hidden rows. To mark it
// in a transaction of its own, ahead of the copy, would show them.
func (l *Loader) hides(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) (bool, error) {
	chunks, err := l.chunks(ctx, ht, t)
	for _, c := range chunks {
		if n, err := l.db.HiddenRows(ctx, c, ""); n > 0 || err != nil {
			return true, err
		}
	}
	return false, err
}

// removeHidden deletes the hidden rows of the task's range, before rows go through
// the hypertable. Those outside of the range stay: note says that there are some.
func (l *Loader) removeHidden(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, merge bool) (note string, err error) {
	chunks, err := l.chunks(ctx, ht, t)
	if err != nil {
		return "", err
	}
	where, err := l.db.TaskCondition(ht, t)
	if err != nil {
		return "", err
	}
	for _, c := range chunks {
		if n, err := l.db.HiddenRows(ctx, c, ""); err != nil {
			return "", err
		} else if n == 0 {
			continue
		}
		name := pg.Ident(c.Name.Schema, c.Name.Name)
		if _, err := tx.Exec(ctx, "lock table only "+name+" in row exclusive mode"); err != nil {
			return "", l.db.Wrap(err, "chunk %s", c.Name)
		}
		if c, err = l.db.Chunk(ctx, c.Name); err != nil || c == nil {
			return "", cmpErr(err, changed(t.Chunk))
		}
		var all, inside int64
		if err := l.asUser(ctx, tx, func() (err error) {
			if all, err = l.db.HiddenRows(ctx, c, ""); err == nil {
				inside, err = l.db.HiddenRows(ctx, c, where)
			}
			return err
		}); err != nil {
			return "", err
		}
		switch {
		case inside == 0:
		case tsdb.DeletesBatches(l.db.TimescaleDB) && merge:
			// To delete them would delete rows of batches that other tables reference.
			return "", &pg.Error{Side: pg.Target, Object: "chunk " + c.Name.String(), Err: fmt.Errorf("%d rows beside its batches are shown by no query, and other tables reference the chunk's rows", inside),
				Hint: tsdb.Unhide(l.db.TimescaleDB, ht.Name, c.Name, c.Status&tsdb.StatusFrozen != 0)}
		case !tsdb.DeletesBatches(l.db.TimescaleDB): // else clear deletes them with the batches
			if err := l.unfreeze(ctx, tx, c); err != nil {
				return "", err
			}
			if err := l.remove(ctx, tx, ht, "only "+name+" where "+where); err != nil {
				return "", l.db.Wrap(err, "clear chunk %s", c.Name)
			}
		}
		if all > inside {
			note = fmt.Sprintf("the target's chunk %s has %d rows outside of the range that no query showed: they are shown once a chunk is marked as partially compressed, as by this copy", c.Name, all-inside)
		}
	}
	return note, nil
}

// withHint says of rows that stay hidden outside of the range what helps where they
// are twins of rows in a batch: that batch cannot be decompressed.
func withHint(err error, note string) error {
	if note == "" || pg.Code(err) != pg.UniqueViolation {
		return err
	}
	return &pg.Error{Side: pg.Target, Err: err, Hint: note + "; delete them first"}
}
