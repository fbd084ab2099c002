// Package source takes one chunk out of the source: lock, snapshot, state, COPY
// into a stream. It never writes to the source.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
	err = d.db.Wrap(err, "%s", t.What())
	return res, abort(d.w, begun, d.header(t, stream.StateChunk, nil), err)
}

// abort ends a segment, or one that has only this header yet, in the reason why it
// cannot be whole, and returns that.
func abort(w *stream.Writer, begun bool, head *stream.Header, err error) error {
	if !begun {
		if e := w.Begin(head); e != nil {
			return output(e)
		}
	}
	if e := w.Abort(err.Error(), pg.Code(err)); e != nil {
		return output(e)
	}
	return err
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

// dump writes the segment; begun reports whether its header was written.
func (d *Dumper) dump(ctx context.Context, t *task.Task) (res Result, begun bool, err error) {
	defer d.db.Rollback(ctx)
	in, err := Enter(ctx, d.db, t)
	if errors.Is(err, ErrGone) {
		if err := d.w.Begin(d.header(t, stream.StateGone, nil)); err != nil {
			return res, true, output(err)
		}
		return Result{Gone: true}, true, output(d.w.End())
	}
	if err != nil {
		return res, false, err
	}
	img, copies, err := d.open(ctx, in, t)
	if err != nil {
		return res, false, err
	}
	var parts []stream.Part
	for _, out := range copies {
		parts = append(parts, out.part)
	}
	head := d.header(t, stream.StateChunk, parts)
	if head.Chunk, err = json.Marshal(img); err != nil {
		return res, false, err
	}
	if err := d.w.Begin(head); err != nil {
		return res, true, output(err)
	}
	res, err = d.data(ctx, t, copies)
	return res, true, err
}

// open says in what state the rows of a task are, and how they are copied.
func (d *Dumper) open(ctx context.Context, in *Opened, t *task.Task) (img *tsdb.Image, copies []copyOut, err error) {
	if in.Chunk == nil {
		// A target compresses rows that are compressed here: see package target.
		return &tsdb.Image{Compressed: t.Scan.Columnstore}, []copyOut{copySlice(in, t)}, nil
	}
	if img, err = d.image(ctx, in.Chunk, in.Hypertable, t); err == nil {
		err = d.aggregates(ctx, in, t, img)
	}
	if err == nil {
		copies, err = d.copies(in, t, img.Relation)
	}
	return img, copies, err
}

// data writes the data of all parts, and the end of the segment.
func (d *Dumper) data(ctx context.Context, t *task.Task, copies []copyOut) (res Result, err error) {
	if t.Range.Partial && t.Kind == task.KindChunk {
		// A partitioning function of the user's may rely on the search_path
		// that database and role set.
		if _, err := d.db.Exec(ctx, "set local search_path to default"); err != nil {
			return res, err
		}
	}
	for _, c := range copies {
		out := countWriter{w: d.w}
		n, err := d.db.CopyOut(ctx, &out, c.sql)
		if out.err != nil {
			return res, output(out.err)
		}
		if err != nil {
			return res, err
		}
		if err := d.w.EndPart(n); err != nil {
			return res, output(err)
		}
		res.Rows, res.Bytes = res.Rows+n, res.Bytes+out.n
	}
	if err := counted(t, res.Rows); err != nil {
		return res, err
	}
	// The trailer vouches for the whole: it comes after the server has agreed
	// that the transaction was good to the end.
	if _, err := d.db.Exec(ctx, "commit"); err != nil {
		return res, err
	}
	return res, output(d.w.End())
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
