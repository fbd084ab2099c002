// Package target puts one chunk into the target: find or make the place, choose
// the way, clear, copy, complete — in one transaction per chunk.
package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// Loader loads chunks over one connection.
type Loader struct {
	db    *tsdb.DB
	force bool
}

// New returns a Loader. force loads tasks again that are done.
func New(db *tsdb.DB, force bool) *Loader { return &Loader{db: db, force: force} }

// Load reads the segment that h opens from r and commits its chunk. The result
// says what became of the task; the error, where there is one, why it failed:
// then everything is rolled back, and the message is left on the task. The
// stream is left somewhere in the segment; r.Next goes on with the following
// one.
func (l *Loader) Load(ctx context.Context, r *stream.Reader, h *stream.Header) (*task.Result, error) {
	start := time.Now()
	t := &h.Task
	res := &task.Result{V: task.Version, Task: t.Task, Hypertable: t.Target(), Chunk: t.Chunk}
	err := l.load(ctx, r, h, res)
	res.Seconds = time.Since(start).Seconds()
	switch {
	case err == nil:
		return res, nil
	case errors.Is(err, queue.ErrDone):
		res.Status, res.Message = task.Skipped, "done already"
		return res, nil
	case errors.Is(err, queue.ErrBusy):
		res.Status, res.Message = task.Skipped, queue.ErrBusy.Error()
		_ = queue.PassOver(context.WithoutCancel(ctx), l.db.Conn, t.Task)
		return res, &pg.Error{Side: pg.Target, Object: t.String(), Err: err, Hint: "if no bf-load runs, one was killed a moment ago: the server is still rolling back"}
	}
	res.Status, res.Rows, res.Bytes = task.Failed, 0, 0
	err = l.db.Wrap(sourceError(t, err), "%s", t)
	res.Message = err.Error()
	// Best effort: on a lost connection there is nobody to tell.
	if refused := (*queue.Refusal)(nil); errors.As(err, &refused) {
		_ = queue.PassOver(context.WithoutCancel(ctx), l.db.Conn, t.Task)
	} else {
		_ = queue.Fail(context.WithoutCancel(ctx), l.db.Conn, t.Task, res.Message)
	}
	return res, err
}

// sourceError gives an abort of the dump the face of an error of the source.
func sourceError(t *task.Task, err error) error {
	var abort *stream.AbortError
	if errors.As(err, &abort) {
		return fmt.Errorf("%s: %w", t, abort)
	}
	if errors.Is(err, stream.ErrCorrupt) || errors.Is(err, stream.ErrNoEnd) {
		return fmt.Errorf("%s: rolled back: %w", t, err)
	}
	return err
}

func (l *Loader) load(ctx context.Context, r *stream.Reader, h *stream.Header, res *task.Result) error {
	staged, err := queue.Staged(ctx, l.db.Conn, &h.Task)
	if err != nil {
		return err
	}
	t := &staged.Task
	if staged.Worked != "" && !l.force {
		return queue.ErrDone
	}
	if h.State == stream.StateGone {
		return l.gone(ctx, r, t, res)
	}
	ht, err := l.db.HypertableFor(ctx, t.Hypertable, t.View)
	if err != nil {
		return err
	}
	if ht == nil {
		return &pg.Error{Side: pg.Target, Object: t.Target().String(), Err: errors.New("is not there any more"), Hint: "create it as on the source and run bf-stage again"}
	}
	if err := l.fits(ht, h); err != nil {
		return err
	}
	part, err := r.NextPart()
	if err != nil {
		return err
	}
	data := newPart(r)
	place, err := l.place(ctx, ht, t, part, data)
	if err != nil {
		return err
	}
	return l.copy(ctx, r, ht, t, part, data, place, res)
}

