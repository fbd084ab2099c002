package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
	"bf/lib/verify"
)

// job is one chunk to compare: the number of a staged task, or a record that
// was given, on the target's half with the source's summary.
type job struct {
	number  int64
	task    *task.Task
	summary *verify.Summary
	bytes   int64 // about what is to be read; not known of a record
}

// runner compares chunks, several at a time.
type runner struct {
	flags  *flags
	method verify.Method
	feed   *task.Reader

	fromStdin bool // it reads stdin
	stdout    io.Writer
	log       *cli.Log
	stop      *cli.Stop

	mu                    sync.Mutex // of stdout and what follows
	course                cli.Course // Chunks is 0 when it is not known
	differ, failed, equal int64
	read                  int64 // rows compared
	summaries             int64 // written, or read
	equalByValue          int64 // of those that differ
	ends                  []verify.End

	live  *cli.Live // shown when stderr is a terminal and no other bf-verify is connected to the target
	meter cli.Meter
	fewer sync.Once // says that a worker could not connect
}

// line is the live line.
func (r *runner) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := fmt.Sprintf("%d chunks", r.course.ChunksDone)
	if r.course.Chunks > 0 {
		s = r.course.Line(r.meter.Rate(float64(r.course.BytesDone)))
	}
	if r.differ > 0 {
		s += fmt.Sprintf("; %d differ", r.differ)
	}
	if r.failed > 0 {
		s += fmt.Sprintf("; %d failed", r.failed)
	}
	return s
}

var errReported = errors.New("reported already")

func (r *runner) status(err error) int {
	switch {
	case r.differ > 0:
		return cli.Differs
	case r.failed > 0 || err != nil:
		return cli.Failed
	}
	return cli.OK
}

// run works everything off. The first worker connects at once, so that what
// is wrong with the connections is said once.
func (r *runner) run() error {
	ctx := r.stop.Context
	first := &worker{runner: r, name: name}
	if err := first.open(ctx); err != nil {
		return err
	}
	next := r.record
	switch n := len(r.flags.Records); {
	case n == 0 && r.flags.Source != "":
		listed, err := r.list(ctx, first.pair.Target)
		if err != nil || len(listed) == 0 {
			first.close()
			if err == nil {
				r.log.Info("nothing to verify")
			}
			return err
		}
		next = func() (*job, error) {
			if len(listed) == 0 {
				return nil, io.EOF
			}
			j := &listed[0]
			listed = listed[1:]
			return j, nil
		}
	case n > 0 && r.flags.Records[0] != "-":
		r.course.Chunks = int64(n)
	}
	defer r.over(time.Now())
	var wg sync.WaitGroup
	if r.live = r.log.Live(r.line); r.live != nil && r.flags.Target != "" {
		ctx, cancel := context.WithCancel(ctx)
		var looking sync.WaitGroup
		looking.Add(1)
		go func() {
			defer looking.Done()
			queue.Alone(ctx, r.flags.Target, name, func(_ *pg.Conn, alone bool) { r.live.Show(alone) })
		}()
		defer func() { cancel(); looking.Wait() }()
	}
	var alive atomic.Int32
	jobs, ended := make(chan *job), make(chan struct{})
	start := func(w *worker) {
		wg.Add(1)
		alive.Add(1)
		go func() {
			defer wg.Done()
			defer func() {
				w.close()
				if alive.Add(-1) == 0 {
					close(ended) // no worker is left
				}
			}()
			if err := w.open(ctx); err != nil {
				r.fewer.Do(func() { r.log.Warn("%v; going on with fewer connections", err) })
				return
			}
			for j := range jobs {
				if err := w.work(ctx, j); err != nil {
					return
				}
			}
		}()
	}
	start(first)
	err := r.hand(next, start, jobs, ended)
	close(jobs)
	wg.Wait()
	if err == nil && r.flags.Target == "" {
		end := verify.End{V: task.Version, Kind: verify.KindEnd, Summaries: r.summaries, Failed: r.failed, Stopped: r.stop.Asked()}
		if err = task.Write(r.stdout, end); err != nil {
			err = fmt.Errorf("write the end of the summaries: %w", err)
		}
	}
	return err
}

