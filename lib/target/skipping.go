package target

import (
	"context"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// unbound sees to it that no query leaves out a chunk of the task by the range that
// a column had before (chunk skipping, see lib/tsdb/skipping.go). It comes before
// everything else, in short transactions: in that of the copy, the application's
// first insert into a compressed chunk would wait for it until the commit.
func (l *Loader) unbound(ctx context.Context, ht *tsdb.Hypertable, t *task.Task) error {
	if skips, err := l.db.Skips(ctx, ht); !skips || err != nil {
		return err
	}
	chunks, err := l.chunks(ctx, ht, t)
	if err != nil {
		return err
	}
	skippable, err := l.db.Skippable(ctx, ht, chunks...)
	if err != nil {
		return err
	}
	for _, c := range skippable {
		if err := l.unboundChunk(ctx, ht, c); err != nil {
			return err
		}
	}
	return nil
}

// unboundChunk unbinds the ranges of one chunk: in the catalog, if the role may
// write to that; else the chunk is made anew if it is empty, and marked as
// partially compressed if it is compressed, if only for a moment.
func (l *Loader) unboundChunk(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	if l.db.Superuser {
		return l.briefly(ctx, func(pgx.Tx) error { return l.db.Unbound(ctx, ht, c) })
	}
	empty, err := l.vacant(ctx, c)
	if err != nil {
		return err
	}
	many, err := l.many(ctx, c)
	switch {
	case err != nil:
	case empty:
		return l.remake(ctx, ht, c)
	case c.Status&tsdb.StatusCompressed != 0:
		err = l.admitChunk(ctx, ht, c)
	case !many:
		err = l.throughCompression(ctx, ht, c)
	}
	if err != nil {
		return err
	}
	left, err := l.db.Skippable(ctx, ht, c)
	if err == nil && len(left) > 0 {
		err = l.skipped(c)
	}
	return err
}

// throughCompression compresses a chunk of few rows, marks it as partially
// compressed, which no range is valid after, and decompresses it again.
func (l *Loader) throughCompression(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	return l.briefly(ctx, func(tx pgx.Tx) error {
		if err := l.lockHypertable(ctx, tx, ht, false); err != nil {
			return err
		}
		name := pg.Ident(c.Name.Schema, c.Name.Name)
		if _, err := tx.Exec(ctx, "lock table only "+name+" in access exclusive mode"); err != nil {
			return l.db.Wrap(err, "%s", name)
		}
		now, err := l.db.Chunk(ctx, c.Name)
		if err != nil {
			return err
		}
		if now == nil || now.Status&tsdb.StatusCompressed != 0 {
			return changed(c.Name)
		}
		if err := l.unfreeze(ctx, tx, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, l.call("compress_chunk", c)); err != nil {
			return l.db.Wrap(err, "compress chunk %s", c.Name)
		}
		compressed, err := l.db.Chunk(ctx, c.Name)
		if err == nil {
			err = l.mark(ctx, tx, ht, compressed)
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, l.call("decompress_chunk", c)); err != nil {
			return l.db.Wrap(err, "decompress chunk %s", c.Name)
		}
		if now.Status&tsdb.StatusFrozen != 0 {
			return l.freeze(ctx, tx, now)
		}
		return nil
	})
}

// skipped is a chunk whose rows queries do not find, and what helps.
func (l *Loader) skipped(c *tsdb.Chunk) error {
	do := l.call("compress_chunk", c)
	if c.Status&tsdb.StatusCompressed != 0 {
		do = l.call("decompress_chunk", c) + "; " + do
	}
	return &pg.Error{Side: pg.Target, Object: "chunk " + c.Name.String(),
		Err:  errors.New("chunk skipping would hide the rows: the server relies on ranges of columns that are not those of the rows, and only a superuser may change them"),
		Hint: "run this on the target, then the same again: set timescaledb.enable_chunk_skipping = on; " + do}
}

// vacant reports whether there is no row in the chunk, nor in batches of it.
func (l *Loader) vacant(ctx context.Context, c *tsdb.Chunk) (bool, error) {
	name := pg.Ident(c.Name.Schema, c.Name.Name)
	some := "exists (select from only " + name + ")"
	if c.RelationOID != 0 {
		batches, err := l.db.RelationName(ctx, c.RelationOID)
		if err != nil {
			return false, err
		}
		some += " or exists (select from only " + batches + ")"
	}
	var any bool
	err := l.db.QueryRow(ctx, "select "+some).Scan(&any)
	return !any, l.db.Wrap(err, "look into %s", name)
}

// remake drops an empty chunk and makes it again: a new chunk has ranges without
// bounds. Whoever has found the chunk and waits for its lock would fail when it is
// gone; so the hypertable is locked first, and then nobody has.
func (l *Loader) remake(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	return l.briefly(ctx, func(tx pgx.Tx) error {
		table, chunk := pg.Ident(ht.Name.Schema, ht.Name.Name), pg.Ident(c.Name.Schema, c.Name.Name)
		for _, name := range []string{table, chunk} {
			if _, err := tx.Exec(ctx, "lock table only "+name+" in access exclusive mode"); err != nil {
				return l.db.Wrap(err, "%s", name)
			}
		}
		now, err := l.db.Chunk(ctx, c.Name)
		if err != nil {
			return err
		}
		if now == nil || now.OID != c.OID {
			return changed(c.Name)
		}
		if empty, err := l.vacant(ctx, now); err != nil {
			return err
		} else if !empty {
			return changed(c.Name)
		}
		if err := l.unfreeze(ctx, tx, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "drop table "+chunk); err != nil {
			return l.db.Wrap(err, "make chunk %s again", c.Name)
		}
		_, _, err = l.db.CreateChunk(ctx, ht, c.Slices)
		return err
	})
}

// bounded is an error if queries may leave out a chunk that has just been emptied:
// it was compressed since unbound was here.
func (l *Loader) bounded(ctx context.Context, ht *tsdb.Hypertable, c *tsdb.Chunk) error {
	left, err := l.db.Skippable(ctx, ht, c)
	if err == nil && len(left) > 0 {
		err = changed(c.Name)
	}
	return err
}

// call is a statement by which a function of TimescaleDB is called for a chunk.
func (l *Loader) call(function string, c *tsdb.Chunk) string {
	return fmt.Sprintf("select %s(%s)", pg.Ident(l.db.ExtensionSchema, function), pg.Literal(pg.Ident(c.Name.Schema, c.Name.Name)))
}
