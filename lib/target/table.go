package target

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// tableAsChunk copies rows into a plain table, builds its indexes and makes it the
// chunk. Building an index over all rows at once costs the target half as much as
// inserting into it row by row, and frozen rows need no later vacuum. The
// hypertable is locked only at the very end.
type tableAsChunk struct{ *load }

// attachFrom is the size in bytes from which that pays: below, its additional
// statements cost more than they save.
const attachFrom = 1 << 20

// attaches reports whether a table can become the task's chunk.
func (w tableAsChunk) attaches(ctx context.Context) (bool, error) {
	if yes, err := w.Attaches(ctx, queue.Schema); !yes || err != nil {
		return false, err
	}
	if why, err := tsdb.Unattachable(ctx, w.DB, w.ht, queue.Schema); why != "" || err != nil {
		return false, err
	}
	var err error
	if w.table, err = blueprint(ctx, w.load, w.ht.Name); err != nil {
		return false, err
	}
	// A chunk of another extent that is in the way had better be found before
	// the COPY than after it. To try it keeps the application from making chunks:
	// that is for the first one of a hypertable.
	if known := &w.lane.known.making; *known == w.ht.Version {
		s := w.task.Slices[0]
		inTheWay, err := tsdb.Overlapping(ctx, w.DB, w.ht, task.Range{Column: s.Column, From: s.From, Until: s.Until},
			w.task.Slices)
		return len(inTheWay) == 0, err
	}
	err = w.rehearse(ctx, func() error {
		_, _, err := w.ht.CreateChunk(ctx, w.DB, w.task.Slices)
		return err
	})
	if pg.Code(err) != "" && !w.Lost() {
		return false, nil // makeChunks meets it again, and knows what to do
	}
	if err == nil {
		w.lane.known.making = w.ht.Version
	}
	return err == nil, err
}

// blueprint is that of a table of the task's own.
func blueprint(ctx context.Context, ld *load, like task.Name) (*tsdb.Blueprint, error) {
	table := task.Name{Schema: queue.Schema, Name: fmt.Sprintf("load_%d", ld.task.Task)}
	return tsdb.NewBlueprint(ctx, ld.DB, ld.ht, like, table)
}

// buildIndexes builds the indexes of such a table.
func (s *session) buildIndexes(ctx context.Context, ht *tsdb.Hypertable, b *tsdb.Blueprint) error {
	if len(b.Build) == 0 {
		return nil
	}
	_, err := s.execAsUser(ctx, strings.Join(b.Build, "; "))
	return s.Wrap(err, "index the rows of %s", ht.Name)
}

func (w tableAsChunk) copy(ctx context.Context) error {
	if _, err := w.Exec(ctx, strings.Join(w.table.Table, ";")); err != nil {
		return w.Wrap(err, "create table %s", w.table.Name)
	}
	// Nobody sees the table before the commit: its rows can be frozen.
	_, err := w.copyRows(ctx, w.table.Name, "freeze")
	return err
}

func (w tableAsChunk) finish(ctx context.Context) error {
	if err := w.buildIndexes(ctx, w.ht, w.table); err != nil {
		return err
	}
	if err := w.GrantAlike(ctx, w.ht.OID, w.table.Name); err != nil {
		return err
	}
	err := tsdb.ErrOvertaken
	for tries := 0; errors.Is(err, tsdb.ErrOvertaken) && tries < 100; tries++ {
		err = locker(w).atLast(ctx, "", false, func() error {
			chunk, err := w.table.Attach(ctx, w.DB, w.ht, w.task.Slices)
			w.unanalyzed = pg.Ident(chunk.Schema, chunk.Name)
			return err
		})
	}
	if errors.Is(err, tsdb.ErrCollision) {
		w.unanalyzed = ""
		return w.moveRows(ctx)
	}
	return err
}

// moveRows puts the loaded rows where the application has made a chunk in the
// meantime. What it has written there is newer than the task and stays.
func (w tableAsChunk) moveRows(ctx context.Context) error {
	w.result.Way, w.result.WhyNotRaw = string(rowsRoot), "the application made the chunk at the same time"
	_, err := w.execAsUser(ctx, fmt.Sprintf("insert into %s (%s) overriding system value select %[2]s from %s",
		w.hypertable(), columnsOf(w.part), w.table.Name))
	if err != nil {
		return w.Wrap(err, "copy into %s", w.hypertable())
	}
	_, err = w.Exec(ctx, "drop table "+w.table.Name)
	return w.Wrap(err, "drop table %s", w.table.Name)
}
