package target

import (
	"context"
	"errors"
	"fmt"

	"bf/lib/pg"
	"bf/lib/tsdb"
)

// errAsItWas undoes a compression that has not taken all rows.
var errAsItWas = errors.New("the server does not compress the chunk again")

// compressQuietly has the server compress a chunk whose rows arrived uncompressed
// though they are compressed on the source, if no policy will compress it and its range
// has long passed (tsdb.Settled). compress_chunk blocks the application on the chunk: it
// is canceled as soon as another session waits for it. Only the completion of the task
// comes after it. The note says why it was canceled.
func (w *rowsInto) compressQuietly(ctx context.Context) (done bool, note string, err error) {
	if settled, err := tsdb.Settled(ctx, w.DB, w.ht); err != nil || !settled(w.task.Slices[0]) {
		return false, "", err
	}
	if !w.SettingsPerChunk() { // ≤ 2.13 compresses no chunk again that is partially compressed
		return false, "", nil
	}
	missing, err := w.Missing(ctx, w.chunk.OID)
	if err != nil {
		return false, "", err
	}
	if w.ht.AnyNullable(missing) {
		return false, "", nil // NULLs would become the default
	}
	err = w.savepoint(ctx, func() error { return w.Unattended(ctx, func() error { return w.compressAgain(ctx) }) })
	switch {
	case err == nil:
		return true, "", nil
	case errors.Is(err, pg.ErrAwaited), pg.Code(err) == pg.LockNotAvailable:
		return false, "the application is at the chunk", nil
	case errors.Is(err, errAsItWas):
		return false, err.Error(), nil
	case pg.Code(err) != "" && !w.Lost() && ctx.Err() == nil:
		return false, pg.Describe(err), nil
	}
	return false, "", w.Wrap(err, "compress chunk %s", w.chunk.Name)
}

func (w *rowsInto) compressAgain(ctx context.Context) error {
	if _, err := w.Exec(ctx, fmt.Sprintf("set constraints all immediate; %s; select pg_advisory_xact_lock(%d, %d)",
		lockTimeout(lockWait), pg.LockQuiet, w.chunk.ID)); err != nil {
		return err
	}
	if err := w.chunk.CompressAgain(ctx, w.DB); err != nil {
		return err
	}
	c, err := w.Chunk(ctx, w.chunk.Name)
	if err == nil && (c == nil || !c.IsCompressed() || c.IsPartial()) {
		return errAsItWas
	}
	if err == nil {
		_, err = w.Exec(ctx, lockTimeout(pg.LockTimeout))
	}
	return err
}
