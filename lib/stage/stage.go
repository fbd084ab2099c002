// Package stage plans a backfill: which chunks of the source become tasks, and
// do the two sides fit.
package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Options say what to stage.
type Options struct {
	From     string // inclusive; "" for no lower bound
	Until    string // exclusive
	Choice   tsdb.Choice
	Snapshot string // exported snapshot to read in
	Raw      bool   // without continuous aggregates

	// Target is where the rows go; nil if only the source is at hand. Relations that
	// are no hypertables are staged by its chunks.
	Target   *tsdb.DB
	Maps     []string                         // SOURCE=TARGET: relations whose hypertable has another name
	Any      bool                             // of relations: however often they have to be read
	SkipNull bool                             // of relations: leave out rows without a time
	Progress func(format string, args ...any) // told of long work; may be nil
	// Columnstore has the rows of relations compressed as they arrive, where the
	// hypertable can.
	Columnstore bool
}

// BadArgument is an option that the source does not accept.
type BadArgument struct {
	Flag string
	Err  error
	Hint string
}

func (e *BadArgument) Error() string { return e.Flag + ": " + e.Err.Error() }
func (e *BadArgument) Unwrap() error { return e.Err }

// Suggest and BadUsage are what package cli asks an error.
func (e *BadArgument) Suggest() string { return e.Hint }
func (e *BadArgument) BadUsage() bool  { return true }

// Plan is what bf-stage finds on the source: the hypertables concerned and one
// task per chunk.
type Plan struct {
	Source      Server
	Hypertables []*tsdb.Hypertable // parents before the aggregates on them
	// those hypertables that are aggregates, and all that depend on any of them;
	// parents first
	Aggregates []Aggregate
	Tasks      []*task.Task             // aggregates before what they aggregate, newest chunks first
	Compressed map[task.Name]Compressed // those of the tasks' chunks that are compressed
	Again      bool                     // what is done already is to be copied again: the sides differ
	// Into are the target's, of relations that are no hypertables
	Into  map[task.Name]*tsdb.Hypertable
	Loose []*Loose // what Fit finds will be left uncompressed
	Notes []string // what of the source is worth knowing; for people, not part of what is written
}

// Compressed is what the target's half of staging must know of a compressed chunk.
type Compressed struct {
	tsdb.Sizes
	ByRows bool `json:"by_rows,omitempty"` // its compressed relation cannot travel, whatever the target
	Grown  bool `json:"grown,omitempty"`   // it may be that it cannot: a column was added with a default
}

// Aggregate is what the target must know of a continuous aggregate of the
// source.
type Aggregate struct {
	View      task.Name `json:"view"`
	Watermark int64     `json:"watermark,string"`
	Until     *int64    `json:"until,string,omitempty"` // --until in its units; nil unless its chunks are copied
	Buckets   []int64   `json:"buckets,omitempty"`      // those of tsdb's Samples; nil unless its chunks are copied
	// Definition is its query, as the source spells it.
	Definition string `json:"definition,omitempty"`
}

// Server is what the target's half of staging must know of the source.
type Server struct {
	Identity    string `json:"identity"`
	Origin      string `json:"origin"`
	Postgres    int    `json:"postgres"`
	TimescaleDB string `json:"timescaledb"`
	Full        bool   `json:"full"`
}

// Make plans: it lists the chunks of the chosen hypertables that overlap [From,
// Until) on the primary dimension.
func Make(ctx context.Context, src *tsdb.DB, o Options) (*Plan, error) {
	all, err := src.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	relations, err := plains(ctx, src, o)
	if err != nil {
		return nil, err
	}
	choice := slices.Clone(all)
	for _, r := range relations {
		choice = append(choice, r.Hypertable)
	}
	if src.Plain() && len(choice) == 0 {
		return nil, nothingThere(src, o)
	}
	chosen, err := tsdb.Choose(ctx, src, choice, o.Choice)
	if err == nil {
		err = twoSources(chosen, relations)
	}
	if err != nil {
		return nil, err
	}
	if o.Raw {
		chosen = slices.DeleteFunc(chosen, func(h *tsdb.Hypertable) bool { return h.View != nil })
	}
	if err := checkSnapshot(ctx, src, o.Snapshot); err != nil {
		return nil, err
	}
	p := &Plan{Source: Server{src.Identity, src.Origin, src.Postgres, src.TimescaleDB, src.Full},
		Hypertables: chosen, Compressed: map[task.Name]Compressed{}, Into: map[task.Name]*tsdb.Hypertable{}}
	if err := p.addTasks(ctx, src, o); err != nil {
		return nil, err
	}
	if err := p.addSlices(ctx, src, relations, o); err != nil {
		return nil, err
	}
	if err := readable(ctx, src, p.Tasks); err != nil {
		return nil, err
	}
	order(chosen, p.Tasks)
	aggregates, err := src.Aggregates(ctx, tsdb.Affected(all, chosen))
	if err != nil {
		return nil, err
	}
	return p, p.addAggregates(ctx, src, aggregates, o.Until)
}

