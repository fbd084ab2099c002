package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
)

// Mode is the part of a verification that one run does.
type Mode int

const (
	Both      Mode = iota // compare source and target
	Summarize             // the left half: print a summary of the source per task
	Judge                 // the right half: compare such summaries with the target
	InStretch             // compare a range of all hypertables, without tasks: see Stretch
)

// Options say what a run compares, and how.
type Options struct {
	Mode           Mode
	Method         Method // of Judge: that of the summaries
	Source, Target string // connection strings, of the sides that the mode needs
	Parallelism    int    // chunks at a time

	// Records are the tasks to compare, or the summaries to judge. If it is nil,
	// Both compares the tasks that are loaded and not verified; with All, also
	// those that are verified.
	Records *task.Reader
	// Given is the number of Records on the command line; 0 when they come on
	// stdin, where summaries have to end properly.
	Given int
	All   bool
}

// application is the name of the connections.
const application = "bf-verify"

// Run compares task after task, several at a time, prints a record of each to
// out, and returns the exit status.
func Run(o Options, out io.Writer, log *cli.Log, stop *cli.Stop) int {
	r := newRunner(o, out, log, stop)
	err := r.run()
	switch {
	case stop.Asked():
		return cli.Stopped
	case err != nil && !errors.Is(err, errReported):
		log.Error(err)
	}
	return r.status(err)
}

func newRunner(o Options, out io.Writer, log *cli.Log, stop *cli.Stop) *runner {
	r := &runner{Options: o, log: log, stop: stop, jobs: make(chan *job), ended: make(chan struct{})}
	r.tally.out = out
	return r
}

// errReported ends a run whose workers have said what is wrong.
var errReported = errors.New("reported already")

// runner hands out jobs to workers.
type runner struct {
	Options
	tally
	log  *cli.Log
	stop *cli.Stop
	live *cli.Live // shown when stderr is a terminal and no other bf-verify is connected to the target

	mapped map[task.Name]map[int64]bool // relations read by blocks, and their tasks that were found equal; see sweep

	jobs    chan *job
	workers sync.WaitGroup
	alive   atomic.Int32  // workers
	ended   chan struct{} // closed when none is left
	fewer   sync.Once     // says that a worker could not connect

	stretch *stretch // InStretch
}

// run compares all tasks. The first worker connects before anything else, so that
// what is wrong with a connection string is said once.
func (r *runner) run() error {
	ctx := r.stop.Context
	first := &worker{runner: r, application: application}
	if err := first.open(ctx); err != nil {
		return err
	}
	next, err := r.feed(ctx, first.pair)
	if err != nil {
		first.close()
		return err
	}
	defer r.over(time.Now())
	defer r.showLive(ctx)()
	r.start(ctx, first)
	err = r.hand(ctx, next)
	close(r.jobs)
	r.workers.Wait()
	if err == nil && r.Mode == Both && !r.stop.Asked() {
		err = r.sweep(ctx)
	}
	if err == nil && r.Mode == Summarize {
		err = r.writeEnd(r.stop.Asked())
	}
	return err
}

// showLive shows the live line for as long as no other bf-verify is connected to
// the target. It returns what ends that.
func (r *runner) showLive(ctx context.Context) (end func()) {
	r.live = r.log.Live(r.line)
	if r.live == nil || r.Mode == Summarize {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		queue.Alone(ctx, r.Target, application, func(_ *pg.Conn, alone bool) { r.live.Show(alone) })
	}()
	return func() { cancel(); <-done }
}

// hand hands out the jobs until there are no more, or a stop is requested. It
// starts another worker when none is free.
func (r *runner) hand(ctx context.Context, next func() (*job, error)) error {
	type read struct {
		job *job
		err error
	}
	for started := 1; ; {
		n, ok := cli.Await(r.stop, r.ended, func() read { j, err := next(); return read{j, err} })
		var bad *task.BadRecord
		switch {
		case !ok && !r.stop.Asked():
			return errReported // no worker is left
		case !ok || n.err == io.EOF:
			return nil
		case errors.As(n.err, &bad):
			r.log.Error(n.err)
			r.fail()
			continue
		case n.err != nil:
			return n.err
		}
		select {
		case <-r.ended:
			return errReported
		case r.jobs <- n.job:
			continue
		default:
		}
		if started < r.Parallelism {
			started++
			r.start(ctx, &worker{runner: r, application: application + " worker"})
		}
		select {
		case r.jobs <- n.job:
		case <-r.stop.Requested():
			return nil
		case <-r.ended:
			return errReported
		}
	}
}

