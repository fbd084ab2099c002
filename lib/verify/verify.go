// Package verify compares what the two sides hold of a task: a summary of each,
// computed by the servers in one snapshot per side, and a judgement of the
// pair. The two halves may run on two machines: a summary is a record.
package verify

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/source"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Method is how two sides are compared.
type Method string

const (
	// ByRows hashes every row and adds the hashes up: it finds any change of the
	// multiset of rows.
	ByRows Method = "rows"
	// ByValue is ByRows, but values that their type's = calls equal count as
	// equal (1.0 and 1.00): compression may keep one of them for all.
	ByValue Method = "values"
	// BySummary compares the number of rows and count, min, max and sum of each
	// column.
	BySummary Method = "summary"
)

// Known reports whether m is one of the methods.
func (m Method) Known() bool { return m == ByRows || m == ByValue || m == BySummary }

// Pair compares tasks over one connection per side; for a half, of one side only.
type Pair struct {
	Source, Target *tsdb.DB
	method         Method
	text           source.CSV // the source, if it is CSV; Source is the target then, once more
}

// Open connects to the sides whose connection strings are given. A target has to
// hold tasks.
func Open(ctx context.Context, src, dst string, m Method, o pg.Options) (*Pair, error) {
	p, err := connect(ctx, src, dst, m, o)
	if err != nil || p.Target == nil {
		return p, err
	}
	if err := queue.Check(ctx, p.Target.Conn); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func connect(ctx context.Context, src, dst string, m Method, o pg.Options) (_ *Pair, err error) {
	p := &Pair{method: m}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.text, err = source.OpenCSV(src, os.Stderr); err != nil {
		return nil, err
	}
	if p.text != nil {
		src = dst
	}
	if src != "" {
		if p.Source, err = open(ctx, pg.Source, src, o); err != nil {
			return nil, err
		}
	}
	if dst != "" {
		if p.Target, err = open(ctx, pg.Target, dst, o); err != nil {
			return nil, err
		}
	}
	if p.text == nil && p.Source != nil && p.Target != nil && p.Source.Identity == p.Target.Identity {
		return nil, &pg.Error{Side: pg.Target, Err: errors.New("source and target are the same database"),
			Hint: "check --source and --target"}
	}
	return p, nil
}

// open connects to one side. No parallel query: what a verification costs a
// server is bounded by the number of its connections.
func open(ctx context.Context, side pg.Side, conn string, o pg.Options) (*tsdb.DB, error) {
	db, err := tsdb.Open(ctx, side, conn, o)
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec(ctx, "set max_parallel_workers_per_gather = 0"); err != nil {
		db.Close()
		return nil, db.Wrap(err, "session settings")
	}
	return db, nil
}

// Close ends the connections.
func (p *Pair) Close() {
	for _, db := range []*tsdb.DB{p.Source, p.Target} {
		if db != nil {
			db.Close()
		}
	}
	if p.text != nil {
		p.text.Close()
	}
}

// Lost reports whether a connection is beyond use.
func (p *Pair) Lost() bool {
	return p.Source != nil && p.Source.Lost() || p.Target != nil && p.Target.Lost()
}

// Verify compares the two sides of a task and says what it found. The error is
// why they could not be compared.
func (p *Pair) Verify(ctx context.Context, t *task.Task) (*task.Result, error) {
	return report(t, func(res *task.Result) error { return p.verify(ctx, t, res) })
}

// report returns the result of a task, which f fills in.
func report(t *task.Task, f func(res *task.Result) error) (*task.Result, error) {
	start := time.Now()
	res := t.Result()
	err := f(res)
	res.Seconds = time.Since(start).Seconds()
	if err != nil {
		res.Status, res.Message = task.Failed, err.Error()
	}
	return res, err
}

func (p *Pair) verify(ctx context.Context, t *task.Task, res *task.Result) error {
	from, err := p.enterSource(ctx, t)
	defer from.leave(ctx)
	if errors.Is(err, source.ErrGone) {
		sourceGone(res)
		return nil
	}
	if err != nil {
		return p.Source.Wrap(err, "%s", t.What())
	}
	to, err := enterTarget(ctx, p.Target, t)
	defer to.leave(ctx)
	if err != nil {
		return p.Target.Wrap(err, "%s", t)
	}
	cols, diffs := agree(from, to)
	if p.method == ByValue {
		if cols, err = bothByEquality(ctx, from, to, cols); err != nil {
			return err
		}
	}
	a, b, err := p.compare(ctx, from, to, cols)
	if err != nil {
		return err
	}
	c := comparison{method: p.method, source: a, target: b, diffs: diffs, to: to}
	c.judge(res)
	if a.Hash == b.Hash || to.gone {
		return nil
	}
	found, atLeast, err := keys(ctx, from, to, cols)
	if err != nil {
		return err
	}
	listRows(res, found, atLeast)
	if p.method == ByRows && len(diffs) == 0 && a.Rows == b.Rows {
		equal, err := equalByValue(ctx, from, to, cols)
		if err != nil {
			return err
		}
		if equal {
			excuse(res, to)
		}
	}
	return nil
}

func (p *Pair) enterSource(ctx context.Context, t *task.Task) (*side, error) {
	if p.text != nil {
		return enterCSV(ctx, p.Source, p.text, t)
	}
	return enterSource(ctx, p.Source, t)
}

// equalByValue reports whether rows that differ are the same as the method
// ByValue sees them.
func equalByValue(ctx context.Context, from, to *side, cols []Column) (bool, error) {
	byValue, err := bothByEquality(ctx, from, to, cols)
	if err != nil || slices.Equal(byValue, cols) {
		return false, err
	}
	a, b, err := both(ctx, from, to, func(ctx context.Context, s *side) (*Summary, error) {
		return s.summarize(ctx, byValue, want{hash: true})
	})
	return err == nil && a.Hash == b.Hash, err
}

// compare summarizes the two sides in the cheapest way that the method allows for
// this pair of chunks. Where rows differ, the summaries show in which columns.
func (p *Pair) compare(ctx context.Context, from, to *side, cols []Column) (a, b *Summary, err error) {
	summaries := func(w want) (a, b *Summary, err error) {
		return both(ctx, from, to, func(ctx context.Context, s *side) (*Summary, error) {
			return s.summarize(ctx, cols, w)
		})
	}
	if p.method == BySummary {
		return summaries(want{values: true})
	}
	a, b, proven, err := p.compareBatches(ctx, from, to)
	if err != nil || proven {
		return a, b, err
	}
	a, b, err = summaries(want{hash: true})
	if err != nil || a.Rows == b.Rows && a.Hash == b.Hash || to.gone {
		return a, b, err
	}
	return summaries(want{hash: true, values: true, hashes: true})
}

// both runs f for the two sides at the same time.
func both[T any](ctx context.Context, from, to *side, f func(context.Context, *side) (T, error)) (a, b T, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		var err error
		if b, err = f(ctx, to); err != nil {
			cancel(err)
		}
		done <- err
	}()
	if a, err = f(ctx, from); err != nil {
		cancel(err)
	}
	if e := <-done; err == nil || errors.Is(err, context.Canceled) && e != nil {
		err = e
	}
	return a, b, err
}

