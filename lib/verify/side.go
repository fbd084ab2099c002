package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/source"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// side is one side of a task: an open read-only transaction, in whose snapshot
// the rows of the task are looked at as often as needed.
type side struct {
	db   *tsdb.DB
	h    *tsdb.Hypertable
	rows string // relation and condition, for a FROM clause
	gone bool   // no chunk holds rows of the task's range
	note string // what the reader of a verdict should know
	// compressedChunk is the chunk if it is compressed and all of it is
	// compared. It is nil for the hypercore access method: SELECT FROM ONLY
	// returns all rows there, not the uncompressed ones.
	compressedChunk *tsdb.Chunk
}

// enterSource opens the transaction on the chunk of a task in the snapshot it was staged with,
// or as it is now when that is no longer possible.
func enterSource(ctx context.Context, db *tsdb.DB, t *task.Task) (*side, error) {
	s := &side{db: db}
	in, err := source.Enter(ctx, db, t)
	if errors.Is(err, source.ErrSnapshot) {
		s.leave(ctx)
		s.note = fmt.Sprintf("source as it is now (snapshot %s: no longer usable)", t.Snapshot)
		now := *t
		now.Snapshot = ""
		in, err = source.Enter(ctx, db, &now)
	}
	if err != nil {
		return s, err
	}
	s.h = in.Hypertable
	if in.Chunk != nil {
		return s, s.chunk(ctx, in.Chunk, t)
	}
	names := make([]string, len(s.h.Columns))
	for i, c := range s.h.Columns {
		names[i] = c.Name
	}
	s.rows = "(" + in.Select(names) + ") slice"
	return s, nil
}

// enterTarget looks at the target's chunk of the same extent, or else through
// the hypertable at the rows of the range. Chunks are locked before the
// snapshot is taken: one that is older than a compression would miss the rows.
func enterTarget(ctx context.Context, db *tsdb.DB, t *task.Task) (*side, error) {
	s := &side{db: db}
	for range 5 {
		var err error
		if s.h, err = db.HypertableFor(ctx, t.Target(), t.View); err != nil {
			return s, err
		}
		if s.h == nil {
			return s, &pg.Error{Side: db.Side, Object: t.Target().String(), Err: errors.New("is not there any more"),
				Hint: "create it as on the source and run bf-stage again"}
		}
		chunks, locked, err := s.lock(ctx, t)
		switch {
		case err != nil:
			return s, err
		case locked && len(chunks) == 1 && chunks[0].SameSlices(t.Slices):
			return s, s.chunk(ctx, chunks[0], t)
		case locked:
			s.gone = len(chunks) == 0
			return s, s.root(ctx, t)
		}
		s.leave(ctx)
	}
	return s, &pg.Error{Side: db.Side, Object: t.String(), Err: errors.New("its chunks keep changing"),
		Hint: "run bf-verify again"}
}

// lock opens the transaction on the chunks of the task, locked. It reports
// false when chunks were made, dropped or compressed in the meantime.
func (s *side) lock(ctx context.Context, t *task.Task) (chunks []*tsdb.Chunk, locked bool, err error) {
	before, err := s.chunks(ctx, t)
	if err != nil {
		return nil, false, err
	}
	sql := "begin isolation level repeatable read read only"
	for _, c := range before {
		sql += "; lock table only " + pg.Ident(c.Name.Schema, c.Name.Name) + " in access share mode"
	}
	switch _, err := s.db.Exec(ctx, sql); {
	case pg.Code(err) == pg.UndefinedTable:
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	chunks, err = s.chunks(ctx, t)
	locked = slices.EqualFunc(before, chunks, func(a, b *tsdb.Chunk) bool { return a.OID == b.OID && !b.Rewritten })
	return chunks, locked, err
}

// chunks returns the chunk of the task's extent, or else all that may hold rows
// of its range.
func (s *side) chunks(ctx context.Context, t *task.Task) ([]*tsdb.Chunk, error) {
	c, err := s.h.ChunkOf(ctx, s.db, t.Slices)
	if err != nil {
		return nil, err
	}
	if c != nil && len(s.h.Dimensions) == len(t.Slices) {
		return []*tsdb.Chunk{c}, nil
	}
	return s.h.ChunksIn(ctx, s.db, t.Range)
}

// chunk compares the rows of one chunk.
func (s *side) chunk(ctx context.Context, c *tsdb.Chunk, t *task.Task) error {
	s.rows = pg.Ident(c.Name.Schema, c.Name.Name) // without ONLY: compressed rows as well
	hidden, err := c.HiddenRows(ctx, s.db, "")
	if err != nil {
		return err
	}
	if hidden > 0 {
		s.remark(fmt.Sprintf("not compared: %d rows beside the batches of the %s's chunk, which no query shows",
			hidden, s.db.Side))
	}
	if !t.Range.Partial {
		if c.Status&tsdb.StatusCompressed != 0 && c.RelationOID != 0 && c.AM != "hypercore" {
			s.compressedChunk = c
		}
		return nil
	}
	cond, err := s.h.RangeCondition(s.db, t)
	return s.where(ctx, cond, err)
}

// root compares the rows of the range, whatever chunks they are in.
func (s *side) root(ctx context.Context, t *task.Task) error {
	s.rows = pg.Ident(s.h.Name.Schema, s.h.Name.Name)
	cond, err := s.h.TaskCondition(s.db, t)
	return s.where(ctx, cond, err)
}

// where compares only the rows that satisfy a condition; err is why there is none.
func (s *side) where(ctx context.Context, cond string, err error) error {
	s.rows += " where " + cond
	if err == nil && slices.ContainsFunc(s.h.Dimensions, func(d tsdb.Dimension) bool { return !d.Func.IsZero() }) {
		// A partitioning function of the user's may rely on the search_path
		// that database and role set.
		_, err = s.db.Exec(ctx, "set local search_path to default")
	}
	return err
}

// remark adds to what the reader of a verdict should know.
func (s *side) remark(note string) {
	if s.note != "" {
		note = s.note + "; " + note
	}
	s.note = note
}

// leave ends the transaction.
func (s *side) leave(ctx context.Context) { s.db.Rollback(ctx) }

// utf8 reports whether the bytes of text are the same as on any other such
// server.
func (s *side) utf8() bool { return s.db.PgConn().ParameterStatus("server_encoding") == "UTF8" }