// addTasks makes the tasks of the plan's hypertables.
func (p *Plan) addTasks(ctx context.Context, src *tsdb.DB, o Options) error {
	ids := make([]int32, len(p.Hypertables))
	for i, h := range p.Hypertables {
		ids[i] = h.ID
	}
	all, err := src.Chunks(ctx, ids...)
	if err != nil {
		return err
	}
	chunks := map[int32][]*tsdb.Chunk{}
	for _, c := range all {
		chunks[c.Hypertable] = append(chunks[c.Hypertable], c)
	}
	var bad, moot *BadArgument // the first one, and the first one of a hypertable without chunks
	good := 0
	for _, h := range p.Hypertables {
		if h.Plain() {
			continue
		}
		tasks, err := tasksOf(ctx, src, h, chunks[h.ID], o)
		var arg *BadArgument
		switch {
		case err == nil:
			good++
			if err := p.add(ctx, src, h, chunks[h.ID], tasks); err != nil {
				return err
			}
		case !errors.As(err, &arg):
			return err
		case len(chunks[h.ID]) == 0:
			moot = cmp.Or(moot, arg)
		default:
			bad = cmp.Or(bad, arg)
		}
	}
	switch {
	case bad != nil:
		if good > 0 {
			bad.Hint = "hypertables with dimensions of different types are staged one after the other, with --filter"
		}
		return bad
	case moot != nil && good == 0:
		return moot
	}
	return nil
}

// add adds the tasks of one hypertable, and what there is to say of its chunks.
func (p *Plan) add(ctx context.Context, src *tsdb.DB, h *tsdb.Hypertable, chunks []*tsdb.Chunk,
	tasks []*task.Task) error {
	p.Tasks = append(p.Tasks, tasks...)
	if err := p.sizes(ctx, src, chunks, tasks); err != nil {
		return err
	}
	note, err := hidden(ctx, src, h, chunks, tasks)
	if note != "" {
		p.Notes = append(p.Notes, note)
	}
	return err
}

// addAggregates adds what the target must know of aggregates.
func (p *Plan) addAggregates(ctx context.Context, src *tsdb.DB, aggregates []*tsdb.Aggregate,
	bound string) (err error) {
	for _, a := range aggregates {
		pa := Aggregate{View: *a.View, Watermark: a.Watermark, Definition: a.Definition}
		if slices.ContainsFunc(p.Tasks, func(t *task.Task) bool { return t.Hypertable == a.Name }) {
			if pa.Buckets, err = a.Buckets(ctx, src, a.Samples()...); err != nil {
				return err
			}
			until, err := a.Hypertable.Internal(ctx, src, bound)
			if err != nil {
				return badBound("--until", err)
			}
			pa.Until = &until
		}
		p.Aggregates = append(p.Aggregates, pa)
	}
	return nil
}

// tasksOf makes a task of every chunk of h that overlaps the staged range.
func tasksOf(ctx context.Context, src *tsdb.DB, h *tsdb.Hypertable, chunks []*tsdb.Chunk,
	o Options) ([]*task.Task, error) {
	lo, hi, err := bounds(ctx, src, h, o)
	if err != nil {
		return nil, err
	}
	var tasks []*task.Task
	for _, c := range chunks {
		from, _ := task.Bound(c.Slices[0].From)
		until, _ := task.Bound(c.Slices[0].Until)
		if until <= lo || from >= hi {
			continue
		}
		t := &task.Task{V: task.Version, Hypertable: h.Name, View: h.View, Chunk: c.Name,
			Slices: slices.Clone(c.Slices),
			Origin: src.Origin, LSN: src.LSN, Snapshot: o.Snapshot, Bytes: c.Bytes, Rows: c.Rows}
		for i := range t.Slices {
			if d := h.Dimension(t.Slices[i].Column); d != nil {
				t.Slices[i].Hash = d.Hash()
			}
		}
		first, last := max(from, lo), min(until, hi)
		t.Range = task.Range{Column: c.Slices[0].Column, From: task.FormatBound(first), Until: task.FormatBound(last),
			Partial: first != from || last != until}
		if t.Range.Partial {
			// An estimate for progress: the share of the range.
			share := (float64(last) - float64(first)) / (float64(until) - float64(from))
			t.Bytes, t.Rows = int64(float64(t.Bytes)*share), int64(float64(t.Rows)*share)
		}
		tasks = append(tasks, t)
	}
	return tasks, spell(ctx, src, h, tasks)
}

