// Package target puts one chunk into the target.
//
// A Loader is a lane: a session and what the lane has tried and need not try again.
// For each task it makes a load, the one value that all steps share: the task, the
// hypertable, the source chunk's image, the stream and the part of it that is being
// read, and the target's chunk as it was last read.
//
//		open ─► gather ─► decide ─┬─► make chunks, decompress or compress the chunk ─► gather …
//		                          ├─► ask for rows
//		                          └─► write: prepare ─► begin, claim ─► copy ─► check the trailer
//		                                     ─► finish ─► freeze, complete, commit ─► analyze
//
//	  - gather (facts.go) asks the server and changes nothing; what only a try can tell
//	    is tried in a transaction that is rolled back.
//	  - decide (decide.go) is a pure function from facts to the method, and the only
//	    place that chooses one. What is in the way is an obstacle: what it is, and what
//	    removes it.
//	  - A preparation is a short transaction that changes the facts: they are gathered
//	    again. So they are when the chunk turns out to be in another state once it is
//	    locked.
//	  - write (load.go) is the same for all methods. A method is a writer: copy takes
//	    the data in under locks that do not block the application; finish, after the trailer has
//	    proven that all of it came, takes those that do, for milliseconds.
//
// The methods:
//
//	the stream brings   the target                                    method
//	a compressed        can have it as the chunk's                    raw, fresh (batches.go)
//	relation            role may not create it, the server's is alike raw, existing
//	                    neither                                       ask for rows
//	rows                has no chunk there, and a table can be it     table (table.go)
//	                    can have no such chunk, or a compressed one
//	                    of which the range covers a part, or whose
//	                    rows others reference                         rows through the hypertable
//	                    has or gets a chunk that is not compressed,
//	                    nor is it on the source                       rows into the chunk (rows.go)
//	                    has to compress them: apart, in a scratch
//	                    hypertable, or, where triggers have to see
//	                    them, after they came into the chunk          rows, fresh or existing;
//	                                                                  rows, then compressed
//	                                                                  (recompress.go)
//
// Behind them: relation.go makes a compressed relation the chunk's, emptier.go makes
// room for it, aggregates.go has continuous aggregates learn of it, and unlog.go has
// them forget what they hold already; clear.go, merge.go
// and hidden.go replace rows; chunkmaker.go makes chunks; mark.go and skipping.go do in
// short transactions what would hold up the application until the commit; session.go
// has transactions, waits and the user's settings.
package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Loader loads chunks over one connection, one after the other.
type Loader struct {
	session *session
	force   bool
	known   known

	// Stop is closed when the lane is asked to stop: then it does not wait for
	// locks any longer, and Load fails with ErrStopped. nil for never.
	Stop <-chan struct{}
}

// known is what a lane has tried, in transactions that were rolled back, and need
// not try for each chunk again.
type known struct {
	attached   kind        // the last relation that could be attached
	altering   kind        // the last one for which the hypertable's settings had to be altered
	compressed compression // what the rows of the last hypertable are compressed to
	making     string      // the version of the last hypertable that chunks could be made of

	// What need not be asked again while the hypertable is of the same version.
	last    *tsdb.Hypertable
	keyless string // the version of the last one without foreign keys
	columns columns
}

// columns are those of a hypertable, as a compressed relation of it is compared with them.
type columns struct {
	version  string
	all      []tsdb.RelationColumn
	encoding string
}

// New returns a Loader. force loads tasks again that are done.
func New(db *tsdb.DB, force bool) *Loader { return &Loader{session: &session{DB: db}, force: force} }

// Load reads the segment that h opens from r and commits its chunk. The result
// says what became of the task; the error, where there is one, why it failed:
// then everything is rolled back, and the message is left on the task. The
// stream is left somewhere in the segment; r.Next goes on with the following
// one.
func (l *Loader) Load(ctx context.Context, r *stream.Reader, h *stream.Header) (*task.Result, error) {
	start := time.Now()
	t, conn := &h.Task, l.session.Conn
	res := t.Result()
	ld := &load{session: l.session, lane: l, reader: r, header: h, task: t, result: res}
	l.session.stop = l.Stop
	err := ld.run(ctx)
	res.Seconds = time.Since(start).Seconds()
	switch {
	case err == nil:
		return res, nil
	case errors.Is(err, queue.ErrDone):
		res.Status, res.Message = task.Skipped, "done already"
		return res, nil
	case errors.Is(err, queue.ErrBusy):
		res.Status, res.Message = task.Skipped, queue.ErrBusy.Error()
		_ = queue.PassOver(context.WithoutCancel(ctx), conn, t.Task)
		return res, &pg.Error{Side: pg.Target, Object: t.String(), Err: err,
			Hint: "if no bf-load runs, one was killed a moment ago: the server is still rolling back"}
	case errors.Is(err, ErrStopped):
		res.Status, res.Message = task.Skipped, ErrStopped.Error()
		return res, l.failure(t, err)
	}
	res.Status, res.Rows, res.Bytes, res.Hidden = task.Failed, 0, 0, 0
	res.LeftUncompressed = ""
	err = l.failure(t, ld.place(err))
	res.Message = err.Error()
	// Best effort: on a lost connection there is nobody to tell.
	var refused *queue.Refusal
	var rows *rowsNeeded
	switch {
	case errors.As(err, &refused):
		_ = queue.PassOver(context.WithoutCancel(ctx), conn, t.Task)
	case errors.As(err, &rows):
		_ = queue.FailRows(context.WithoutCancel(ctx), conn, t.Task, res.Message, rows.why)
	default:
		_ = queue.Fail(context.WithoutCancel(ctx), conn, t.Task, res.Message)
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
	return l.session.Wrap(err, "%s", t)
}

// rowsNeeded is compressed data that this target cannot take. It is left on the
// task, so that the next dump sends rows.
type rowsNeeded struct{ why string }

func (e *rowsNeeded) Error() string {
	return "the compressed data cannot be taken as it is: " + e.why
}

func byRows(t *task.Task, why string) error {
	return &pg.Error{Side: pg.Target, Object: t.String(), Err: &rowsNeeded{why},
		Hint: "run the same again: the chunk will travel as rows"}
}