// Summarize is the source's half: the summary of a task, for a judge elsewhere.
func (p *Pair) Summarize(ctx context.Context, t *task.Task) (*Summary, error) {
	start := time.Now()
	db, m := p.Source, p.method
	from, err := enterSource(ctx, db, t)
	defer from.leave(ctx)
	if errors.Is(err, source.ErrGone) {
		s := newSummary(StateGone)
		s.Task, s.Method, s.Seconds = *t, m, time.Since(start).Seconds()
		return s, nil
	}
	if err != nil {
		return nil, db.Wrap(err, "%s", t.What())
	}
	cols := from.columns(from.h.Copied())
	if m == ByValue {
		if cols, err = from.byEquality(ctx, cols); err != nil {
			return nil, err
		}
	}
	// With the values of columns even if only rows are hashed: the judge may have
	// to show them, and cannot query the source.
	s, err := from.summarize(ctx, cols, want{hash: m != BySummary, values: true})
	if err != nil {
		return nil, err
	}
	s.Task, s.Method = *t, m
	s.Seconds = time.Since(start).Seconds()
	return s, nil
}

// Judge is the target's half: it computes the same summary of the target and
// compares.
func (p *Pair) Judge(ctx context.Context, t *task.Task, a *Summary) (*task.Result, error) {
	db := p.Target
	return report(t, func(res *task.Result) error {
		if a.State == StateGone {
			sourceGone(res)
			return nil
		}
		to, err := enterTarget(ctx, db, t)
		defer to.leave(ctx)
		if err != nil {
			return db.Wrap(err, "%s", t)
		}
		cols, diffs, err := to.follow(ctx, a)
		if err != nil {
			return err
		}
		b, err := to.summarize(ctx, cols, want{hash: a.Method != BySummary, values: true})
		if err != nil {
			return err
		}
		c := comparison{method: a.Method, source: a, target: b, diffs: diffs, to: to}
		c.judge(res)
		return nil
	})
}
