package cagg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Options say what a run refreshes.
type Options struct {
	Source string // "": up to the watermarks that were staged
	Target string
	Choice tsdb.Choice
	Dry    bool // print the windows, and refresh nothing
}

// runner is one run.
type runner struct {
	*cli.Env
	Options
	db       *tsdb.DB
	r        *Refresher
	planless bool                  // no backfill is staged on the target
	failed   map[int32]bool        // aggregates, by the number of their hypertable
	planned  map[int32][]tsdb.Span // of a dry run
	windows  int
}

// Run refreshes the aggregates that are chosen, and prints a record per window. The
// error is cli.Exit where it was told already.
func Run(e *cli.Env, o Options) error {
	options := e.Options()
	options.Locks = true
	db, err := tsdb.Open(e.Stop.Context, pg.Target, o.Target, options)
	if err != nil {
		return err
	}
	defer db.Close()
	t := &runner{Env: e, Options: o, db: db, failed: map[int32]bool{}, planned: map[int32][]tsdb.Span{}}
	aggregates, err := t.prepare()
	if err != nil {
		return err
	}
	return t.run(aggregates)
}

// run refreshes aggregates, parents first. Where one fails, the aggregates that
// depend on it are left out.
func (t *runner) run(aggregates []*tsdb.Aggregate) error {
	ctx := t.Stop.Context
	for _, a := range aggregates {
		if t.failed[a.Raw] {
			t.Log.Warn("%s: left out, as what it depends on has failed", a.Label())
			t.failed[a.ID] = true
			continue
		}
		err := t.aggregate(ctx, a)
		switch {
		case err != nil && ctx.Err() != nil:
			t.Log.Warn("%s: stopped in the middle of a window; run bf-caggs again", a.Label())
			return cli.Exit(cli.Stopped)
		case err != nil && t.db.Lost():
			return err
		case err != nil:
			t.Log.Error(err)
			t.failed[a.ID] = true
		}
		if t.Stop.Asked() {
			return cli.Exit(cli.Stopped)
		}
	}
	switch {
	case len(t.failed) > 0:
		return cli.Exit(cli.Failed)
	case t.windows == 0:
		t.Log.Info("nothing to do")
	}
	return nil
}

// prepare returns the matching aggregates, parents first.
func (t *runner) prepare() ([]*tsdb.Aggregate, error) {
	ctx := t.Stop.Context
	err := queue.Check(ctx, t.db.Conn)
	switch planless := errors.Is(err, queue.ErrNone); {
	case planless && t.Source == "":
		return nil, &pg.Error{Side: pg.Target, Err: queue.ErrNone,
			Hint: "give --source: without a staged backfill only the source says how far to refresh"}
	case planless:
		t.planless = true
	case err != nil:
		return nil, err
	}
	all, err := t.db.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	choice, err := t.sources(ctx, all)
	if err != nil {
		return nil, err
	}
	chosen, err := tsdb.Choose(ctx, t.db, choice, t.Choice)
	if err != nil {
		return nil, err
	}
	marks, err := t.marks(ctx)
	if err != nil {
		return nil, err
	}
	refresher := NewRefresher
	if t.planless {
		refresher = Planless
	} else if err := t.onSlices(ctx, all, marks); err != nil {
		return nil, err
	}
	if t.r, err = refresher(ctx, t.db, all, marks); err != nil {
		return nil, err
	}
	matching, err := t.db.Aggregates(ctx, chosen)
	return slices.DeleteFunc(matching, func(a *tsdb.Aggregate) bool {
		_, ok := marks[*a.View]
		if !ok {
			t.Log.Detail("%s: left alone, as the source has no such aggregate", a.Label())
		}
		return !ok
	}), err
}

// sources adds the sources of hypertables that have another name there: --filter may
// name them, as bf-stage's does.
func (t *runner) sources(ctx context.Context, all []*tsdb.Hypertable) ([]*tsdb.Hypertable, error) {
	if t.planless {
		return all, nil
	}
	into, err := queue.Sources(ctx, t.db.Conn)
	choice := slices.Clone(all)
	for _, h := range all {
		if source, ok := into[h.Name]; ok && h.View == nil {
			choice = append(choice, &tsdb.Hypertable{ID: h.ID, Name: source})
		}
	}
	return choice, err
}

// marks are the source's watermarks: the present ones, or without --source those
// of the staging.
func (t *runner) marks(ctx context.Context) (map[task.Name]int64, error) {
	if t.Source == "" {
		return queue.Marks(ctx, t.db.Conn)
	}
	src, err := tsdb.Open(ctx, pg.Source, t.Source, t.Env.Options())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	all, err := src.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	theirs, err := src.Aggregates(ctx, all)
	if err != nil {
		return nil, err
	}
	marks := map[task.Name]int64{}
	for _, a := range theirs {
		marks[*a.View] = a.Watermark
	}
	if t.Dry || t.planless {
		return marks, nil
	}
	return marks, queue.SetMarks(ctx, t.db.Conn, marks)
}

// onSlices adds the aggregates of what was copied from a source that has no hypertables,
// and so no aggregates: they are refreshed up to the last bucket that was copied whole.
func (t *runner) onSlices(ctx context.Context, all []*tsdb.Hypertable, marks map[task.Name]int64) error {
	ends, err := queue.SliceEnds(ctx, t.db.Conn)
	if err != nil {
		return err
	}
	byID := map[int32]*tsdb.Hypertable{}
	for _, h := range all {
		byID[h.ID] = h
	}
	aggregates, err := t.db.Aggregates(ctx, all)
	if err != nil {
		return err
	}
	for _, h := range aggregates {
		raw := h.Hypertable
		for raw != nil && raw.View != nil {
			raw = byID[raw.Raw]
		}
		if _, theirs := marks[*h.View]; raw == nil || theirs {
			continue
		}
		if end, ok := ends[raw.Name]; ok {
			bucket, err := h.Buckets(ctx, t.db, end)
			if err != nil {
				return err
			}
			marks[*h.View] = bucket[0]
		}
	}
	return nil
}

