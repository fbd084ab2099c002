package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// attachFrom is the size from which it pays to load a plain table first and
// index it then: below, its additional statements cost more than they save.
const attachFrom = 1 << 20

// becomesChunk returns how a plain table becomes the chunk of the task, nil where
// it cannot, or need not: the rows then go into a chunk that is ready before
// the COPY. Building an index over all rows at once costs the target half as
// much as inserting into it row by row, and frozen rows need no later vacuum.
func (l *Loader) becomesChunk(ctx context.Context, ht *tsdb.Hypertable, t *task.Task, part *stream.Part) (*tsdb.Blueprint, error) {
	if part.Bytes < attachFrom || ht.Unaligned(t.Slices) != "" {
		return nil, nil
	}
	if c, err := l.db.ChunkOf(ctx, ht, t.Slices); c != nil || err != nil {
		return nil, err
	}
	if yes, err := l.db.Attaches(ctx); !yes || err != nil {
		return nil, err
	}
	if why, err := l.db.Unattachable(ctx, ht); why != "" || err != nil {
		return nil, err
	}
	b, err := l.blueprint(ctx, ht, ht.Name, t)
	if err != nil {
		return nil, err
	}
	// A chunk of another extent that is in the way had better be found before
	// the COPY than after it.
	rehearsal := errors.New("a rehearsal")
	err = l.briefly(ctx, func(pgx.Tx) error {
		if _, _, err := l.db.CreateChunk(ctx, ht, t.Slices); err != nil {
			return err
		}
		return rehearsal
	})
	if err == rehearsal {
		return b, nil
	}
	if pg.Code(err) != "" && !l.db.Lost() {
		return nil, nil // place meets it again, and knows what to do
	}
	return nil, err
}

// blueprint is that of a table of the task's own.
func (l *Loader) blueprint(ctx context.Context, ht *tsdb.Hypertable, like task.Name, t *task.Task) (*tsdb.Blueprint, error) {
	name := fmt.Sprintf("load_%d", t.Task)
	return l.db.Blueprint(ctx, ht, like, pg.Ident("__backfill", name), name+"_")
}

// indexRows builds the indexes of such a table.
func (l *Loader) indexRows(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, b *tsdb.Blueprint) error {
	err := l.asUser(ctx, tx, func() error {
		for _, sql := range b.Build {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	return l.db.Wrap(err, "index the rows of %s", ht.Name)
}

// copyTable copies the rows into a plain table, builds its indexes and makes it
// the chunk, in one transaction that also completes the task. The hypertable is
// locked only at the very end, for the last of these.
func (l *Loader) copyTable(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data io.Reader, b *tsdb.Blueprint, res *task.Result) error {
	var chunk task.Name
	err := l.inTx(ctx, t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, strings.Join(b.Table, ";")); err != nil {
			return l.db.Wrap(err, "create table %s", b.Name)
		}
		// Nobody sees the table before the commit: its rows can be frozen.
		stored, bytes, err := l.rows(ctx, tx, r, b.Name, part, data, "freeze")
		if err != nil {
			return err
		}
		if err := whole(r); err != nil {
			return err
		}
		if err := l.indexRows(ctx, tx, ht, b); err != nil {
			return err
		}
		res.Status, res.Rows, res.Bytes, res.Way = task.Loaded, stored, bytes, string(rowsTable)
		if err := l.privileges(ctx, tx, ht, b.Name); err != nil {
			return err
		}
		err = tsdb.ErrOvertaken
		for tries := 0; errors.Is(err, tsdb.ErrOvertaken) && tries < 100; tries++ {
			err = l.atLast(ctx, tx, end{ht: ht}, func(tx pgx.Tx, _ *tsdb.Chunk, _ bool) (err error) {
				chunk, err = l.db.Attach(ctx, tx, ht, t.Slices, b)
				return err
			})
		}
		if errors.Is(err, tsdb.ErrCollision) {
			err = l.moveRows(ctx, tx, ht, part, b, res)
		}
		if err != nil {
			return err
		}
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
	if err == nil && !chunk.IsZero() {
		l.analyze(ctx, pg.Ident(chunk.Schema, chunk.Name))
	}
	return err
}

// moveRows puts the loaded rows where the application has made a chunk in the
// meantime. What it has written there is newer than the task and stays.
func (l *Loader) moveRows(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, part *stream.Part, b *tsdb.Blueprint, res *task.Result) error {
	root := pg.Ident(ht.Name.Schema, ht.Name.Name)
	if err := l.asUser(ctx, tx, func() error {
		_, err := tx.Exec(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s", root, columnsOf(part), b.Name))
		return err
	}); err != nil {
		return l.db.Wrap(err, "copy into %s", root)
	}
	res.Way, res.WhyNotRaw = string(rowsRoot), "the application made the chunk at the same time"
	_, err := tx.Exec(ctx, "drop table "+b.Name)
	return l.db.Wrap(err, "drop table %s", b.Name)
}

func columnsOf(part *stream.Part) string {
	names := make([]string, len(part.Columns))
	for i, c := range part.Columns {
		names[i] = c.Name
	}
	return pg.Idents(names)
}