// hand hands out the jobs until there are no more, or a stop is requested. It
// starts another worker when none is free.
func (r *runner) hand(next func() (*job, error), start func(*worker), jobs chan<- *job, ended <-chan struct{}) error {
	type read struct {
		j   *job
		err error
	}
	for workers := 1; ; {
		n, ok := cli.Await(r.stop, ended, func() read { j, err := next(); return read{j, err} })
		var bad *task.BadRecord
		switch {
		case !ok && !r.stop.Asked():
			return errReported // no worker is left, and each has said why
		case !ok || n.err == io.EOF:
			return nil
		case errors.As(n.err, &bad):
			r.log.Error(n.err)
			r.mu.Lock()
			r.failed++
			r.mu.Unlock()
			continue
		case n.err != nil:
			return n.err
		}
		select {
		case <-ended:
			return errReported
		case jobs <- n.j:
			continue
		default:
		}
		if workers < r.flags.Parallelism {
			workers++
			start(&worker{runner: r, name: name + " worker"})
		}
		select {
		case jobs <- n.j:
		case <-r.stop.Requested():
			return nil
		case <-ended:
			return errReported
		}
	}
}

// list lists the tasks to verify.
func (r *runner) list(ctx context.Context, db *tsdb.DB) (jobs []job, err error) {
	state := queue.Unverified
	if r.flags.All {
		state = queue.Done
	}
	err = queue.Each(ctx, db.Conn, queue.Selection{State: state}, func(e *queue.Entry) error {
		jobs = append(jobs, job{number: e.Task.Task, bytes: e.Bytes})
		r.course.Chunks++
		r.course.Bytes += e.Bytes
		return nil
	})
	return jobs, err
}

// record reads the next record: a task, or a summary on the target's half.
func (r *runner) record() (*job, error) {
	b, err := r.feed.Record()
	switch {
	case err == io.EOF && r.flags.Source == "" && r.fromStdin:
		return nil, r.whole()
	case err == io.EOF:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("read records: %w", err)
	}
	fail := func(err error) (*job, error) { return nil, r.feed.Bad(err) }
	if r.flags.Source == "" {
		var s verify.Summary
		if err := json.Unmarshal(b, &s); err != nil {
			return fail(fmt.Errorf("not a summary of bf-verify --source: %w", err))
		}
		if s.Kind == verify.KindEnd && s.V == task.Version {
			var e verify.End
			if err := json.Unmarshal(b, &e); err != nil {
				return fail(err)
			}
			r.ends = append(r.ends, e)
			return r.record()
		}
		r.summaries++
		var other *verify.HashError
		if err := s.Check(); errors.As(err, &other) {
			return nil, err // so are those that follow
		} else if err != nil {
			return fail(err)
		}
		return &job{task: &s.Task, summary: &s}, nil
	}
	t, err := task.Parse(b)
	if err != nil {
		return fail(err)
	}
	return &job{task: t}, nil
}

// whole returns io.EOF when the summaries on stdin came to their proper end.
// There may be several: of halves whose output was put together.
func (r *runner) whole() error {
	var all verify.End
	for _, e := range r.ends {
		all.Summaries += e.Summaries
		all.Failed += e.Failed
		all.Stopped = all.Stopped || e.Stopped
	}
	switch {
	case r.summaries == 0 && len(r.ends) == 0:
		return errors.New("no summaries on stdin, and no end of them: bf-verify --source did not run, or failed")
	case all.Summaries != r.summaries:
		return fmt.Errorf("the summaries are not whole: %d came, and bf-verify --source vouches for %d; it died, or lines were lost or repeated", r.summaries, all.Summaries)
	case all.Failed > 0:
		return fmt.Errorf("bf-verify --source could not summarize %d tasks", all.Failed)
	case all.Stopped:
		return errors.New("bf-verify --source was stopped before its last task")
	}
	return io.EOF
}

// worker compares one chunk at a time over its own connections.
type worker struct {
	*runner
	name string // of its connections
	pair *verify.Pair
}

