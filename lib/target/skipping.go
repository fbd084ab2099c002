package target

import (
	"context"

	"bf/lib/tsdb"
)

// unbinder sees to it, for a hypertable that skips chunks, that no query leaves out a
// chunk of the task by the range that a column had before (see lib/tsdb/skipping.go). It
// comes before everything else, in short transactions: in that of the copy, the
// application's first insert into a compressed chunk would wait for it until the commit.
type unbinder struct{ *load }

func (u unbinder) all(ctx context.Context) error {
	chunks, err := u.overlapping(ctx)
	if err != nil {
		return err
	}
	skippable, err := tsdb.Skippable(ctx, u.DB, u.ht, chunks...)
	if err != nil {
		return err
	}
	for _, c := range skippable {
		if err := u.one(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// one unbinds the ranges of one chunk: in the catalog, if the role may write to that;
// else the chunk is made anew if it is empty, and marked as partially compressed if
// it is compressed, if only for a moment.
func (u unbinder) one(ctx context.Context, c *tsdb.Chunk) error {
	if u.Superuser {
		return u.briefly(ctx, func() error { return tsdb.Unbound(ctx, u.DB, u.ht, c) })
	}
	empty, err := u.vacant(ctx, c)
	if err != nil {
		return err
	}
	many, err := u.exceedsLockBudget(ctx, c)
	switch {
	case err != nil:
	case empty:
		return u.remake(ctx, c)
	case c.IsCompressed():
		err = marker(u).markChunk(ctx, c)
	case !many:
		err = u.throughCompression(ctx, c)
	}
	if err != nil {
		return err
	}
	left, err := tsdb.Skippable(ctx, u.DB, u.ht, c)
	if err == nil && len(left) > 0 {
		err = u.skipped(c)
	}
	return err
}

// throughCompression compresses a chunk of few rows, marks it as partially
// compressed, which no range is valid after, and decompresses it again.
func (u unbinder) throughCompression(ctx context.Context, c *tsdb.Chunk) error {
	return u.locked(ctx, c, false, func(now *tsdb.Chunk) error {
		if now.IsCompressed() {
			return changed(c.Name)
		}
		if err := now.Unfreeze(ctx, u.DB); err != nil {
			return err
		}
		if err := c.Compress(ctx, u.DB); err != nil {
			return err
		}
		compressed, err := u.Chunk(ctx, c.Name)
		if err == nil {
			err = marker(u).mark(ctx, compressed)
		}
		if err == nil {
			err = c.Decompress(ctx, u.DB)
		}
		if err == nil && now.IsFrozen() {
			err = now.Freeze(ctx, u.DB)
		}
		return err
	})
}

// skipped is a chunk whose rows queries do not find, and what helps.
func (u unbinder) skipped(c *tsdb.Chunk) error {
	do := c.CompressSQL(u.DB)
	if c.IsCompressed() {
		do = c.DecompressSQL(u.DB) + "; " + do
	}
	return fault("chunk "+c.Name.String(),
		"run this on the target, then the same again: set timescaledb.enable_chunk_skipping = on; "+do,
		"chunk skipping would hide the rows: the server relies on ranges of columns that are not those of the rows, "+
			"and only a superuser may change them")
}

// vacant reports whether there is no row in the chunk, nor in batches of it.
func (u unbinder) vacant(ctx context.Context, c *tsdb.Chunk) (bool, error) {
	rows, err := u.some(ctx, "only "+c.Quoted())
	if err != nil || rows || c.RelationOID == 0 {
		return !rows, err
	}
	batches, err := c.HasBatches(ctx, u.DB)
	return !batches, err
}

// remake drops an empty chunk and makes it again: a new chunk has ranges without
// bounds. A session that had planned to use the chunk and waits for its lock would fail
// when it is gone. So the hypertable is locked first: then no session waits.
func (u unbinder) remake(ctx context.Context, c *tsdb.Chunk) error {
	return u.locked(ctx, c, true, func(now *tsdb.Chunk) error {
		if empty, err := u.vacant(ctx, now); err != nil || !empty {
			return errOr(err, changed(c.Name))
		}
		if err := now.Unfreeze(ctx, u.DB); err != nil {
			return err
		}
		if _, err := u.Exec(ctx, "drop table "+c.Quoted()); err != nil {
			return u.Wrap(err, "make chunk %s again", c.Name)
		}
		_, _, err := u.ht.CreateChunk(ctx, u.DB, c.Slices)
		return err
	})
}

// locked runs f with the hypertable locked, against everybody if alone, and the chunk
// against everybody.
func (u unbinder) locked(ctx context.Context, c *tsdb.Chunk, alone bool, f func(now *tsdb.Chunk) error) error {
	return u.briefly(ctx, func() error {
		if err := locker(u).lockHypertable(ctx, alone); err != nil {
			return err
		}
		if err := u.lock(ctx, c.Quoted(), "access exclusive"); err != nil {
			return err
		}
		now, err := u.Chunk(ctx, c.Name)
		if err == nil && (now == nil || now.OID != c.OID) {
			err = changed(c.Name)
		}
		if err != nil {
			return err
		}
		return f(now)
	})
}
