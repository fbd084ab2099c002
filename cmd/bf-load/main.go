// Command bf-load reads a stream of bf-dump from stdin and loads it, one
// transaction per chunk. It talks to the target only.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/target"
	"bf/lib/task"
	"bf/lib/tsdb"
)

const name = "bf-load"

type flags struct {
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Force  bool   `arg:"--force" help:"load a task again that is done"`
	cli.Common
}

func (flags) Description() string {
	return "Loads the chunks of a stream: each in one transaction that replaces what the target held in the task's range and marks the task as done.\n" +
		"Prints a result record per task."
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
	switch {
	case f.Target == "":
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	case cli.IsTerminal(stdin):
		return cli.BadUsage(name, stderr, "stdin is a terminal: pipe bf-dump into it")
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	return load(&f, stream.NewReader(stdin), stdout, log, stop)
}

type segment struct {
	h   *stream.Header
	err error
}

func load(f *flags, r *stream.Reader, stdout io.Writer, log *cli.Log, stop *cli.Stop) int {
	ctx := stop.Context
	status := cli.OK
	var db *tsdb.DB
	var l *target.Loader
	var total int64
	stdout = log.Beside(stdout)
	p := newProgress(log, r)
	defer p.over()
	defer func() {
		if db != nil {
			db.Close()
		}
	}()
	for {
		s, ok := cli.Await(stop, nil, func() segment { h, err := r.Next(); return segment{h, err} })
		if !ok {
			return cli.Stopped
		}
		switch {
		case s.err != io.EOF:
		case stop.Asked():
			return cli.Stopped
		case r.End().Stopped && status == cli.OK:
			// Nobody else would tell: the status of a pipe is its last command's.
			log.Error(errors.New("the dump ended before its last task, see its messages"))
			return cli.Failed
		default:
			return status
		}
		var abort *stream.AbortError
		if errors.As(s.err, &abort) {
			continue // of a task that was skipped or refused
		}
		if s.err != nil {
			log.Error(s.err)
			return cli.Failed
		}
		if db == nil {
			// After the first good header: a dump that failed at once costs
			// the target no connection.
			var err error
			if db, err = tsdb.Open(ctx, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info, Locks: true}); err == nil {
				err = queue.Check(ctx, db.Conn)
			}
			if err == nil {
				total, _, err = queue.Count(ctx, db.Conn)
			}
			if err != nil {
				log.Error(err)
				return cli.Failed
			}
			l = target.New(db, f.Force)
			p.open(ctx, f.Target)
		}
		p.begin(&s.h.Task)
		res, err := l.Load(ctx, r, s.h)
		p.end(&s.h.Task, res)
		if werr := task.Write(stdout, res); werr != nil {
			log.Error(fmt.Errorf("write the result record: %w", werr))
			status = cli.Failed
		}
		switch {
		case err == nil && p.live.Shown() && res.Status == task.Loaded:
			log.Detail("%s", line(res, total))
		case err == nil:
			log.Info("%s", line(res, total))
		case ctx.Err() != nil:
			log.Warn("%s: stopped in the middle and rolled back", &s.h.Task)
			return cli.Stopped
		default:
			log.Error(err)
			status = cli.Failed
			if db.Lost() || errors.Is(err, stream.ErrCorrupt) || errors.Is(err, stream.ErrNoEnd) {
				return status
			}
		}
	}
}

// line is what people see of a task that is over.
func line(r *task.Result, total int64) string {
	s := fmt.Sprintf("%d/%d %s %s", r.Task, total, r.Hypertable, r.Chunk.Name)
	if r.Status != task.Loaded {
		return s + ": " + r.Message
	}
	s += fmt.Sprintf(": %d rows, %s in %.2fs", r.Rows, cli.Bytes(r.Bytes), r.Seconds)
	if r.Seconds > 0.001 {
		s += fmt.Sprintf(", %s/s", cli.Bytes(int64(float64(r.Bytes)/r.Seconds)))
	}
	if r.Message != "" {
		s += "; " + r.Message
	}
	return s
}
