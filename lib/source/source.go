// Package source takes one chunk out of the source: lock, snapshot, state, COPY
// into a stream. It never writes to the source.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Dumper dumps chunks over one connection.
type Dumper struct {
	db      *tsdb.DB
	w       *stream.Writer
	version string
}

// New returns a Dumper that writes to w. version is the tool's own, for the
// stream's headers.
func New(db *tsdb.DB, w *stream.Writer, version string) *Dumper {
	return &Dumper{db: db, w: w, version: version}
}

// ErrOutput wraps a failure to write the stream: whoever reads it is gone.
var ErrOutput = errors.New("write the stream")

// Result says what a dump wrote.
type Result struct {
	Rows, Bytes int64 // of the data, before compression
	Gone        bool  // the chunk no longer exists
}

// Dump writes the segment of one task: the chunk, or that it is gone. When the
// source fails in the middle, the segment ends in an abort that carries the
// message, so that the loader rolls back and goes on; the error is returned as
// well. After ErrOutput, or when the connection is lost, the Dumper is of no
// further use.
//
// One read-only transaction per chunk: see Enter.
func (d *Dumper) Dump(ctx context.Context, t *task.Task) (Result, error) {
	res, begun, err := d.dump(ctx, t)
	if err == nil || errors.Is(err, ErrOutput) {
		return res, err
	}
	err = d.db.Wrap(err, "chunk %s", t.Chunk)
	if !begun {
		if e := d.w.Begin(d.header(t, stream.StateChunk, nil)); e != nil {
			return res, output(e)
		}
	}
	if e := d.w.Abort(err.Error(), pg.Code(err)); e != nil {
		return res, output(e)
	}
	return res, err
}

func output(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrOutput, err)
}

func (d *Dumper) header(t *task.Task, state string, parts []stream.Part) *stream.Header {
	return &stream.Header{Task: *t, State: state, Parts: parts,
		Source: stream.Source{Postgres: d.db.Postgres, TimescaleDB: d.db.TimescaleDB, BF: d.version}}
}

// dump reports whether the segment's header was written.
func (d *Dumper) dump(ctx context.Context, t *task.Task) (res Result, begun bool, err error) {
	db := d.db
	defer func() {
		if db.InTx() {
			_, _ = db.Exec(context.WithoutCancel(ctx), "rollback")
		}
	}()
	c, h, err := Enter(ctx, db, t)
	if errors.Is(err, ErrGone) {
		if err := d.w.Begin(d.header(t, stream.StateGone, nil)); err != nil {
			return res, true, output(err)
		}
		return Result{Gone: true}, true, output(d.w.End())
	}
	if err != nil {
		return res, false, err
	}
	img, err := d.image(ctx, c, h, t)
	if err != nil {
		return res, false, err
	}
	sqls, parts, err := d.parts(ctx, c, h, t, img)
	if err != nil {
		return res, false, err
	}
	head := d.header(t, stream.StateChunk, parts)
	if head.Chunk, err = json.Marshal(img); err != nil {
		return res, false, err
	}
	if err := d.w.Begin(head); err != nil {
		return res, true, output(err)
	}
	if t.Range.Partial {
		// A partitioning function of the user's may rely on the search_path
		// that database and role set.
		if _, err := db.Exec(ctx, "set local search_path to default"); err != nil {
			return res, true, err
		}
	}
	for _, sql := range sqls {
		out := countWriter{w: d.w}
		n, err := db.CopyOut(ctx, &out, sql)
		if out.err != nil {
			return res, true, output(out.err)
		}
		if err != nil {
			return res, true, err
		}
		if err := d.w.EndPart(n); err != nil {
			return res, true, output(err)
		}
		res.Rows, res.Bytes = res.Rows+n, res.Bytes+out.n
	}
	// The trailer vouches for the whole: it comes after the server has agreed
	// that the transaction was good to the end.
	if _, err := db.Exec(ctx, "commit"); err != nil {
		return res, true, err
	}
	return res, true, output(d.w.End())
}

