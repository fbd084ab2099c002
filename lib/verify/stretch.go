package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/stage"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Stretch is what a run without tasks compares: the rows of a range, of all
// hypertables that are chosen, while an application writes to both sides.
type Stretch struct {
	From, Until string // Until is "" for Lag ago
	Filter      string
	// Lag is how long it may take until a row is on both sides: what differs is
	// looked at again after it.
	Lag time.Duration
}

// mostLooks bounds how often a slice is looked at of which more rows are on their
// way than can be followed.
const mostLooks = 6

// stretch is a run of one.
type stretch struct {
	Stretch
	plan    *stage.Plan
	again   []*piece // to be looked at again
	differ  map[*task.Task]bool
	foreign bool // rows differ for which the source has no chunk
}

// RunStretch compares what both sides hold of a stretch, prints a result per slice
// and then the plan that has bf-stage copy again what differs. The error is
// cli.Exit, or why nothing was compared.
func RunStretch(o Options, w Stretch, out io.Writer, log *cli.Log, stop *cli.Stop) error {
	o.Mode = InStretch
	r := newRunner(o, out, log, stop)
	r.stretch = &stretch{Stretch: w, differ: map[*task.Task]bool{}}
	began := time.Now()
	left, err := r.cut(stop.Context)
	if err != nil {
		return err
	}
	r.course.Chunks = int64(len(left))
	for n := 0; n < mostLooks && len(left) > 0 && err == nil; n++ {
		if n > 0 && !r.wait(len(left)) {
			break
		}
		left, err = r.lookAt(left)
	}
	if stop.Asked() {
		return cli.Exit(cli.Stopped)
	}
	for _, s := range left {
		if err == nil {
			r.looked(s, nil, &pg.Error{Side: pg.Target, Object: s.String(),
				Err:  fmt.Errorf("rows keep differing in other places at each of %d looks", mostLooks),
				Hint: "give a longer --lag, or an --until further back"})
		}
	}
	if err == nil {
		err = r.writePlan()
	}
	if err != nil && !errors.Is(err, errReported) {
		log.Error(err)
	}
	r.over(began)
	return cli.Exit(r.status(err))
}

// wait lets the lag pass. It reports false if a stop is requested.
func (r *runner) wait(n int) bool {
	r.log.Info("slices that differ so far: %d; looking again in %s, as rows may be on their way", n, r.stretch.Lag)
	select {
	case <-time.After(r.stretch.Lag):
		return true
	case <-r.stop.Requested():
		return false
	}
}

// lookAt looks at slices, several at a time, and returns those to be looked at
// again.
func (r *runner) lookAt(some []*piece) ([]*piece, error) {
	ctx := r.stop.Context
	first := &worker{runner: r, application: application}
	if err := first.open(ctx); err != nil {
		return nil, err
	}
	r.jobs, r.ended, r.stretch.again = make(chan *job), make(chan struct{}), nil
	defer r.showLive(ctx)()
	r.start(ctx, first)
	err := r.hand(ctx, func() (*job, error) {
		if len(some) == 0 {
			return nil, io.EOF
		}
		s := some[0]
		some = some[1:]
		return &job{slice: s}, nil
	})
	close(r.jobs)
	r.workers.Wait()
	return r.stretch.again, err
}