// bounds are --from and --until in the hypertable's internal values.
func bounds(ctx context.Context, db *tsdb.DB, h *tsdb.Hypertable, o Options) (lo, hi int64, err error) {
	lo = task.MinBound
	if o.From != "" {
		if lo, err = h.Internal(ctx, db, o.From); err != nil {
			return 0, 0, badBound("--from", err)
		}
	}
	if hi, err = h.Internal(ctx, db, o.Until); err != nil {
		return 0, 0, badBound("--until", err)
	}
	switch {
	case lo < hi:
		return lo, hi, nil
	case o.From == "":
		return 0, 0, &BadArgument{Flag: "--until", Err: fmt.Errorf("nothing is before %s", o.Until)}
	}
	return 0, 0, &BadArgument{Flag: "--from", Err: fmt.Errorf("%s is not before --until %s", o.From, o.Until)}
}

// spell adds the ranges of tasks as people read them. The hypertable is of that side.
func spell(ctx context.Context, db *tsdb.DB, h *tsdb.Hypertable, tasks []*task.Task) error {
	var ends []int64
	for _, t := range tasks {
		from, _ := task.Bound(t.Range.From)
		until, _ := task.Bound(t.Range.Until)
		ends = append(ends, from, until)
	}
	texts, err := h.Text(ctx, db, ends)
	for i, t := range tasks {
		t.Range.FromText, t.Range.UntilText = texts[ends[2*i]], texts[ends[2*i+1]]
	}
	return err
}

// nothingThere says why a source without TimescaleDB has nothing to stage.
func nothingThere(src *tsdb.DB, o Options) error {
	err := &pg.Error{Side: src.Side, Object: "database " + strconv.Quote(src.Config().Database),
		Err: tsdb.ErrNoExtension,
		Hint: "check the database name; of a source without it the tables are staged that a hypertable of the target " +
			"has the name of, and those of --map: there are none"}
	if o.Target == nil {
		return &BadArgument{Flag: "--source", Err: err,
			Hint: "give --target as well: tables of a source without it are cut along the target's chunks"}
	}
	return err
}

// checkSnapshot tries to use an exported snapshot: otherwise every dump would fail.
func checkSnapshot(ctx context.Context, src *tsdb.DB, id string) error {
	if id == "" {
		return nil
	}
	_, err := src.Exec(ctx, "begin isolation level repeatable read read only; set transaction snapshot "+
		pg.Literal(id)+"; commit")
	if err != nil {
		_, _ = src.Exec(ctx, "rollback")
		return &pg.Error{Side: src.Side, Object: "--snapshot " + id, Err: err,
			Hint: "give the result of pg_export_snapshot(), " +
				"and keep the session that called it in its transaction until all dumps are done"}
	}
	return nil
}

func badBound(flag string, err error) error {
	var p *tsdb.BadBound
	if errors.As(err, &p) {
		return &BadArgument{Flag: flag, Err: err}
	}
	return err
}

// order sorts tasks: aggregates before what they aggregate, newest chunks first within
// each level. When a chunk of raw rows comes, the target has to hold the buckets of its
// range: else they are computed again.
func order(hs []*tsdb.Hypertable, tasks []*task.Task) {
	level := map[task.Name]int{}
	byID := tsdb.Levels(hs)
	for _, h := range hs {
		level[h.Name] = byID[h.ID]
	}
	slices.SortStableFunc(tasks, func(a, b *task.Task) int {
		af, _ := task.Bound(a.Range.From)
		bf, _ := task.Bound(b.Range.From)
		return cmp.Or(
			cmp.Compare(level[b.Hypertable], level[a.Hypertable]),
			cmp.Compare(bf, af),
			strings.Compare(a.Hypertable.String(), b.Hypertable.String()),
			slices.CompareFunc(a.Slices, b.Slices, func(x, y task.Slice) int {
				return strings.Compare(x.From, y.From)
			}))
	})
}
