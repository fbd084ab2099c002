// Command bf-caggs refreshes the continuous aggregates of the target up to
// where the source's are materialized.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"bf/lib/cagg"
	"bf/lib/cli"
	"bf/lib/pg"
	"bf/lib/queue"
	"bf/lib/task"
	"bf/lib/tsdb"
)

const name = "bf-caggs"

type flags struct {
	Source string `arg:"--source,env:BF_SOURCE" help:"connection string of the source; without it, its watermarks are those of the staged backfill" placeholder:"CONN"`
	Target string `arg:"--target,env:BF_TARGET" help:"connection string of the target" placeholder:"CONN"`
	Filter string `arg:"-f,--filter" help:"only continuous aggregates (schema.view) that match, case-insensitive" placeholder:"REGEX"`
	Up     bool   `arg:"-U,--cascade-up" help:"also the continuous aggregates that depend on a match"`
	Down   bool   `arg:"-D,--cascade-down" help:"also the continuous aggregates that a match depends on"`
	Dry    bool   `arg:"--dry-run" help:"print the windows that would be refreshed, and refresh nothing"`
	cli.Common
}

func (flags) Description() string {
	return "Refreshes the continuous aggregates of the target, from where they are materialized to where the source's are, window by window.\n" +
		"Copied buckets are kept as they are. Run it when the chunks are copied, or for itself: without a staged backfill it refreshes from the target's last refresh on, and creates nothing there.\n" +
		"Prints a record per window. Run again, it goes on where it was stopped."
}

func (flags) Epilogue() string {
	return "  bf-caggs --source \"$SOURCE\" --target \"$TARGET\""
}

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	var f flags
	if done, status := cli.Parse(name, &f, args, stdout, stderr); done {
		return status
	}
	if f.Target == "" {
		return cli.BadUsage(name, stderr, "--target is required (or BF_TARGET)")
	}
	log := cli.NewLog(name, stderr, f.Common)
	stop := cli.Signals(log)
	ctx := stop.Context
	db, err := tsdb.Open(ctx, pg.Target, f.Target, pg.Options{Application: name, Log: log.Info, Locks: true})
	if err != nil {
		if ctx.Err() != nil {
			return cli.Stopped
		}
		log.Error(err)
		return cli.Failed
	}
	defer db.Close()
	t := &tool{db: db, dry: f.Dry, log: log, stop: stop, out: stdout, failed: map[int32]bool{}, planned: map[int32][]tsdb.Span{}}
	aggregates, err := t.prepare(ctx, &f)
	if err != nil {
		log.Error(err)
		if pg.Code(err) == pg.InvalidRegexp { // --filter
			return cli.Usage
		}
		return cli.Failed
	}
	status := cli.OK
	for _, a := range aggregates {
		if t.failed[a.Raw] {
			log.Warn("%s: left out, as what it depends on has failed", a.Label())
			t.failed[a.ID] = true
			continue
		}
		if err := t.aggregate(ctx, a); err != nil {
			if ctx.Err() != nil {
				log.Warn("%s: stopped in the middle of a window; run bf-caggs again", a.Label())
				return cli.Stopped
			}
			log.Error(err)
			t.failed[a.ID], status = true, cli.Failed
			if db.Lost() {
				return status
			}
		}
		if stop.Asked() {
			return cli.Stopped
		}
	}
	if t.windows == 0 && status == cli.OK {
		log.Info("nothing to do")
	}
	return status
}

// tool is one run.
type tool struct {
	db  *tsdb.DB
	r   *cagg.Refresher
	dry bool
	// planless is set where no backfill is staged on the target.
	planless bool
	log      *cli.Log
	stop     *cli.Stop
	out      io.Writer
	failed   map[int32]bool        // aggregates, by the number of their hypertable
	planned  map[int32][]tsdb.Span // of a dry run
	windows  int
}