// start has a worker take jobs, until there are no more or it cannot go on.
func (r *runner) start(ctx context.Context, w *worker) {
	r.alive.Add(1)
	r.workers.Go(func() {
		defer func() {
			w.close()
			if r.alive.Add(-1) == 0 {
				close(r.ended)
			}
		}()
		if err := w.open(ctx); err != nil {
			r.fewer.Do(func() { r.log.Warn("%v; going on with fewer connections", err) })
			return
		}
		for j := range r.jobs {
			if err := w.work(ctx, j); err != nil {
				return
			}
		}
	})
}

// worker compares one chunk at a time over its own connections.
type worker struct {
	*runner
	application string // name of its connections
	pair        *Pair
	inHand      int64 // the task that those who watch are told of
}

// open connects to the sides that are needed, unless that is done.
func (w *worker) open(ctx context.Context) (err error) {
	if w.pair != nil && !w.pair.Lost() {
		return nil
	}
	w.close()
	w.inHand = 0
	open := Open
	if w.Mode == InStretch {
		open = connect
	}
	w.pair, err = open(ctx, w.Source, w.Target, w.Method, pg.Options{Application: w.application, Log: w.log.Info})
	return err
}

func (w *worker) close() {
	if w.pair != nil {
		w.pair.Close()
	}
	w.pair = nil
}

// work does one job and reports it; the error means that the worker cannot go
// on.
func (w *worker) work(ctx context.Context, j *job) error {
	if err := w.open(ctx); err != nil {
		if w.Mode == InStretch {
			w.looked(j.slice, nil, err)
		} else {
			w.report(j, nil, err)
		}
		return err
	}
	if w.Mode == InStretch {
		res, err := w.pair.look(ctx, j.slice)
		w.looked(j.slice, res, err)
		return nil
	}
	if w.Mode == Summarize {
		s, err := w.pair.Summarize(ctx, j.task)
		if err != nil {
			w.report(j, nil, err)
			return nil
		}
		return w.reportSummary(s)
	}
	res, err := w.compare(ctx, j)
	w.report(j, res, err)
	return nil
}

// compare gives a task its verdict and stores it.
func (w *worker) compare(ctx context.Context, j *job) (*task.Result, error) {
	target := w.pair.Target.Conn
	e, err := j.staged(ctx, target)
	if err != nil {
		return nil, err
	}
	t := &e.Task
	if err := queue.InHand(ctx, target, t.Task, w.inHand); err != nil {
		return nil, err
	}
	w.inHand = t.Task
	if e.Worked == "" {
		res := t.Result()
		res.Status, res.Message = task.Skipped, "not loaded yet"
		return res, nil
	}
	var res *task.Result
	if j.summary != nil {
		res, err = w.pair.Judge(ctx, t, j.summary)
	} else {
		res, err = w.pair.Verify(ctx, t)
	}
	if err != nil && (ctx.Err() != nil || w.pair.Lost()) {
		return res, err
	}
	stored, e2 := queue.Verdict(ctx, target, e, res)
	if err == nil && e2 == nil && stored {
		w.remember(t, res)
	}
	if err == nil && e2 == nil && !stored {
		res.Status, res.Message, res.Differences = task.Skipped,
			"copied again while it was compared; verify it again", nil
	}
	return res, errors.Join(err, e2)
}

// feed returns what yields the jobs, and io.EOF after the last.
func (r *runner) feed(ctx context.Context, p *Pair) (next func() (*job, error), err error) {
	r.course.Chunks = int64(r.Given)
	switch {
	case r.Records == nil:
		return r.list(ctx, p)
	case r.Mode == Judge:
		s := &summaries{Reader: r.Records, piped: r.Given == 0}
		return s.next, nil
	}
	return func() (*job, error) {
		t, err := r.Records.Next()
		if err != nil {
			return nil, readError(err)
		}
		return &job{task: t}, nil
	}, nil
}

// list yields the tasks that are loaded.
func (r *runner) list(ctx context.Context, p *Pair) (next func() (*job, error), err error) {
	state := queue.Unverified
	if r.All {
		state = queue.Done
	}
	var jobs []*job
	err = queue.Each(ctx, p.Target.Conn, queue.Selection{State: state}, func(e *queue.Entry) error {
		jobs = append(jobs, &job{number: e.Task.Task, bytes: e.Bytes})
		r.course.Chunks++
		r.course.Bytes += e.Bytes
		return nil
	})
	return func() (*job, error) {
		if len(jobs) == 0 {
			return nil, io.EOF
		}
		j := jobs[0]
		jobs = jobs[1:]
		return j, nil
	}, err
}

// readError says of an error of the input what was read.
func readError(err error) error {
	var bad *task.BadRecord
	if err == io.EOF || errors.As(err, &bad) {
		return err
	}
	return fmt.Errorf("read records: %w", err)
}