// record is what bf-caggs prints per window.
type record struct {
	V         int       `json:"v"`
	Aggregate task.Name `json:"aggregate"`
	From      int64     `json:"from,string"` // inclusive, in TimescaleDB's internal units
	Until     int64     `json:"until,string"`
	FromText  string    `json:"from_text"`
	UntilText string    `json:"until_text"`
	Keep      bool      `json:"keep"`   // the rows are those that were copied
	Status    string    `json:"status"` // planned, refreshed or failed
	Seconds   float64   `json:"seconds"`
	Message   string    `json:"message,omitempty"`
}

// aggregate refreshes one aggregate.
func (t *runner) aggregate(ctx context.Context, a *tsdb.Aggregate) error {
	if !t.Dry {
		if err := t.r.Lock(ctx, a); err != nil {
			return err
		}
		if w, ok, err := t.r.Resume(ctx, a); err != nil || ok {
			if err != nil {
				return err
			}
			t.windows++
			t.Log.Info("%s: finished the window in which bf-caggs was interrupted", a.Label())
			if err := t.print(ctx, a, w, record{Status: "refreshed"}); err != nil {
				return err
			}
		}
	}
	windows, err := t.r.Plan(ctx, a, t.planned[a.Raw])
	if err != nil {
		return err
	}
	if n := t.r.Pending(a); n > 0 {
		t.Log.Warn("%s: %d tasks of it and of what it depends on are pending; run bf-caggs again after them",
			a.Label(), n)
	}
	for i, w := range windows {
		if t.Stop.Asked() {
			return nil
		}
		t.windows++
		t.planned[a.ID] = append(t.planned[a.ID], w.Span)
		if t.Dry {
			if err := t.print(ctx, a, w, record{Status: "planned"}); err != nil {
				return err
			}
			continue
		}
		if err := t.window(ctx, a, w, i+1, len(windows)); err != nil {
			return err
		}
	}
	if t.Dry {
		return nil
	}
	return t.finish(ctx, a)
}

// window refreshes one window. It prints the window first: a refresh may take long.
func (t *runner) window(ctx context.Context, a *tsdb.Aggregate, w Window, i, n int) error {
	texts, err := a.Hypertable.Text(ctx, t.db, []int64{w.Span.From, w.Span.Until})
	if err != nil {
		return err
	}
	how := ""
	if w.Keep {
		how = ", keeping its rows"
	}
	t.Log.Info("%s %d/%d: %s to %s%s", a.Label(), i, n, texts[w.Span.From], texts[w.Span.Until], how)
	start := time.Now()
	err = t.r.Refresh(ctx, a, w)
	took := time.Since(start)
	if err != nil {
		err = fmt.Errorf("window %s to %s: %w", texts[w.Span.From], texts[w.Span.Until], err)
		_ = t.print(ctx, a, w, record{Status: "failed", Seconds: took.Seconds(), Message: err.Error()})
		return err
	}
	t.Log.Detail("%s %d/%d: done in %.2fs", a.Label(), i, n, took.Seconds())
	return t.print(ctx, a, w, record{Status: "refreshed", Seconds: took.Seconds()})
}

// print prints the record of a window.
func (t *runner) print(ctx context.Context, a *tsdb.Aggregate, w Window, r record) error {
	texts := map[int64]string{}
	if !t.db.Lost() {
		var err error
		if texts, err = a.Hypertable.Text(ctx, t.db, []int64{w.Span.From, w.Span.Until}); err != nil {
			return err
		}
	}
	r.V, r.Aggregate, r.From, r.Until, r.Keep = task.Version, a.Label(), w.Span.From, w.Span.Until, w.Keep
	r.FromText, r.UntilText = texts[w.Span.From], texts[w.Span.Until]
	return task.Write(t.Stdout, r)
}

// finish sets the watermark where refreshing did not, and reports it.
func (t *runner) finish(ctx context.Context, a *tsdb.Aggregate) error {
	m, err := t.r.Finish(ctx, a)
	if err != nil || m == nil || m.Target >= m.Source {
		return err
	}
	values := []int64{m.Source, m.Target}
	if m.Hidden != nil {
		values = append(values, *m.Hidden)
	}
	texts, err := a.Hypertable.Text(ctx, t.db, values)
	if err != nil {
		return err
	}
	switch {
	case m.Moved:
		t.windows++
		t.Log.Info("%s: watermark set to the source's, %s: no refresh is left that would move it", a.Label(),
			texts[m.Source])
	case m.Hidden != nil:
		t.Log.Warn("%s: the real-time view does not show the buckets from %s on: there are no raw rows whose refresh "+
			"would move its watermark to the source's, %s, and only a superuser may", a.Label(), texts[*m.Hidden],
			texts[m.Source])
		t.Log.Warn("hint: run bf-caggs as superuser; until then this shows them: "+
			"alter materialized view %s set (timescaledb.materialized_only = true);",
			pg.Ident(a.View.Schema, a.View.Name))
	default:
		t.Log.Detail("%s: watermark %s, the source's %s; there is nothing in between", a.Label(), texts[m.Target],
			texts[m.Source])
	}
	return nil
}