// open connects to the sides that were named, unless that is done.
func (w *worker) open(ctx context.Context) (err error) {
	if w.pair != nil && !w.pair.Lost() {
		return nil
	}
	w.close()
	o := pg.Options{Application: w.name, Log: w.log.Info}
	w.pair, err = verify.Open(ctx, w.flags.Source, w.flags.Target, w.method, o)
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
		w.report(j, nil, err)
		return err
	}
	if w.flags.Target == "" {
		s, err := w.pair.Summarize(ctx, j.task)
		if err != nil {
			w.report(j, nil, err)
			return nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := task.Write(w.stdout, s); err != nil {
			w.log.Error(fmt.Errorf("write the summary: %w", err))
			w.failed++
			return err
		}
		w.course.ChunksDone++
		w.summaries++
		if s.State == verify.StateGone {
			w.log.Info("%s%s: gone", w.count(), &s.Task)
		} else {
			w.log.Detail("%s%s: %d rows in %.2fs", w.count(), &s.Task, s.Rows, s.Seconds)
		}
		return nil
	}
	res, err := w.compare(ctx, j)
	w.report(j, res, err)
	return nil
}

// compare gives a task its verdict and stores it.
func (w *worker) compare(ctx context.Context, j *job) (*task.Result, error) {
	e, err := w.staged(ctx, j)
	if err != nil {
		return nil, err
	}
	t := &e.Task
	if e.Worked == "" {
		return &task.Result{V: task.Version, Task: t.Task, Hypertable: t.Target(), Chunk: t.Chunk, Status: task.Skipped, Message: "not loaded yet"}, nil
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
	stored, e2 := queue.Verdict(ctx, w.pair.Target.Conn, e, res)
	if err == nil && e2 == nil && !stored {
		res.Status, res.Message, res.Differences = task.Skipped, "copied again while it was compared; verify it again", nil
	}
	return res, errors.Join(err, e2)
}

func (w *worker) staged(ctx context.Context, j *job) (*queue.Entry, error) {
	if j.task != nil {
		return queue.Staged(ctx, w.pair.Target.Conn, j.task)
	}
	e, err := queue.Get(ctx, w.pair.Target.Conn, j.number)
	if err == nil && e == nil {
		err = &pg.Error{Side: pg.Target, Object: fmt.Sprintf("task %d", j.number), Err: errors.New("is no longer staged")}
	}
	return e, err
}

// count is the place of a finished task among all, where they are known.
func (r *runner) count() string {
	if r.course.Chunks <= 1 {
		return ""
	}
	return fmt.Sprintf("%d/%d ", r.course.ChunksDone, r.course.Chunks)
}

// over ends the run with a line that sums it up, unless there was one task only.
func (r *runner) over(began time.Time) {
	r.live.Show(false)
	if r.equalByValue > 0 {
		r.log.Warn("%d chunks differ only in values that = calls equal (1.0 and 1.00, 1 mon and 30 days): a compressed chunk may keep one of them for all. "+
			"--method values accepts that; to have the values as they are, decompress the chunk on the target, keep policies from compressing it, and load it again (bf-load --force)", r.equalByValue)
	}
	if n := r.course.ChunksDone; n == 0 && r.failed == 0 && !r.stop.Asked() {
		r.log.Info("nothing to verify")
	} else if n > 1 && r.flags.Target != "" {
		r.log.Info("%d chunks, %d rows in %.1fs: %d equal, %d different, %d failed", n, r.read, time.Since(began).Seconds(), r.equal, r.differ, r.failed)
	}
}

// report prints the result record of a task and a line for people.
func (r *runner) report(j *job, res *task.Result, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.course.ChunksDone++
	r.course.BytesDone += j.bytes
	if res != nil {
		r.read += res.Rows
		if werr := task.Write(r.stdout, res); werr != nil {
			r.log.Error(fmt.Errorf("write the result record: %w", werr))
			r.failed++
		}
	}
	if err != nil {
		r.failed++
		if r.stop.Context.Err() == nil {
			r.log.Error(err)
		}
		return
	}
	say := r.log.Info
	if len(res.Differences) > 0 {
		r.differ++
		if res.EqualByValue {
			r.equalByValue++
		}
		say = r.log.Warn
	} else if res.Status == task.Verified {
		r.equal++
		if r.live.Shown() {
			say = r.log.Detail
		}
	}
	said, _, _ := strings.Cut(res.Message, ", hash ") // which tells people nothing
	say("%s%s %s: %s in %.2fs", r.count(), res.Hypertable, res.Chunk.Name, said, res.Seconds)
	if len(res.Differences) > 1 {
		for _, d := range res.Differences {
			say("  %s: %s", res.Chunk.Name, d)
		}
	}
}