// cut plans the stretch: its slices are the source's chunks, and what is beside
// them and has chunks on the target.
func (r *runner) cut(ctx context.Context) (all []*piece, err error) {
	p, err := connect(ctx, r.Source, r.Target, r.Method, pg.Options{Application: application, Log: r.log.Info})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if p.Source.Plain() {
		return nil, &pg.Error{Side: pg.Source, Err: tsdb.ErrNoExtension,
			Hint: "--from compares hypertables of both sides; " +
				"rows of other tables are compared by their tasks, without it"}
	}
	until := r.stretch.Until
	if until == "" {
		if until, err = ago(ctx, p.Source, r.stretch.Stretch); err != nil {
			return nil, err
		}
	}
	w := r.stretch
	w.plan, err = stage.Make(ctx, p.Source, stage.Options{From: r.stretch.From, Until: until, Raw: true,
		Choice: tsdb.Choice{Filter: r.stretch.Filter}})
	if err != nil {
		return nil, err
	}
	if len(w.plan.Hypertables) == 0 {
		r.log.Warn("no hypertable matches --filter; " +
			"continuous aggregates are not compared: each side refreshes its own")
	}
	for _, t := range w.plan.Tasks {
		all = append(all, &piece{task: t})
	}
	for _, h := range w.plan.Hypertables {
		more, err := beside(ctx, p, h, w.plan.Tasks, [2]string{r.stretch.From, until})
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	r.log.Info("comparing [%s, %s) of %d hypertables: %d slices",
		r.stretch.From, until, len(w.plan.Hypertables), len(all))
	return all, nil
}

// ago is the time of the source's clock as long ago as the lag. Only a column that
// has a time zone, or none of its own, can be compared with it.
func ago(ctx context.Context, src *tsdb.DB, w Stretch) (until string, err error) {
	hs, err := src.Hypertables(ctx)
	if err == nil {
		hs, err = tsdb.Choose(ctx, src, hs, tsdb.Choice{Filter: w.Filter})
	}
	if err != nil {
		return "", err
	}
	for _, h := range hs {
		if typ := h.Dimensions[0].RangeType; h.View == nil && typ != "timestamp with time zone" && typ != "uuid" {
			return "", &stage.BadArgument{Flag: "--until",
				Err: fmt.Errorf("is required: %s is partitioned by a %s, for which bf cannot tell what now is",
					h.Label(), typ),
				Hint: "give it, or leave that hypertable out with --filter and compare it on its own"}
		}
	}
	err = src.QueryRow(ctx, "select (clock_timestamp() - $1::text::interval)::text",
		fmt.Sprintf("%d microseconds", w.Lag.Microseconds())).Scan(&until)
	return until, src.Wrap(err, "time")
}

// beside are the slices for which the source has no chunk, but the target has: for
// some of the partitions, where there are several dimensions.
func beside(ctx context.Context, p *Pair, h *tsdb.Hypertable, tasks []*task.Task, texts [2]string) ([]*piece, error) {
	there, err := p.Target.HypertableFor(ctx, h.Name, nil)
	if err != nil || there == nil {
		return nil, err
	}
	var ends [2]int64
	for i, b := range texts {
		if ends[i], err = h.Internal(ctx, p.Source, b); err != nil {
			return nil, err
		}
	}
	chunks, err := there.ChunksIn(ctx, p.Target, task.NewRange(there.Dimensions[0].Column, ends[0], ends[1]))
	if err != nil {
		return nil, err
	}
	var own []*task.Task
	cuts := ends[:]
	for _, t := range tasks {
		if t.Hypertable == h.Name {
			from, until := t.Range.Bounds()
			own, cuts = append(own, t), append(cuts, from, until)
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var all []*piece
	for i, from := range cuts[:len(cuts)-1] {
		s := uncovered(h, own, from, cuts[i+1])
		if s != nil && slices.ContainsFunc(chunks, func(c *tsdb.Chunk) bool {
			f, u := c.Slices[0].Bounds()
			return f < cuts[i+1] && u > from
		}) {
			all = append(all, s)
		}
	}
	return all, nameBounds(ctx, p.Source, h, all)
}

// uncovered is the slice of what the tasks leave of a range that each of them
// covers or does not touch; nil if it is nothing.
func uncovered(h *tsdb.Hypertable, tasks []*task.Task, from, until int64) *piece {
	r := task.NewRange(h.Dimensions[0].Column, from, until)
	r.Partial = true
	s := &piece{beside: true, task: &task.Task{V: task.Version, Hypertable: h.Name, Range: r,
		Slices: []task.Slice{{Column: r.Column, From: r.From, Until: r.Until}}}}
	for _, t := range tasks {
		if f, u := t.Range.Bounds(); f < until && u > from {
			s.except = append(s.except, t.Slices)
		}
	}
	if slices.ContainsFunc(s.except, func(e []task.Slice) bool { return len(e) == 1 }) || tiled(s.except) {
		return nil
	}
	return s
}

// tiled reports whether extents of two dimensions leave nothing of the second.
func tiled(extents [][]task.Slice) bool {
	end := int64(task.MinBound)
	slices.SortFunc(extents, func(a, b []task.Slice) int {
		af, _ := a[1].Bounds()
		bf, _ := b[1].Bounds()
		return int(min(1, max(-1, af/2-bf/2)))
	})
	for _, e := range extents {
		from, until := e[1].Bounds()
		if len(e) != 2 || from > end {
			return false
		}
		end = max(end, until)
	}
	return len(extents) > 0 && end == task.MaxBound
}

// nameBounds says the bounds of slices as people read them.
func nameBounds(ctx context.Context, src *tsdb.DB, h *tsdb.Hypertable, all []*piece) error {
	var values []int64
	for _, s := range all {
		from, until := s.task.Range.Bounds()
		values = append(values, from, until)
	}
	texts, err := h.Text(ctx, src, values)
	for i, s := range all {
		s.task.Range.FromText, s.task.Range.UntilText = texts[values[2*i]], texts[values[2*i+1]]
	}
	return err
}

// sliceResult is the record of a slice that was compared: a result, with the range
// of it.
type sliceResult struct {
	V     int        `json:"v"`
	Kind  string     `json:"kind"` // "result"
	Range task.Range `json:"range"`
	Chunk *task.Name `json:"chunk,omitempty"` // of the source; none where it has none
	Task  int64      `json:"task,omitempty"`  // none
	*task.Result
}

// looked reports what a look at a slice has found; of none, that there is to be
// another.
func (r *runner) looked(s *piece, res *task.Result, err error) {
	w := r.stretch
	r.mu.Lock()
	defer r.mu.Unlock()
	if res == nil && err == nil {
		w.again = append(w.again, s)
		return
	}
	r.course.ChunksDone++
	if err != nil {
		r.failed++
		if r.stop.Context.Err() == nil {
			r.log.Error(err)
		}
		return
	}
	record := &sliceResult{V: task.Version, Kind: "result", Range: s.task.Range, Result: res}
	if s.task.Kind == task.KindChunk && !s.beside {
		record.Chunk = &s.task.Chunk
	}
	if werr := task.Write(r.out, record); werr != nil {
		r.log.Error(fmt.Errorf("write the result record: %w", werr))
		r.failed++
	}
	r.rows += res.Rows
	r.tell(s, res)
}

// tell says for people what was found.
func (r *runner) tell(s *piece, res *task.Result) {
	if len(res.Differences) == 0 {
		say := r.log.Info // gone on the source
		if res.Status == task.Verified {
			r.equal++
			say = r.log.Detail
		}
		say("%s%s: %s", r.place(), s, res.Message)
		return
	}
	r.differ++
	if res.EqualByValue {
		r.equalByValue++
	}
	where := ""
	if s.beside {
		r.stretch.foreign = true
		where = " (the source has no chunk there)"
	} else {
		r.stretch.differ[s.task] = true
	}
	r.log.Warn("%s%s%s: %s", r.place(), s, where, res.Message)
	for _, d := range res.Differences[:min(len(res.Differences), mostDifferences)] {
		r.log.Warn("%s: %s", res.Hypertable, d)
	}
	if n := len(res.Differences) - mostDifferences; n > 0 {
		r.log.Warn("%s: and %d more in the record", res.Hypertable, n)
	}
}

// writePlan writes the plan that has what differs copied again.
func (r *runner) writePlan() error {
	p := r.stretch.plan
	p.Again = true
	p.Tasks = slices.DeleteFunc(p.Tasks, func(t *task.Task) bool { return !r.stretch.differ[t] })
	p.Hypertables = slices.DeleteFunc(p.Hypertables, func(h *tsdb.Hypertable) bool {
		return !slices.ContainsFunc(p.Tasks, func(t *task.Task) bool { return t.Hypertable == h.Name })
	})
	if len(p.Tasks) == 0 {
		p.Aggregates = nil
	}
	var heal []string
	if len(p.Tasks) > 0 {
		heal = append(heal, fmt.Sprintf("the plan on stdout has %d slices copied again: "+
			"bf-verify ... | bf-stage --target CONN, then bf-backfill as before", len(p.Tasks)))
	}
	if r.stretch.foreign {
		heal = append(heal, "where the source has no chunk nothing can be copied: "+
			"write those rows to the source, or delete them on the target")
	}
	if len(heal) > 0 {
		r.log.Warn("to make both sides equal: %s", strings.Join(heal, "; "))
	}
	return p.Write(r.out)
}
