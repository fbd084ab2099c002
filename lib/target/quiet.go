package target

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// errAsItWas undoes a compression that has not taken all rows.
var errAsItWas = errors.New("the server does not compress the chunk again")

// quietly has the server compress a chunk whose rows have come uncompressed though
// they are compressed on the source, where nobody else would do that: its range has
// long passed, and no policy is there (tsdb.Settled). compress_chunk keeps the
// application out of the chunk: it is given up as soon as anybody waits for it. It is
// the last but for the completion of the task. The note says why it was given up.
func (l *Loader) quietly(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, chunk *tsdb.Chunk) (done bool, note string, err error) {
	if settled, err := l.db.Settled(ctx, ht); err != nil || !settled(t.Slices[0]) {
		return false, "", err
	}
	if !l.db.SettingsPerChunk() { // ≤ 2.13 compresses no chunk again that is partially compressed
		return false, "", nil
	}
	missing, err := l.db.Missing(ctx, chunk.OID)
	if err != nil {
		return false, "", err
	}
	if slices.ContainsFunc(ht.Columns, func(c pg.Column) bool { return !c.NotNull && slices.Contains(missing, c.Name) }) {
		return false, "", nil // NULLs would become the default
	}
	timeout, err := l.ownLockTimeout(ctx, tx)
	if err != nil {
		return false, "", err
	}
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		return l.db.Unattended(ctx, func() error {
			if _, err := tx.Exec(ctx, fmt.Sprintf("set constraints all immediate; set local lock_timeout = %d; select pg_advisory_xact_lock(%d, %d)",
				lockWait.Milliseconds(), pg.LockQuiet, chunk.ID)); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "select "+pg.Ident(l.db.ExtensionSchema, "compress_chunk")+"($1::oid::regclass, true)", chunk.OID); err != nil {
				return err
			}
			c, err := l.db.Chunk(ctx, chunk.Name)
			if err == nil && (c == nil || c.Status&(tsdb.StatusCompressed|tsdb.StatusPartial) != tsdb.StatusCompressed) {
				return errAsItWas
			}
			if err == nil {
				_, err = tx.Exec(ctx, "set local lock_timeout = "+timeout)
			}
			return err
		})
	})
	switch {
	case err == nil:
		return true, "", nil
	case errors.Is(err, pg.ErrAwaited), pg.Code(err) == pg.LockNotAvailable:
		return false, "the application is at the chunk", nil
	case errors.Is(err, errAsItWas):
		return false, err.Error(), nil
	case pg.Code(err) != "" && !l.db.Lost() && ctx.Err() == nil:
		return false, pg.Describe(err), nil
	}
	return false, "", l.db.Wrap(err, "compress chunk %s", chunk.Name)
}