// gone completes a task whose chunk the source has dropped.
func (l *Loader) gone(ctx context.Context, r *stream.Reader, t *task.Task, res *task.Result) error {
	if _, err := r.NextPart(); err != io.EOF { // the trailer proves it
		return cmpErr(err, errors.New("data of a chunk that is gone"))
	}
	res.Status, res.Message = task.Gone, "gone: the chunk was dropped on the source before it was copied"
	return l.inTx(ctx, t, func(tx pgx.Tx) error {
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
}

// inTx claims the task and runs f in the transaction that completes it. READ
// COMMITTED (the session's default): rows that the application commits in the
// meantime have to be seen.
func (l *Loader) inTx(ctx context.Context, t *task.Task, f func(tx pgx.Tx) error) error {
	tx, err := l.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := queue.Claim(ctx, l.db.Conn, tx, t, l.force); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// fits refuses, before anything is touched, data that the target's table
// cannot take.
func (l *Loader) fits(ht *tsdb.Hypertable, h *stream.Header) error {
	refuse := func(format string, args ...any) error {
		return &pg.Error{Side: pg.Target, Object: ht.Label().String(), Err: fmt.Errorf(format, args...), Hint: "make the columns as on the source and run bf-stage again"}
	}
	mine := map[string]tsdb.Column{}
	for _, c := range ht.Columns {
		mine[c.Name] = c
	}
	for _, p := range h.Parts {
		if p.Relation != stream.Rows {
			continue
		}
		for _, c := range p.Columns {
			m, ok := mine[c.Name]
			delete(mine, c.Name) // twice the same column is one too many
			switch {
			case !ok:
				return refuse("has no column %q", c.Name)
			case m.Generated:
				return refuse("column %q is generated here", c.Name)
			case m.Type != c.Type:
				return refuse("column %q has type %s, the stream brings %s", c.Name, m.Type, c.Type)
			}
		}
	}
	return nil
}

// copy replaces what the target holds in the task's range by the data of the
// stream, in one transaction that also completes the task.
func (l *Loader) copy(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data *partReader, p *place, res *task.Result) error {
	columns := make([]string, len(part.Columns))
	for i, c := range part.Columns {
		columns[i] = c.Name
	}
	return l.inTx(ctx, t, func(tx pgx.Tx) error {
		relation, err := l.clear(ctx, tx, ht, t, p)
		if err != nil {
			return err
		}
		stored, err := l.db.CopyIn(ctx, data, fmt.Sprintf("copy %s (%s) from stdin (format %s)", relation, pg.Idents(columns), part.Format))
		if err != nil {
			return l.db.Wrap(err, "copy into %s", relation)
		}
		sent, bytes := r.Part()
		if stored != sent {
			return &pg.Error{Side: pg.Target, Object: relation, Err: fmt.Errorf("stored %d of %d rows", stored, sent), Hint: "does a trigger drop rows?"}
		}
		if _, err := r.NextPart(); err != io.EOF {
			return cmpErr(err, errors.New("a second part where none was announced"))
		}
		if p.chunk != nil && stored > 0 {
			// Statistics as a native chunk would have them after its first
			// autoanalyze, before anybody queries it.
			l.analyze(ctx, tx, relation)
		}
		if _, err := tx.Exec(ctx, "set local search_path = pg_catalog, pg_temp"); err != nil {
			return err
		}
		res.Status, res.Rows, res.Bytes, res.Way, res.WhyNotRaw = task.Loaded, stored, bytes, p.way, p.why
		return queue.Complete(ctx, l.db.Conn, tx, res)
	})
}

// analyze does without: an expression index whose function relies on a
// search_path makes ANALYZE fail from PostgreSQL 17 on, natively too.
func (l *Loader) analyze(ctx context.Context, tx pgx.Tx, relation string) {
	if _, err := tx.Exec(ctx, "savepoint statistics; analyze "+relation+"; release statistics"); err != nil {
		_, _ = tx.Exec(ctx, "rollback to statistics")
	}
}

// userPath gives the transaction the search_path that database and role set:
// functions of the user (of triggers, constraints, expression indexes, of a
// dimension) may rely on it.
func (l *Loader) userPath(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "set local search_path to default")
	return l.db.Wrap(err, "search_path")
}

// clear removes the target's rows of the task's range and returns the relation
// to copy into, with userPath set. Rows outside of the range are not touched.
//
// DELETE, not TRUNCATE: it locks nobody out, and where continuous aggregates
// exist it logs the invalidation that makes later refreshes right. No lock
// stronger than a writer's is held during the COPY: the application goes on
// writing to the chunk.
func (l *Loader) clear(ctx context.Context, tx pgx.Tx, ht *tsdb.Hypertable, t *task.Task, p *place) (relation string, err error) {
	if p.chunk == nil {
		relation = pg.Ident(ht.Name.Schema, ht.Name.Name)
		cond, err := l.db.TaskCondition(ht, t)
		if err != nil {
			return "", err
		}
		if err := l.userPath(ctx, tx); err != nil {
			return "", err
		}
		_, err = tx.Exec(ctx, "delete from "+relation+" where "+cond)
		return relation, l.db.Wrap(err, "clear %s", ht.Name)
	}
	name := p.chunk.Name
	relation = pg.Ident(name.Schema, name.Name)
	// A writer's lock, so that the chunk cannot be compressed or dropped under
	// us; only then is its state worth looking at.
	if _, err := tx.Exec(ctx, "lock table only "+relation+" in row exclusive mode"); err != nil {
		return "", l.db.Wrap(err, "chunk %s", name)
	}
	c, err := l.db.Chunk(ctx, name)
	if err != nil {
		return "", err
	}
	if c == nil || !c.SameSlices(t.Slices) {
		return "", &pg.Error{Side: pg.Target, Object: "chunk " + name.String(), Err: errors.New("changed while it was being loaded"), Hint: "run the task again"}
	}
	if c.Status != 0 {
		return "", &pg.Error{Side: pg.Target, Object: "chunk " + name.String(), Err: errors.New("is compressed or frozen"), Hint: "decompress or unfreeze it and run the task again"}
	}
	where := ""
	if t.Range.Partial {
		cond, err := l.db.RangeCondition(ht, t)
		if err != nil {
			return "", err
		}
		where = " where " + cond
	}
	if err := l.userPath(ctx, tx); err != nil {
		return "", err
	}
	_, err = tx.Exec(ctx, "delete from only "+relation+where)
	return relation, l.db.Wrap(err, "clear chunk %s", name)
}

// cmpErr returns err, or instead where there is none.
func cmpErr(err, instead error) error {
	if err == nil {
		return instead
	}
	return err
}