// ErrGone is returned by Enter when the chunk no longer exists: the record is of
// this database, so it was there when it was staged, and retention has dropped
// it since (or somebody has detached it: the hypertable has lost its rows in
// the same way).
var ErrGone = errors.New("dropped on the source since it was staged")

// replayed refuses a standby that lags behind the moment of staging: it would
// lack rows, or the chunk itself, which then looks dropped.
func replayed(ctx context.Context, db *tsdb.DB, t *task.Task) error {
	if !db.Standby || t.LSN == "" {
		return nil
	}
	var there bool
	// Where the next record would begin may be past the header of a page (40
	// bytes) that is not written yet; no commit is that short.
	if err := db.QueryRow(ctx, "select not pg_is_in_recovery() or pg_wal_lsn_diff(pg_last_wal_replay_lsn(), $1::text::pg_lsn) >= -40", t.LSN).Scan(&there); err != nil {
		return db.Wrap(err, "log position %q of %s", t.LSN, t)
	}
	if !there {
		return &pg.Error{Side: pg.Source, Object: t.String(), Err: fmt.Errorf("the standby has not replayed the log up to where the task was staged (%s)", t.LSN),
			Hint: "wait until it has caught up and run the task again, or read from the primary"}
	}
	return nil
}

// ErrSnapshot is in the error of Enter when the chunk cannot be read in the
// task's exported snapshot.
var ErrSnapshot = errors.New("cannot be read in the snapshot it was staged with")

// Enter opens a read-only transaction on the chunk of a task and returns the
// chunk and its hypertable, after checking that the record tells the truth
// about them. The caller ends the transaction, also after an error.
//
// The lock is the first statement: it takes no snapshot and keeps compression
// and drop_chunks away until the end, so that the snapshot, taken after it, and
// the catalog agree.
func Enter(ctx context.Context, db *tsdb.DB, t *task.Task) (*tsdb.Chunk, *tsdb.Hypertable, error) {
	fail := func(hint string, err error) error {
		return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(), Err: err, Hint: hint}
	}
	if t.Origin != "" && t.Origin != db.Origin {
		return nil, nil, &pg.Error{Side: pg.Source, Object: t.String(), Err: errors.New("was staged from another database than --source"),
			Hint: "check --source; when the source has moved to a new server: bf-clean --force, then run bf-stage again"}
	}
	if err := replayed(ctx, db, t); err != nil {
		return nil, nil, err
	}
	var b strings.Builder
	b.WriteString("begin isolation level repeatable read read only;")
	if t.Snapshot != "" {
		b.WriteString("set transaction snapshot " + pg.Literal(t.Snapshot) + ";")
	}
	b.WriteString("lock table only " + pg.Ident(t.Chunk.Schema, t.Chunk.Name) + " in access share mode")
	_, err := db.Exec(ctx, b.String())
	switch code := pg.Code(err); {
	case err == nil:
	case code == pg.UndefinedTable || code == "3F000":
		return nil, nil, gone(ctx, db, t)
	case t.Snapshot != "" && (code == pg.InvalidParameter || code == "42704"):
		return nil, nil, &pg.Error{Side: pg.Source, Object: "snapshot " + t.Snapshot, Err: fmt.Errorf("%w: %s", ErrSnapshot, pg.Describe(err)),
			Hint: "the session that exported it must stay open until all dumps are done; run bf-stage again with a new one"}
	default:
		return nil, nil, err
	}
	c, err := db.Chunk(ctx, t.Chunk)
	if err != nil {
		return nil, nil, err
	}
	if c == nil {
		return nil, nil, gone(ctx, db, t)
	}
	h, err := db.Hypertable(ctx, c.Hypertable)
	if err != nil {
		return nil, nil, err
	}
	if h == nil || h.Name != t.Hypertable {
		return nil, nil, fail("run bf-stage again", fmt.Errorf("does not belong to %s (renamed since it was staged?)", t.Hypertable))
	}
	if !c.SameSlices(t.Slices) {
		return nil, nil, fail("run bf-stage again", errors.New("covers another range than when it was staged (merged, split, or a dimension renamed)"))
	}
	if c.Rewritten {
		// Only with a shared snapshot: it is older than a compression or a
		// TRUNCATE, and would read nothing.
		return nil, nil, rewritten(t)
	}
	return c, h, nil
}

