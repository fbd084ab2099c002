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
	r := stream.NewReader(stdin)
	stop := cli.Signals(log)
	l := &lane{flags: &f, stream: r, log: log, stop: stop, out: log.Beside(stdout), progress: newProgress(log, r, stop)}
	defer l.close()
	return l.run()
}

// lane loads one stream over one connection.
type lane struct {
	flags    *flags
	stream   *stream.Reader
	log      *cli.Log
	stop     *cli.Stop
	out      io.Writer
	progress *progress

	db     *tsdb.DB // nil before the first header
	loader *target.Loader
	status int
}

// segment is what the stream has next: a task's header, or its end as io.EOF.
type segment struct {
	h   *stream.Header
	err error
}

func (l *lane) run() int {
	for {
		s, ok := cli.Await(l.stop, nil, func() segment { h, err := l.stream.Next(); return segment{h, err} })
		if !ok {
			return cli.Stopped
		}
		var abort *stream.AbortError
		switch {
		case s.err == io.EOF:
			return l.end()
		case errors.As(s.err, &abort):
			continue // of a task that was skipped or refused
		case s.err != nil:
			l.log.Error(s.err)
			return cli.Failed
		}
		// After the first good header: a dump that failed at once costs the
		// target no connection.
		if err := l.open(); err != nil {
			l.log.Error(err)
			return cli.Failed
		}
		if over := l.load(s.h); over {
			return l.status
		}
	}
}

// end returns the exit status after the last segment.
func (l *lane) end() int {
	switch {
	case l.stop.Asked():
		return cli.Stopped
	case l.stream.End().Stopped && l.status == cli.OK:
		// Nobody else would tell: the status of a pipe is its last command's.
		l.log.Error(errors.New("the dump ended before its last task, see its messages"))
		return cli.Failed
	}
	return l.status
}

// open connects to the target, unless that is done.
func (l *lane) open() (err error) {
	if l.db != nil {
		return nil
	}
	ctx := l.stop.Context
	options := pg.Options{Application: name, Log: l.log.Info, Locks: true}
	if l.db, err = tsdb.Open(ctx, pg.Target, l.flags.Target, options); err != nil {
		return err
	}
	if err := queue.Check(ctx, l.db.Conn); err != nil {
		return err
	}
	l.loader = target.New(l.db, l.flags.Force)
	l.loader.Stop = l.stop.Requested()
	return l.progress.open(ctx, l.db.Conn, l.flags.Target)
}

func (l *lane) close() {
	if l.db != nil {
		l.db.Close()
	}
	l.progress.over()
}

// load loads one task and reports it; over means that the lane cannot go on.
func (l *lane) load(h *stream.Header) (over bool) {
	ctx := l.stop.Context
	l.progress.begin(&h.Task)
	res, err := l.loader.Load(ctx, l.stream, h)
	l.progress.end(ctx, l.db.Conn, &h.Task, res)
	if werr := task.Write(l.out, res); werr != nil {
		l.log.Error(fmt.Errorf("write the result record: %w", werr))
		l.status = cli.Failed
	}
	switch {
	case err == nil && l.progress.shown() && res.Status == task.Loaded:
		l.log.Detail("%s %s", l.progress.done(), line(res))
	case err == nil:
		l.log.Info("%s %s", l.progress.done(), line(res))
	case ctx.Err() != nil:
		l.log.Warn("%s: stopped in the middle and rolled back", &h.Task)
		l.status = cli.Stopped
		return true
	case errors.Is(err, target.ErrStopped):
		l.log.Warn("%v", err)
		l.status = cli.Stopped
		return true
	default:
		l.log.Error(err)
		l.status = cli.Failed
		return l.db.Lost() || errors.Is(err, stream.ErrCorrupt) || errors.Is(err, stream.ErrNoEnd)
	}
	return false
}

// line is what people see of a task that is over.
func line(r *task.Result) string {
	s := r.Hypertable.String() + " " + r.Chunk.Name
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
