package lane

import (
	"errors"
	"fmt"
	"io"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/stream"
	"bf/lib/target"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// loading is a lane's loading of one stream, over one connection.
type loading struct {
	*cli.Env
	target   string
	force    bool
	stream   *stream.Reader
	out      io.Writer
	progress *progress

	early  *early
	db     *tsdb.DB // nil before the first header
	loader *target.Loader
	failed bool
}

// segment is what the stream has next: a task's header, or its end as io.EOF.
type segment struct {
	h   *stream.Header
	err error
}

// Load loads the stream that is stdin, each chunk in a transaction of its own, until
// it ends or a stop is requested. With force it loads tasks again that are done.
func Load(e *cli.Env, target string, force bool) error {
	r := stream.NewReader(e.Stdin)
	l := &loading{Env: e, target: target, force: force, stream: r, out: e.Log.Beside(e.Stdout),
		progress: newProgress(e, r)}
	options := e.Options()
	options.Locks = true
	l.early = connectEarly(e, pg.Target, target, options)
	defer l.close()
	return l.run()
}

func (l *loading) run() error {
	for {
		s, ok := cli.Await(l.Stop, nil, func() segment { h, err := l.stream.Next(); return segment{h, err} })
		var abort *stream.AbortError
		switch {
		case !ok:
			return cli.Exit(cli.Stopped)
		case s.err == io.EOF:
			return l.end()
		case errors.As(s.err, &abort):
			continue // of a task that was skipped or refused
		case s.err != nil:
			return s.err
		}
		if err := l.open(); err != nil {
			return err
		}
		if err := l.load(s.h); err != nil {
			return err
		}
	}
}

// end is what the command ends with after the last segment.
func (l *loading) end() error {
	switch {
	case l.Stop.Asked():
		return cli.Exit(cli.Stopped)
	case l.failed:
		return cli.Exit(cli.Failed)
	case l.stream.End().Stopped:
		// The status of a pipe is that of its last command: bf-load has to
		// report the failure of bf-dump.
		return errors.New("the dump ended before its last task, see its messages")
	}
	return nil
}

// open connects to the target, unless that is done.
func (l *loading) open() (err error) {
	if l.db != nil {
		return nil
	}
	ctx := l.Stop.Context
	if l.db, err = l.early.use(ctx); err != nil {
		return err
	}
	if err := queue.Check(ctx, l.db.Conn); err != nil {
		return err
	}
	l.loader = target.New(l.db, l.force)
	l.loader.Stop = l.Stop.Requested()
	return l.progress.open(ctx, l.db.Conn, l.target)
}

func (l *loading) close() {
	l.early.close()
	if l.db != nil {
		l.db.Close()
	}
	l.progress.over()
}

// load loads one task and reports it. It returns an error only if the lane cannot
// go on.
func (l *loading) load(h *stream.Header) error {
	ctx := l.Stop.Context
	l.progress.begin(&h.Task)
	res, err := l.loader.Load(ctx, l.stream, h)
	l.progress.end(ctx, l.db.Conn, &h.Task, res)
	if werr := task.Write(l.out, res); werr != nil {
		l.Log.Error(fmt.Errorf("write the result record: %w", werr))
		l.failed = true
	}
	switch {
	case err == nil && l.progress.shown() && res.Status == task.Loaded:
		l.Log.Detail("%s %s", l.progress.done(), line(res))
	case err == nil:
		l.Log.Info("%s %s", l.progress.done(), line(res))
	case ctx.Err() != nil:
		l.Log.Warn("%s: stopped in the middle and rolled back", &h.Task)
		return cli.Exit(cli.Stopped)
	case errors.Is(err, target.ErrStopped):
		l.Log.Warn("%v", err)
		return cli.Exit(cli.Stopped)
	case l.db.Lost() || errors.Is(err, stream.ErrCorrupt) || errors.Is(err, stream.ErrNoEnd):
		return err
	default:
		l.Log.Error(err)
		l.failed = true
	}
	return nil
}

// line is the message about a task that is done, skipped or gone.
func line(r *task.Result) string {
	s := r.Hypertable.String() + " " + r.Place()
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