// gone says what has become of a chunk that is not there under its name. ErrGone
// is for one whose rows the hypertable has no more: one that was renamed or
// merged into another has them still, and calling it dropped would lose them.
// The catalog is asked as it is now: the task's snapshot may be older than the
// change, and an aborted transaction answers nothing.
func gone(ctx context.Context, db *tsdb.DB, t *task.Task) error {
	if _, err := db.Exec(ctx, "rollback"); err != nil {
		return err
	}
	heirs, err := db.Heirs(ctx, t)
	switch {
	case err != nil:
		return err
	case len(heirs) == 0:
		return ErrGone
	case t.Snapshot != "" && slices.ContainsFunc(heirs, func(c *tsdb.Chunk) bool { return c.Name == t.Chunk }):
		return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(), Err: fmt.Errorf("%w: made after it was taken", ErrSnapshot),
			Hint: "run bf-stage again with a new snapshot, or without one"}
	}
	return &pg.Error{Side: pg.Source, Object: "chunk " + t.Chunk.String(),
		Err: fmt.Errorf("is not a chunk any more, but its range is in %s: renamed, merged, split, or dropped and made again since it was staged", heirs[0].Name), Hint: "run bf-stage again, with the same range as before or a wider one"}
}

// parts describes the COPYs of a chunk and their data: its rows, or its
// compressed relation and the rows beside that. The compressed relation comes
// first: the target builds it without a lock that anybody could feel.
func (d *Dumper) parts(ctx context.Context, c *tsdb.Chunk, h *tsdb.Hypertable, t *task.Task, img *tsdb.Image) ([]string, []stream.Part, error) {
	sql, rows, err := d.rows(c, h, t, img.Relation == nil)
	if err != nil || img.Relation == nil {
		return []string{sql}, []stream.Part{rows}, err
	}
	raw, batches, err := d.batches(ctx, c, img.Relation)
	rows.Bytes = 0
	return []string{raw, sql}, []stream.Part{batches, rows}, err
}

// rows describes the COPY of the task's rows: all of them, of a compressed
// chunk decompressed by the server, or those outside of its compressed
// relation. ONLY matters on an uncompressed chunk: one compressed behind an
// older snapshot would give its rows twice or not at all.
func (d *Dumper) rows(c *tsdb.Chunk, h *tsdb.Hypertable, t *task.Task, all bool) (string, stream.Part, error) {
	part := stream.Part{Relation: stream.Rows, Format: stream.Binary, Bytes: c.Bytes}
	var names []string
	for _, col := range h.Copied() {
		names = append(names, col.Name)
		part.Columns = append(part.Columns, stream.Column{Name: col.Name, Type: col.Type})
		if !col.Binary {
			part.Format = stream.Text
		}
	}
	from := "only "
	if all && c.Status&tsdb.StatusCompressed != 0 {
		from = ""
	}
	where := ""
	switch {
	case !all && c.Hides():
		where = " where false" // beside its batches are only rows that no query shows
	case t.Range.Partial:
		cond, err := d.db.RangeCondition(h, t)
		if err != nil {
			return "", part, err
		}
		where = " where " + cond
	}
	return fmt.Sprintf("copy (select %s from %s%s%s) to stdout (format %s)",
		pg.Idents(names), from, pg.Ident(c.Name.Schema, c.Name.Name), where, part.Format), part, nil
}

// countWriter counts, and remembers why writing failed.
type countWriter struct {
	w   *stream.Writer
	n   int64
	err error
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.err = err
	return n, err
}
