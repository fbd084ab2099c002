package lane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/source"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// dumping is a lane's dumping of chunk after chunk, over one connection.
type dumping struct {
	*cli.Env
	source string
	w      *stream.Writer
	early  *early     // nil of CSV
	db     *tsdb.DB   // nil before the first task, and of CSV
	text   source.CSV // nil of a database
	dumper dumper
	failed bool
}

// dumper writes the segment of a task.
type dumper interface {
	Dump(context.Context, *task.Task) (source.Result, error)
}

// record is what the records have next: a task, or their end as io.EOF.
type record struct {
	t   *task.Task
	err error
}

// Dump writes the chunks that records name as a stream, until the records end, the
// reader of the stream goes away or a stop is requested. from is a --source.
func Dump(e *cli.Env, from string, codec stream.Compression, records *task.Reader) error {
	l := &dumping{Env: e, source: from, w: stream.NewWriter(e.Stdout, codec)}
	if !source.IsCSV(from) {
		l.early = connectEarly(e, pg.Source, from, e.Options())
	}
	defer l.close()
	return l.run(records, cli.ReaderGone(e.Stdout))
}

func (l *dumping) run(records *task.Reader, gone <-chan struct{}) error {
	for {
		r, ok := cli.Await(l.Stop, gone, func() record { t, err := records.Next(); return record{t, err} })
		var bad *task.BadRecord
		switch {
		case !ok && !l.Stop.Asked():
			return errors.New("the reader of the stream is gone")
		case !ok:
			return l.end(true, cli.Exit(cli.Stopped))
		case r.err == io.EOF && l.failed:
			return l.end(true, cli.Exit(cli.Failed))
		case r.err == io.EOF:
			return l.end(false, nil)
		case errors.As(r.err, &bad):
			l.Log.Error(r.err)
			l.failed = true
			continue
		case r.err != nil:
			return l.end(true, fmt.Errorf("read task records: %w", r.err))
		}
		if err := l.open(); err != nil {
			return l.end(true, err)
		}
		if err := l.dump(r.t); err != nil {
			return err
		}
	}
}

// end ends the stream and returns the error that the command ends with. It prints
// err first, because a failure to write the stream replaces it.
func (l *dumping) end(stopped bool, err error) error {
	var exit cli.Exit
	if err != nil && !errors.As(err, &exit) {
		l.Log.Error(err)
		err = cli.Exit(cli.Failed)
	}
	if err := l.w.Close(stopped); err != nil {
		return fmt.Errorf("write the stream: %w", err)
	}
	return err
}

// open opens the source, when the first task is there.
func (l *dumping) open() (err error) {
	if l.dumper != nil {
		return nil
	}
	if l.text, err = source.OpenCSV(l.source, l.Stderr); err != nil {
		return err
	}
	if l.text != nil {
		l.dumper = source.NewCSV(l.text, l.w, cli.Version())
		return nil
	}
	if l.db, err = l.early.use(l.Stop.Context); err == nil {
		l.dumper = source.New(l.db, l.w, cli.Version())
	}
	return err
}

func (l *dumping) close() {
	if l.early != nil {
		l.early.close()
	}
	if l.db != nil {
		l.db.Close()
	}
	if l.text != nil {
		l.text.Close()
	}
}

// dump dumps one task. It returns an error only if the lane cannot go on.
func (l *dumping) dump(t *task.Task) error {
	ctx, start := l.Stop.Context, time.Now()
	res, err := l.dumper.Dump(ctx, t)
	switch {
	case errors.Is(err, source.ErrOutput):
		return err
	case err != nil && ctx.Err() != nil:
		l.Log.Warn("%s: stopped in the middle; the load rolls it back", t)
		return l.end(true, cli.Exit(cli.Stopped))
	case err != nil && l.db != nil && l.db.Lost():
		return l.end(true, err)
	case err != nil:
		l.Log.Error(err)
		l.failed = true
	case res.Gone:
		l.Log.Info("%s: dropped on the source since it was staged", t)
	default:
		l.Log.Detail("%s: %d rows, %s in %.2fs", t, res.Rows, cli.Bytes(res.Bytes), time.Since(start).Seconds())
	}
	return nil
}
