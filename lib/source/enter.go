package source

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// ErrGone is returned by Enter when the chunk no longer exists: the record is of
// this database, so the chunk was there when it was staged, and retention has
// dropped it since (or it was detached, which takes its rows out of the
// hypertable as well).
var ErrGone = errors.New("dropped on the source since it was staged")

// replayed refuses a standby that lags behind the moment of staging: it would
// lack rows, or the chunk itself, which then looks dropped.
func replayed(ctx context.Context, db *tsdb.DB, t *task.Task) error {
	if !db.Standby || t.LSN == "" {
		return nil
	}
	var there bool
	// The position may be behind the header of a WAL page (40 bytes) that is not
	// written yet; no commit record is that short.
	err := db.QueryRow(ctx, `select not pg_is_in_recovery()
            or pg_wal_lsn_diff(pg_last_wal_replay_lsn(), $1::text::pg_lsn) >= -40`, t.LSN).Scan(&there)
	if err != nil {
		return db.Wrap(err, "log position %q of %s", t.LSN, t)
	}
	if !there {
		return &pg.Error{Side: pg.Source, Object: t.String(),
			Err:  fmt.Errorf("the standby has not replayed the log up to where the task was staged (%s)", t.LSN),
			Hint: "wait until it has caught up and run the task again, or read from the primary"}
	}
	return nil
}

// ErrSnapshot is in the error of Enter when the chunk cannot be read in the
// task's exported snapshot.
var ErrSnapshot = errors.New("cannot be read in the snapshot it was staged with")

// Opened is what a task reads, in an open transaction.
type Opened struct {
	Hypertable *tsdb.Hypertable // of a slice the relation
	Chunk      *tsdb.Chunk      // nil for a slice
	branches   []string         // of a slice: where its rows are
}

// Enter opens a read-only transaction on what a task reads, after checking that the
// record tells the truth about it. The caller ends the transaction, also after an error.
//
// The lock is the first statement: it takes no snapshot and keeps compression
// and drop_chunks away until the end, so that the snapshot, taken after it, and
// the catalog agree.
func Enter(ctx context.Context, db *tsdb.DB, t *task.Task) (*Opened, error) {
	if t.Kind != task.KindChunk && t.Kind != task.KindSlice {
		return nil, &pg.Error{Side: pg.Source, Object: t.String(),
			Err:  fmt.Errorf("a database cannot be read by kind %q", t.Kind),
			Hint: "give --source as it was given to bf-stage"}
	}
	if t.Origin != "" && t.Origin != db.Origin {
		return nil, &pg.Error{Side: pg.Source, Object: t.String(),
			Err: errors.New("was staged from another database than --source"),
			Hint: "check --source; when the source has moved to a new server: " +
				"bf-clean --force, then run bf-stage again"}
	}
	if err := replayed(ctx, db, t); err != nil {
		return nil, err
	}
	if t.Kind == task.KindSlice {
		return enterSlice(ctx, db, t)
	}
	return enterChunk(ctx, db, t)
}

func enterChunk(ctx context.Context, db *tsdb.DB, t *task.Task) (*Opened, error) {
	if db.Plain() {
		return nil, &pg.Error{Side: pg.Source, Object: t.String(), Err: tsdb.ErrNoExtension,
			Hint: "check --source; its chunks are read through the extension"}
	}
	err := beginIn(ctx, db, t, "lock table only "+pg.Ident(t.Chunk.Schema, t.Chunk.Name)+" in access share mode")
	if code := pg.Code(err); code == pg.UndefinedTable || code == pg.UndefinedSchema {
		return nil, gone(ctx, db, t)
	}
	if err != nil {
		return nil, err
	}
	c, h, err := tsdb.WithHypertable(ctx, db, t.Chunk)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, gone(ctx, db, t)
	}
	if err := staged(c, h, t); err != nil {
		return nil, err
	}
	return &Opened{Hypertable: h, Chunk: c}, nil
}

// Begin opens a read-only transaction, in the task's snapshot if it has one.
func Begin(ctx context.Context, db *tsdb.DB, t *task.Task) error { return beginIn(ctx, db, t, "") }

// beginIn opens the transaction, in the task's snapshot if it has one, and runs the
// statements that lock what it reads.
func beginIn(ctx context.Context, db *tsdb.DB, t *task.Task, lock string) error {
	sql := "begin isolation level repeatable read read only;"
	if t.Snapshot != "" {
		sql += "set transaction snapshot " + pg.Literal(t.Snapshot) + ";"
	}
	_, err := db.Exec(ctx, sql+lock)
	switch code := pg.Code(err); {
	case err == nil:
		return nil
	case t.Snapshot != "" && (code == pg.InvalidParameter || code == pg.UndefinedObject):
		return &pg.Error{Side: pg.Source, Object: "snapshot " + t.Snapshot,
			Err: fmt.Errorf("%w: %s", ErrSnapshot, pg.Describe(err)),
			Hint: "the session that exported it must stay open until all dumps are done; " +
				"run bf-stage again with a new one"}
	}
	return err
}

// staged refuses a chunk that is no longer what the task says; h is nil if its
// hypertable is gone.
func staged(c *tsdb.Chunk, h *tsdb.Hypertable, t *task.Task) error {
	var err error
	switch {
	case h == nil || h.Name != t.Hypertable:
		err = fmt.Errorf("does not belong to %s (renamed since it was staged?)", t.Hypertable)
	case !c.SameSlices(t.Slices):
		err = errors.New("covers another range than when it was staged (merged, split, or a dimension renamed)")
	case c.Rewritten:
		// Only with a shared snapshot: it is older than a compression or a
		// TRUNCATE, and would read nothing.
		return rewritten(t)
	default:
		return nil
	}
	return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(), Err: err, Hint: "run bf-stage again"}
}

// gone says what has become of a chunk that is not there under its name. ErrGone
// is for one whose rows are no longer in the hypertable. Those of a chunk that was
// renamed, or merged into another, still are: calling it dropped would lose them.
// The catalog is asked as it is now: the task's snapshot may be older than the
// change, and an aborted transaction answers nothing.
func gone(ctx context.Context, db *tsdb.DB, t *task.Task) error {
	if _, err := db.Exec(ctx, "rollback"); err != nil {
		return err
	}
	heirs, err := tsdb.Heirs(ctx, db, t)
	switch {
	case err != nil:
		return err
	case len(heirs) == 0:
		return ErrGone
	case t.Snapshot != "" && slices.ContainsFunc(heirs, func(c *tsdb.Chunk) bool { return c.Name == t.Chunk }):
		return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(),
			Err:  fmt.Errorf("%w: made after it was taken", ErrSnapshot),
			Hint: "run bf-stage again with a new snapshot, or without one"}
	}
	return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(),
		Err: fmt.Errorf("is not a chunk any more, but its range is in %s: "+
			"renamed, merged, split, or dropped and made again "+
			"since it was staged", heirs[0].Name),
		Hint: "run bf-stage again, with the same range as before or a wider one"}
}

// rewritten is a chunk that a shared snapshot no longer shows as it is.
func rewritten(t *task.Task) error {
	return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(),
		Err:  fmt.Errorf("%w: rewritten (compressed, decompressed, truncated) after it was taken", ErrSnapshot),
		Hint: "pause compression on the source and run bf-stage again with a new snapshot, or without one"}
}
