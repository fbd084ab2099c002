// Command bf-dump reads task records and writes the chunks they name as a
// stream on stdout. It talks to the source only.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/source"
	"bf/lib/stream"
	"bf/lib/task"
	"bf/lib/tsdb"
)

const name = "bf-dump"

type flags struct {
	Source   string   `arg:"--source,env:BF_SOURCE" help:"connection string of the source" placeholder:"CONN"`
	Compress string   `arg:"--compress" default:"none" help:"none, zstd[:LEVEL] or s2" placeholder:"CODEC"`
	Records  []string `arg:"positional" help:"task records; read from stdin, one per line, when there are none" placeholder:"RECORD"`
	cli.Common
}

func (flags) Description() string {
	return "Dumps the chunks that the task records name: one read-only transaction per chunk, one stream on stdout for bf-load."
}

func (flags) Epilogue() string {
	return "  bf-chunks --target \"$TARGET\" | bf-dump --source \"$SOURCE\" | bf-load --target \"$TARGET\""
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	codec, err := stream.ParseCompression(f.Compress)
	switch {
	case err != nil:
		return cli.BadUsage(name, stderr, "--compress: %v", err)
	case f.Source == "":
		return cli.BadUsage(name, stderr, "--source is required (or BF_SOURCE)")
	case cli.IsTerminal(stdout):
		return cli.BadUsage(name, stderr, "stdout is a terminal: pipe the stream into bf-load, or send it to a file")
	case len(f.Records) == 0 && cli.IsTerminal(stdin):
		return cli.BadUsage(name, stderr, "no task records: pipe bf-chunks into it")
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	cli.WidenPipe(stdout)
	w := stream.NewWriter(stdout, codec)
	records := task.NewReader(stdin)
	if len(f.Records) > 0 {
		records = task.Arguments(f.Records)
	}
	return dump(&f, w, records.Next, cli.ReaderGone(stdout), log, stop)
}

type read struct {
	t   *task.Task
	err error
}

func dump(f *flags, w *stream.Writer, next func() (*task.Task, error), gone <-chan struct{}, log *cli.Log, stop *cli.Stop) int {
	ctx := stop.Context
	status := cli.OK
	var db *tsdb.DB
	var d *source.Dumper
	defer func() {
		if db != nil {
			db.Close()
		}
	}()
	end := func(stopped bool, status int) int {
		if err := w.Close(stopped); err != nil {
			log.Error(fmt.Errorf("write the stream: %w", err))
			return cli.Failed
		}
		return status
	}
	for {
		r, ok := cli.Await(stop, gone, func() read { t, err := next(); return read{t, err} })
		if !ok {
			if !stop.Asked() {
				log.Error(errors.New("the reader of the stream is gone"))
				return cli.Failed
			}
			return end(true, cli.Stopped)
		}
		var bad *task.BadRecord
		switch {
		case r.err == io.EOF:
			return end(status != cli.OK, status)
		case errors.As(r.err, &bad):
			log.Error(r.err)
			status = cli.Failed
			continue
		case r.err != nil:
			log.Error(fmt.Errorf("read task records: %w", r.err))
			return end(true, cli.Failed)
		}
		if db == nil {
			// Not before there is something to do: a lane without work
			// needs no connection.
			var err error
			if db, err = tsdb.Open(ctx, pg.Source, f.Source, pg.Options{Application: name, Log: log.Info}); err != nil {
				log.Error(err)
				return end(true, cli.Failed)
			}
			d = source.New(db, w, cli.Version())
		}
		start := time.Now()
		res, err := d.Dump(ctx, r.t)
		switch {
		case errors.Is(err, source.ErrOutput):
			log.Error(err)
			return cli.Failed
		case err != nil && ctx.Err() != nil:
			log.Warn("%s: stopped in the middle; the load rolls it back", r.t)
			return end(true, cli.Stopped)
		case err != nil:
			log.Error(err)
			status = cli.Failed
			if db.Lost() {
				return end(true, cli.Failed)
			}
		case res.Gone:
			log.Info("%s: dropped on the source since it was staged", r.t)
		default:
			log.Detail("%s: %d rows, %s in %.2fs", r.t, res.Rows, cli.Bytes(res.Bytes), time.Since(start).Seconds())
		}
	}
}
