package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/source"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// sweep looks for rows outside of the blocks that tasks read: inserted or updated since
// the blocks were mapped, into free space anywhere. Dump and comparison read the same
// blocks and cannot see them. So each relation of which tasks were compared here, and
// found equal, is counted once as a whole.
func (r *runner) sweep(ctx context.Context) error {
	if len(r.mapped) == 0 {
		return nil
	}
	p, err := Open(ctx, r.Source, r.Target, r.Method, pg.Options{Application: application + " worker", Log: r.log.Info})
	if err != nil {
		return err
	}
	defer p.Close()
	swept := map[task.Name]*sweeping{}
	err = queue.Each(ctx, p.Target.Conn, queue.Selection{State: queue.All}, func(e *queue.Entry) error {
		if r.mapped[e.Hypertable] == nil || e.Kind != task.KindSlice {
			return nil
		}
		s := swept[e.Hypertable]
		if s == nil {
			s = &sweeping{pair: p, of: e.Hypertable}
			swept[e.Hypertable] = s
		}
		s.tasks = append(s.tasks, e)
		return nil
	})
	if err != nil {
		return err
	}
	for name, s := range swept {
		found, err := s.run(ctx)
		if err != nil {
			return p.Source.Wrap(err, "count the rows of %s", name)
		}
		for _, f := range found {
			if err := r.reportMoved(ctx, p, f); err != nil {
				return err
			}
		}
		r.log.Detail("%s: all rows counted; %d ranges are not as they were mapped", name, len(found))
	}
	return nil
}

// sweeping is the counting of one relation.
type sweeping struct {
	pair  *Pair
	of    task.Name
	tasks []*queue.Entry // all of it, by range
}

// moved is a range with other rows than when its blocks were mapped.
type moved struct {
	entry       *queue.Entry // nil for a range that no task has
	of          *task.Task   // whose relation it is in
	now, staged int64
	from, until int64
}

// run counts the rows between the bounds of all tasks, and compares.
func (s *sweeping) run(ctx context.Context) (found []moved, err error) {
	var bounds []int64
	for _, e := range s.tasks {
		from, until := e.Range.Bounds()
		bounds = append(bounds, from, until)
		if e.Scan.Until != "" { // before the first task and after the last one as well
			from, until = (task.Slice{From: e.Scan.From, Until: e.Scan.Until}).Bounds()
			bounds = append(bounds, from, until)
		}
	}
	bounds, rows, err := s.count(ctx, bounds)
	if err != nil {
		return nil, err
	}
	for i, until := range bounds[1:] {
		from, n := bounds[i], rows[i]
		at := slices.IndexFunc(s.tasks, func(e *queue.Entry) bool {
			lo, hi := e.Range.Bounds()
			return lo <= from && until <= hi
		})
		if at < 0 {
			if n > 0 {
				found = append(found, moved{of: &s.tasks[0].Task, now: n, from: from, until: until})
			}
			continue
		}
		e := s.tasks[at]
		if e.Verified && e.Scan.By == task.ByBlocks && n != e.Scan.Rows {
			found = append(found, moved{entry: e, of: &e.Task, now: n, staged: e.Scan.Rows, from: from, until: until})
		}
	}
	return found, nil
}

// count sorts bounds and counts the rows between them, in the snapshot of the tasks if
// it still is there.
func (s *sweeping) count(ctx context.Context, bounds []int64) (sorted, n []int64, err error) {
	db, t := s.pair.Source, s.tasks[0].Task
	defer db.Rollback(ctx)
	err = source.Begin(ctx, db, &t)
	if errors.Is(err, source.ErrSnapshot) {
		db.Rollback(ctx)
		t.Snapshot = ""
		err = source.Begin(ctx, db, &t)
	}
	if err != nil {
		return nil, nil, err
	}
	h, err := db.PlainRelation(ctx, s.of, t.Range.Column)
	if err != nil {
		return nil, nil, err
	}
	if h == nil {
		return nil, nil, errors.New("is not there any more")
	}
	for i := range bounds {
		bounds[i] = max(bounds[i], h.Lowest()) // rows without a time are in no range
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	leaves, err := tsdb.Leaves(ctx, db, h)
	if err != nil {
		return nil, nil, err
	}
	n = make([]int64, len(bounds))
	for _, l := range leaves {
		some, _, err := (tsdb.Part{Leaf: l}).Count(ctx, db, h, bounds)
		if err != nil {
			return nil, nil, err
		}
		for i, rows := range some {
			n[i] += rows
		}
	}
	return bounds, n, nil
}

// reportMoved takes the task's verdict back and says why.
func (r *runner) reportMoved(ctx context.Context, p *Pair, m moved) error {
	t := m.of
	res := t.Result()
	res.Status, res.Rows = task.Differs, m.now
	rows := task.Difference{What: "rows", Source: task.FormatBound(m.now), Target: task.FormatBound(m.staged)}
	res.Differences = []task.Difference{rows}
	if m.entry == nil {
		res.Task = 0
		r := task.NewRange(t.Range.Column, m.from, m.until)
		res.Range = &r
		res.Message = fmt.Sprintf("%d rows of the source in %s (internal values) belong to no task: run bf-stage again",
			m.now, res.Range)
	} else {
		res.Message = fmt.Sprintf("the source has %d rows in the range, and had %d when their blocks were mapped: "+
			"rows were inserted, changed or deleted since; "+
			"run bf-stage again, then copy this task again (bf-load --force)",
			m.now, m.staged)
		stored, err := queue.Verdict(ctx, p.Target.Conn, m.entry, res)
		if err != nil || !stored { // copied again meanwhile: with a verdict to come
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.differ++
	if r.mapped[t.Hypertable][t.Task] && m.entry != nil {
		r.equal--
	}
	r.log.Warn("%s: %s", t, res.Message)
	return task.Write(r.out, res)
}

// remember notes a task whose relation is to be swept.
func (r *runner) remember(t *task.Task, res *task.Result) {
	if t.Scan == nil || t.Scan.By != task.ByBlocks || res.Status != task.Verified {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mapped == nil {
		r.mapped = map[task.Name]map[int64]bool{}
	}
	if r.mapped[t.Hypertable] == nil {
		r.mapped[t.Hypertable] = map[int64]bool{}
	}
	r.mapped[t.Hypertable][t.Task] = true
}
