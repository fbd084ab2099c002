package target

import (
	"context"
	"fmt"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// emptier makes room in the task's chunk.
type emptier struct{ *load }

// maxRowsUnderLock is how many rows a chunk may be locked for: a server
// compresses, moves or deletes them within a few milliseconds.
const maxRowsUnderLock = 5000

// exceedsLockBudget reports whether more rows than that are in a chunk, outside of
// batches. To delete them is no way to empty it before a relation is attached: under
// the lock of that, the server would look through what DELETE has left.
func (s *session) exceedsLockBudget(ctx context.Context, c *tsdb.Chunk) (bool, error) {
	return s.some(ctx, fmt.Sprintf("only %s offset %d", c.Quoted(), maxRowsUnderLock))
}

// forBatches locks the chunk against a change of its state and empties it. Rows that
// other tables reference are not for deleting: they have to be merged.
func (e emptier) forBatches(ctx context.Context, truncate bool) error {
	if err := e.lockUnreferenced(ctx); err != nil {
		return err
	}
	return e.empty(ctx, truncate)
}

// lockUnreferenced locks the chunk and refuses it if other tables reference its rows.
func (e emptier) lockUnreferenced(ctx context.Context) error {
	if err := locker(e).lockChunk(ctx, "row exclusive"); err != nil {
		return err
	}
	m, err := newMerger(ctx, e.load, false)
	if err == nil && m.rows {
		err = byRows(e.task, rowsReferenced.String())
	}
	return err
}

// empty leaves the locked chunk uncompressed and without rows. A compressed one is
// always truncated, which keeps the application out for milliseconds: once for its
// batches, which is all that TRUNCATE empties of it, and once, when it has none, for
// its rows. (≥ 2.28: DELETE would go through batches one by one.) Where other tables
// reference the hypertable, TRUNCATE of the chunk is refused: then its batches alone
// are truncated, unless truncate says that aggregates have to learn of it.
func (e emptier) empty(ctx context.Context, truncate bool) error {
	if err := e.chunk.Unfreeze(ctx, e.DB); err != nil {
		return err
	}
	if !e.chunk.IsCompressed() && !truncate {
		return e.deleteAll(ctx, e.chunk.Quoted())
	}
	if err := locker(e).lockChunk(ctx, "access exclusive"); err != nil {
		return err
	}
	c := e.chunk
	if c.IsCompressed() {
		err := e.truncate(ctx, "only "+c.Quoted())
		if pg.Code(err) == pg.NotSupported && !truncate {
			var batches string
			if batches, err = e.RelationName(ctx, c.RelationOID); err == nil {
				err = e.truncate(ctx, batches)
			}
		}
		if err == nil {
			err = c.Decompress(ctx, e.DB)
		}
		if err == nil {
			err = e.unskipped(ctx)
		}
		if err != nil {
			return e.Wrap(err, "clear chunk %s", c.Name)
		}
	}
	err := e.truncate(ctx, "only "+c.Quoted())
	if pg.Code(err) == pg.NotSupported && !truncate {
		return e.deleteAll(ctx, c.Quoted())
	}
	return e.Wrap(err, "clear chunk %s", c.Name)
}

// unskipped is an error if queries may leave out a chunk that has just been emptied:
// it was compressed since the unbinder was here.
func (e emptier) unskipped(ctx context.Context) error {
	left, err := tsdb.Skippable(ctx, e.DB, e.ht, e.chunk)
	if err == nil && len(left) > 0 {
		err = changed(e.chunk.Name)
	}
	return err
}

// truncate leaves the transaction usable where the server refuses it.
func (e emptier) truncate(ctx context.Context, relation string) error {
	_, err := e.Exec(ctx, "savepoint bf; truncate "+relation+"; release bf")
	if err == nil || e.Lost() {
		return err
	}
	if _, e := e.Exec(context.WithoutCancel(ctx), "rollback to bf; release bf"); e != nil {
		return fmt.Errorf("%v; and then: %w", err, e)
	}
	return err
}

// deleteAll deletes all rows of the chunk or of its compressed relation. A DELETE
// of nothing is refused, too, where a publication wants to tell subscribers which
// rows it was, and there is no key.
func (e emptier) deleteAll(ctx context.Context, relation string) error {
	some, err := e.some(ctx, "only "+relation)
	if err == nil && some {
		err = e.deleteFrom(ctx, "only "+relation)
	}
	return e.Wrap(err, "clear chunk %s", e.chunk.Name)
}

// decompress decompresses a chunk that is compressed and has no batches. In the
// transaction of the copy that would lock the application out of the chunk until the
// commit.
func (e emptier) decompress(ctx context.Context) error {
	return e.briefly(ctx, func() error {
		if err := locker(e).lockHypertable(ctx, false); err != nil {
			return err
		}
		if err := e.lock(ctx, e.chunk.Quoted(), "access exclusive"); err != nil {
			return err
		}
		c, err := e.Chunk(ctx, e.chunk.Name)
		if err != nil || c == nil || !c.IsCompressed() || c.IsFrozen() {
			return err
		}
		if can, err := e.canDecompress(ctx, c); err != nil || !can {
			return err
		}
		return c.Decompress(ctx, e.DB)
	})
}

// canDecompress reports whether that would neither take time nor show hidden rows.
func (e emptier) canDecompress(ctx context.Context, c *tsdb.Chunk) (bool, error) {
	some, err := c.HasBatches(ctx, e.DB)
	if err != nil || some {
		return false, err
	}
	n, err := c.HiddenRows(ctx, e.DB, "")
	return n == 0, err
}