// prepare returns the matching aggregates, parents first.
func (t *tool) prepare(ctx context.Context, f *flags) ([]*tsdb.Aggregate, error) {
	err := queue.Check(ctx, t.db.Conn)
	switch planless := errors.Is(err, queue.ErrNone); {
	case planless && f.Source == "":
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
	chosen, err := t.db.Choose(ctx, all, tsdb.Choice{Filter: f.Filter, Up: f.Up, Down: f.Down})
	if err != nil {
		return nil, err
	}
	marks, err := t.marks(ctx, f)
	if err != nil {
		return nil, err
	}
	refresher := cagg.NewRefresher
	if t.planless {
		refresher = cagg.Planless
	}
	if t.r, err = refresher(ctx, t.db, all, marks); err != nil {
		return nil, err
	}
	matching, err := t.db.Aggregates(ctx, chosen)
	return slices.DeleteFunc(matching, func(a *tsdb.Aggregate) bool {
		_, ok := marks[*a.View]
		if !ok {
			t.log.Detail("%s: left alone, as the source has no such aggregate", a.Label())
		}
		return !ok
	}), err
}

// marks are the source's watermarks: as they are now, else as they were staged.
func (t *tool) marks(ctx context.Context, f *flags) (map[task.Name]int64, error) {
	if f.Source == "" {
		return cagg.Marks(ctx, t.db.Conn)
	}
	src, err := tsdb.Open(ctx, pg.Source, f.Source, pg.Options{Application: name, Log: t.log.Info})
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
	if t.dry || t.planless {
		return marks, nil
	}
	return marks, cagg.Remember(ctx, t.db.Conn, marks)
}

// record is what bf-caggs prints per window.
type record struct {
	V         int       `json:"v"`
	Aggregate task.Name `json:"aggregate"`
	From      int64     `json:"from,string"` // inclusive, in TimescaleDB's internal units
	Until     int64     `json:"until,string"`
	FromText  string    `json:"from_text"`
	UntilText string    `json:"until_text"`
	Keep      bool      `json:"keep"`   // the rows stay as they were copied
	Status    string    `json:"status"` // planned, refreshed or failed
	Seconds   float64   `json:"seconds"`
	Message   string    `json:"message,omitempty"`
}

// aggregate refreshes one aggregate.
func (t *tool) aggregate(ctx context.Context, a *tsdb.Aggregate) error {
	if !t.dry {
		if err := t.r.Lock(ctx, a); err != nil {
			return err
		}
		if w, ok, err := t.r.Resume(ctx, a); err != nil || ok {
			if err != nil {
				return err
			}
			t.windows++
			t.log.Info("%s: finished the window in which bf-caggs was interrupted", a.Label())
			if err := t.print(ctx, a, w, "refreshed", 0, nil); err != nil {
				return err
			}
		}
	}
	windows, err := t.r.Plan(ctx, a, t.planned[a.Raw])
	if err != nil {
		return err
	}
	if n := t.r.Pending(a); n > 0 {
		t.log.Warn("%s: %d tasks of it and of what it depends on are pending; run bf-caggs again after them", a.Label(), n)
	}
	for i, w := range windows {
		if t.stop.Asked() {
			return nil
		}
		t.windows++
		t.planned[a.ID] = append(t.planned[a.ID], w.Span)
		if t.dry {
			if err := t.print(ctx, a, w, "planned", 0, nil); err != nil {
				return err
			}
			continue
		}
		if err := t.window(ctx, a, w, i+1, len(windows)); err != nil {
			return err
		}
	}
	if t.dry {
		return nil
	}
	return t.finish(ctx, a)
}

// window refreshes one window, announced beforehand: it may take long.
func (t *tool) window(ctx context.Context, a *tsdb.Aggregate, w cagg.Window, i, n int) error {
	texts, err := t.db.Text(ctx, a.Hypertable, []int64{w.Span.From, w.Span.Until})
	if err != nil {
		return err
	}
	how := ""
	if w.Keep {
		how = ", keeping its rows"
	}
	t.log.Info("%s %d/%d: %s to %s%s", a.Label(), i, n, texts[w.Span.From], texts[w.Span.Until], how)
	start := time.Now()
	err = t.r.Refresh(ctx, a, w)
	took := time.Since(start)
	if err != nil {
		err = fmt.Errorf("window %s to %s: %w", texts[w.Span.From], texts[w.Span.Until], err)
		_ = t.print(ctx, a, w, "failed", took, err)
		return err
	}
	t.log.Detail("%s %d/%d: done in %.2fs", a.Label(), i, n, took.Seconds())
	return t.print(ctx, a, w, "refreshed", took, nil)
}

func (t *tool) print(ctx context.Context, a *tsdb.Aggregate, w cagg.Window, status string, took time.Duration, failure error) error {
	texts := map[int64]string{}
	if !t.db.Lost() {
		var err error
		if texts, err = t.db.Text(ctx, a.Hypertable, []int64{w.Span.From, w.Span.Until}); err != nil {
			return err
		}
	}
	r := record{V: task.Version, Aggregate: a.Label(), From: w.Span.From, Until: w.Span.Until,
		FromText: texts[w.Span.From], UntilText: texts[w.Span.Until], Keep: w.Keep, Status: status, Seconds: took.Seconds()}
	if failure != nil {
		r.Message = failure.Error()
	}
	return task.Write(t.out, r)
}

// finish says where the watermark stands.
func (t *tool) finish(ctx context.Context, a *tsdb.Aggregate) error {
	m, err := t.r.Finish(ctx, a)
	if err != nil || m == nil || m.Target >= m.Source {
		return err
	}
	values := []int64{m.Source, m.Target}
	if m.Hidden != nil {
		values = append(values, *m.Hidden)
	}
	texts, err := t.db.Text(ctx, a.Hypertable, values)
	if err != nil {
		return err
	}
	switch {
	case m.Moved:
		t.windows++
		t.log.Info("%s: watermark set to the source's, %s: no raw data is there whose refresh would do it", a.Label(), texts[m.Source])
	case m.Hidden != nil:
		t.log.Warn("%s: the real-time view does not show the buckets from %s on: no raw data is there whose refresh would move its watermark to the source's, %s, and only a superuser may", a.Label(), texts[*m.Hidden], texts[m.Source])
		t.log.Warn("hint: run bf-caggs as superuser; until then this shows them: alter materialized view %s set (timescaledb.materialized_only = true);", pg.Ident(a.View.Schema, a.View.Name))
	default:
		t.log.Detail("%s: watermark %s, the source's %s; there is nothing in between", a.Label(), texts[m.Target], texts[m.Source])
	}
	return nil
}
