// Package target puts one chunk into the target: find or make the place, choose
// the way, clear, copy, complete — in one transaction per chunk.
package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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
	db        *tsdb.DB
	force     bool
	rehearsed string // what a compressed relation was like that is known to fit

	tried *trial // whether the hypertable's rows can be compressed apart

	lockTimeout string // of the session, once known: see ownLockTimeout
	inBrief     bool   // locks are held that others want: see brief
	alters      string // the kind of relation for which the settings have to be altered

	// Stop is closed when the lane is asked to stop: then it does not wait for
	// locks any longer, and Load fails with ErrStopped. nil for never.
	Stop <-chan struct{}
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
	case errors.Is(err, ErrStopped):
		res.Status, res.Message = task.Skipped, ErrStopped.Error()
		return res, l.failure(t, err)
	}
	res.Status, res.Rows, res.Bytes, res.Hidden = task.Failed, 0, 0, 0
	err = l.failure(t, err)
	res.Message = err.Error()
	// Best effort: on a lost connection there is nobody to tell.
	var refused *queue.Refusal
	var rows *rowsNeeded
	switch {
	case errors.As(err, &refused):
		_ = queue.PassOver(context.WithoutCancel(ctx), l.db.Conn, t.Task)
	case errors.As(err, &rows):
		_ = queue.FailRows(context.WithoutCancel(ctx), l.db.Conn, t.Task, res.Message, rows.why)
	default:
		_ = queue.Fail(context.WithoutCancel(ctx), l.db.Conn, t.Task, res.Message)
	}
	return res, err
}

// failure says whose an error is: the dump's, the stream's or the target's.
func (l *Loader) failure(t *task.Task, err error) error {
	var abort *stream.AbortError
	switch {
	case errors.As(err, &abort):
		return fmt.Errorf("%s: %w", t, abort)
	case errors.Is(err, stream.ErrCorrupt) || errors.Is(err, stream.ErrNoEnd):
		return fmt.Errorf("%s: rolled back: %w", t, err)
	}
	return l.db.Wrap(err, "%s", t)
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
	if len(h.Parts) == 0 { // the dump failed before it had any data
		_, err := r.NextPart()
		return cmpErr(err, errors.New("no data"))
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
	img, err := image(h)
	if err != nil {
		return &pg.Error{Side: pg.Target, Object: t.String(), Err: &queue.Refusal{Err: err}, Hint: "was the stream written by another version of bf-dump?"}
	}
	res.Hidden, res.Message = img.Hidden, notCopied(h, img)
	if err := l.unbound(ctx, ht, t); err != nil {
		return err
	}
	s := situation{raw: len(h.Parts) == 2, compressed: img.Compressed, partial: t.Range.Partial, whyRows: img.WhyRows, compression: ht.CompressionEnabled && l.db.Full}
	var rel *relation
	if s.raw {
		if rel, s.unfit, err = l.fit(ctx, ht, h, img); err != nil {
			return &pg.Error{Side: pg.Target, Object: t.String(), Err: &queue.Refusal{Err: err}}
		}
	}
	var part *stream.Part
	if s.unfit == "" {
		if part, err = r.NextPart(); err != nil {
			return err
		}
	}
	data := newPart(r)
	if s.raw {
		var chunk *tsdb.Chunk
		if s.unfit == "" {
			if chunk, err = l.settle(ctx, ht, t, rel, &s); err != nil {
				return err
			}
		}
		way, why := choose(s)
		if way == refuse {
			return byRows(t, why)
		}
		return l.copyRaw(ctx, r, ht, t, chunk, data, img, rel, way, res)
	}
	for tries := 0; ; tries++ {
		err := l.loadRows(ctx, r, ht, t, part, data, img, s, res)
		if err != errStirred {
			return err
		}
		if tries == 3 {
			return &pg.Error{Side: pg.Target, Object: t.String(), Err: err, Hint: "run the task again"}
		}
	}
}

// loadRows loads a chunk that comes by its rows.
func (l *Loader) loadRows(ctx context.Context, r *stream.Reader, ht *tsdb.Hypertable, t *task.Task, part *stream.Part, data *partReader, img *tsdb.Image, s situation, res *task.Result) error {
	if !img.Compressed && !img.Frozen {
		table, err := l.becomesChunk(ctx, ht, t, part)
		if err != nil {
			return err
		}
		if table != nil {
			return l.copyTable(ctx, r, ht, t, part, data, table, res)
		}
	}
	p, err := l.place(ctx, ht, t, part, data)
	if err != nil {
		return err
	}
	s.noChunk = p.loose
	if s.chunk, s.whyRoot = p.chunk != nil, p.why; s.chunk && s.compression {
		if s.squeezed, err = l.loosen(ctx, ht, p.chunk); err != nil {
			return err
		}
	}
	if s.referenced, err = l.db.Referenced(ctx, ht); err != nil {
		return err
	}
	if s.chunk && s.compression && (s.compressed || s.squeezed) && !s.partial && s.referenced == nil {
		if err := l.apart(ctx, ht, t, p.chunk, &s); err != nil {
			return err
		}
		if way, why := choose(s); way == rowsFresh || way == rowsExisting {
			return l.copyApart(ctx, r, ht, t, p.chunk, part, data, img, way, why, res)
		}
	}
	if !s.chunk || s.squeezed {
		hides, err := l.hides(ctx, ht, t)
		if err == nil && !hides {
			if err = l.cut(ctx, ht, t); err == nil {
				err = l.admit(ctx, ht, t)
			}
		}
		if err != nil {
			return err
		}
	}
	return l.copyRows(ctx, r, ht, t, part, data, p, img, s, res)
}

// rowsNeeded is compressed data that this target cannot take. It is left on the
// task, so that the next dump sends rows.
type rowsNeeded struct{ why string }

func byRows(t *task.Task, why string) error {
	return &pg.Error{Side: pg.Target, Object: t.String(), Err: &rowsNeeded{why}, Hint: "run the same again: the chunk will travel as rows"}
}

func (e *rowsNeeded) Error() string {
	return "the compressed data cannot be taken as it is: " + e.why
}

// image reads the state of the source chunk from the header and checks that
// the parts are what it announces.
func image(h *stream.Header) (*tsdb.Image, error) {
	img := &tsdb.Image{}
	if len(h.Chunk) > 0 {
		if err := json.Unmarshal(h.Chunk, img); err != nil {
			return nil, fmt.Errorf("state of the source chunk: %w", err)
		}
	}
	var have []string
	for _, p := range h.Parts {
		have = append(have, p.Relation)
	}
	want := []string{stream.Rows}
	if img.Relation != nil {
		want = []string{stream.Compressed, stream.Rows}
	}
	if !slices.Equal(have, want) {
		return nil, fmt.Errorf("the stream brings %v, its header announces %v", have, want)
	}
	return img, nil
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
	mine := map[string]pg.Column{}
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

// cmpErr returns err, or instead where there is none.
func cmpErr(err, instead error) error {
	if err == nil {
		return instead
	}
	return err
}
