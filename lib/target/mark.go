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

// marker does in short transactions, ahead of a copy, what would be in the way of the
// application until its commit.
type marker struct{ *load }

// reserveLocks goes before a statement on the hypertable that locks all of its
// chunks. Where several of those at once could exhaust the server's lock table,
// one lane at a time goes on until its commit; a sixteenth of the table leaves
// room for others. What would take most of it alone is refused: others, the
// application among them, would be out of locks. instead is what helps as well.
func (k marker) reserveLocks(ctx context.Context, instead string) error {
	r, err := k.LockRoom(ctx, k.ht.OID)
	if err != nil {
		return err
	}
	switch room := r.Each * r.Slots; {
	case r.Needed*16 <= room:
		return nil
	case r.Needed*4 <= room*3:
		return k.awaitLanes(ctx, pg.LockSweep, k.ht.ID)
	default:
		return fault(k.ht.Label().String(),
			fmt.Sprintf("set max_locks_per_transaction = %d on the target and restart it%s; then run the same again",
				2*r.Needed/r.Slots+1, instead),
			"the statement needed here would lock every chunk and index: %d locks, and the server has room for %d",
			r.Needed, room)
	}
}

// markPartial marks compressed chunks as partially compressed, each in a short
// transaction that changes nothing else. The first statement that puts rows beside
// batches, or takes rows out of them, does that, in a row of the catalog: until our
// commit, the application's first insert would wait for it.
func (k marker) markPartial(ctx context.Context, chunks []*tsdb.Chunk) error {
	for _, c := range chunks {
		if !c.IsCompressed() || c.IsPartial() || c.IsFrozen() {
			continue
		}
		if err := k.markChunk(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// markChunk does that for one of them, frozen or not. Where it cannot be done, an
// insert waits for our commit; no more than that.
func (k marker) markChunk(ctx context.Context, c *tsdb.Chunk) error {
	err := k.briefly(ctx, func() error {
		if err := c.Unfreeze(ctx, k.DB); err != nil {
			return err
		}
		err := k.mark(ctx, c)
		if err == nil && c.IsFrozen() {
			err = c.Freeze(ctx, k.DB)
		}
		return err
	})
	if err != nil && err != errNotOne && (pg.Code(err) == "" || k.Lost()) {
		return k.Wrap(err, "mark chunk %s as partially compressed", c.Name)
	}
	return nil
}

// mark marks a compressed chunk: by a row, unless triggers would fire for it, or a
// key is deferrable, which ON CONFLICT is refused for; else by a batch.
func (k marker) mark(ctx context.Context, c *tsdb.Chunk) error {
	if err := k.lookAgain(ctx); err != nil {
		return err
	}
	if len(k.dep.OnInsert)+len(k.dep.OnDelete) == 0 {
		err := k.savepoint(ctx, func() error { return k.insertOneRow(ctx, c) })
		if pg.Code(err) != pg.NotInPrerequisiteState {
			return err
		}
	}
	return k.decompressOneBatch(ctx, c)
}

// insertOneRow puts a copy of one of its rows beside the chunk's batches and takes
// it away again. Where the row has to be unique, the server has marked the chunk
// before it finds that out.
func (k marker) insertOneRow(ctx context.Context, c *tsdb.Chunk) error {
	b, err := tsdb.NewBatchFilter(ctx, k.DB, k.ht, c)
	if err != nil {
		return err
	}
	var ctid string
	var values []*string
	err = k.scanAsUser(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s limit 1 "+
		"on conflict do nothing returning ctid::text, %s", k.hypertable(), copied(k.ht), c.Quoted(), b.Values()),
		&ctid, &values)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.deleteCopy(ctx, c.Quoted(), ctid, b.Where(values))
}

// decompressOneBatch does so by a DELETE that deletes nothing.
func (k marker) decompressOneBatch(ctx context.Context, c *tsdb.Chunk) error {
	b, err := tsdb.NewBatchFilter(ctx, k.DB, k.ht, c)
	if err != nil {
		return err
	}
	var values []*string
	err = k.QueryRow(ctx, "select "+b.Values()+" from "+c.Quoted()+" limit 1").Scan(&values)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	where := " where random() < 0 and " + b.Where(values)
	if err := k.deleteFrom(ctx, "only "+c.Quoted()+where); err != nil {
		return err
	}
	if c, err = k.Chunk(ctx, c.Name); err != nil || c == nil || c.IsPartial() {
		return err
	}
	// ≤ 2.22: only DELETE from the hypertable decompresses.
	return k.deleteFromAll(ctx, where)
}

// decompressBoundary decompresses the batches that the ends of the task's range
// cut, in short transactions that change nothing else: where inserts decompress,
// those of the application would wait for what we are at until our commit.
func (k marker) decompressBoundary(ctx context.Context) error {
	if !k.task.Range.Partial || !k.InsertsDecompress() {
		return nil
	}
	for _, end := range []string{k.task.Range.From, k.task.Range.Until} {
		at, err := tsdb.Beginning(k.ht, task.Slice{Column: k.task.Range.Column, From: end})
		if err != nil {
			return err
		}
		if at == "" {
			continue
		}
		// Never true, but the server does not know. (No system column instead: 2.11
		// crashes over one.)
		where := " where " + pg.Ident(k.task.Range.Column) + " = " + at + " and random() < 0"
		err = k.briefly(ctx, func() error { return k.deleteFromAll(ctx, where) })
		if err != nil && (pg.Code(err) == "" || k.Lost()) {
			return k.Wrap(err, "decompress what the range cuts of %s", k.ht.Name)
		}
	}
	return nil
}

// deleteFromAll deletes from the hypertable, where the server would not crash.
func (k marker) deleteFromAll(ctx context.Context, where string) error {
	if index, err := tsdb.CrashingIndex(ctx, k.DB, k.ht); err != nil || index != nil {
		return err
	}
	if err := k.reserveLocks(ctx, ""); err != nil {
		return err
	}
	return k.deleteFrom(ctx, k.hypertable()+where)
}
