// Command bf-dump reads task records and writes the chunks they name as a
// stream on stdout. It talks to the source only.
package main

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

type flags struct {
	Source   string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source, csv:DIR or exec:COMMAND" placeholder:"CONN"`
	Compress string   `arg:"--compress" default:"none" help:"none, zstd[:LEVEL] or s2" placeholder:"CODEC"`
	Records  []string `arg:"positional" help:"task records; read from stdin, one per line, when there are none" placeholder:"RECORD"`
	cli.Common
}

func (*flags) Description() string {
	return "Dumps the chunks that the task records name: " +
		"one read-only transaction per chunk, one stream on stdout for bf-load."
}

func (*flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

func main() { cli.Main("bf-dump", &flags{}, run) }

func (f *flags) Check(e *cli.Env) error {
	_, err := stream.ParseCompression(f.Compress)
	switch {
	case err != nil:
		return e.Usagef("--compress: %v", err)
	case f.Source == "":
		return e.Usagef("--source is required (or BF_SOURCE)")
	case cli.IsTerminal(e.Stdout):
		return e.Usagef("stdout is a terminal: pipe the stream into bf-load, or send it to a file")
	case len(f.Records) == 0 && cli.IsTerminal(e.Stdin):
		return e.Usagef("no task records: pipe bf-chunks into it")
	}
	return nil
}

func run(e *cli.Env, f *flags) error {
	codec, err := stream.ParseCompression(f.Compress)
	if err != nil {
		return err
	}
	cli.WidenPipe(e.Stdout)
	l := &lane{Env: e, source: f.Source, w: stream.NewWriter(e.Stdout, codec)}
	defer l.close()
	records := task.NewReader(e.Stdin)
	if len(f.Records) > 0 {
		records = task.Arguments(f.Records)
	}
	return l.run(records.Next, cli.ReaderGone(e.Stdout))
}

// lane dumps chunk after chunk over one connection.
type lane struct {
	*cli.Env
	source string
	w      *stream.Writer
	db     *tsdb.DB    // nil before the first task, and of CSV
	text   source.Text // nil of a database
	dumper dumper
	failed bool
}

// dumper writes the segment of a task.
type dumper interface {
	Dump(context.Context, *task.Task) (source.Result, error)
}

type read struct {
	t   *task.Task
	err error
}

func (l *lane) run(next func() (*task.Task, error), gone <-chan struct{}) error {
	for {
		r, ok := cli.Await(l.Stop, gone, func() read { t, err := next(); return read{t, err} })
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
func (l *lane) end(stopped bool, err error) error {
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

// open connects to the source, when the first task is there: a lane without work
// needs no connection.
func (l *lane) open() (err error) {
	if l.dumper != nil {
		return nil
	}
	if l.text, err = source.OpenText(l.source, l.Stderr); err != nil {
		return err
	}
	if l.text != nil {
		l.dumper = source.NewText(l.text, l.w, cli.Version())
		return nil
	}
	if l.db, err = tsdb.Open(l.Stop.Context, pg.Source, l.source, l.Options()); err == nil {
		l.dumper = source.New(l.db, l.w, cli.Version())
	}
	return err
}

func (l *lane) close() {
	if l.db != nil {
		l.db.Close()
	}
	if l.text != nil {
		l.text.Close()
	}
}

// dump dumps one task. It returns an error only if the lane cannot go on.
func (l *lane) dump(t *task.Task) error {
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
