package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bf/lib/csv"
	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Files says how CSV is written, and where its rows go.
type Files struct {
	Into     string // a hypertable of the target, as SQL spells it
	Columns  string // names in the order of the fields, "-" for one to leave out; "" for those of the header
	NoHeader bool   // the first record is data
	Dialect  csv.Dialect

	// Of files, not of a command:
	Origin string   // tells the directory from others
	Paths  []string // below the directory of the source
	Open   func(path string) (*csv.File, io.Closer, error)
	Reject io.Writer // gets the records that are bad, which are left out; nil if there must be none
}

// originCommand is the origin of tasks of a command, which cannot be told from another one:
// the same text may read other data, another one the same.
const originCommand = "exec"

// mostSlices is how many tasks CSV may become: more are a mistake in a bound.
const mostSlices = 100_000

// filling is a hypertable of the target that CSV is to fill.
type filling struct {
	Files
	h      *tsdb.Hypertable
	scan   *task.Scan // what the records say of the CSV
	format *csv.Format
	grid   *grid
	in     span // what is staged
}

func newFilling(ctx context.Context, o Options, f Files) (c *filling, err error) {
	c = &filling{Files: f}
	if c.h, err = into(ctx, o.Target, f.Into); err != nil {
		return nil, err
	}
	if c.scan, err = f.scan(c.h); err != nil {
		return nil, err
	}
	if c.in.From, c.in.Until, err = bounds(ctx, o.Target, c.h, o); err != nil {
		return nil, err
	}
	if c.format, err = f.Dialect.Format(); err != nil {
		return nil, &BadArgument{Flag: "dialect", Err: err}
	}
	d := c.h.Dimensions[0]
	if _, err := c.format.Clock(d.RangeType); err != nil {
		return nil, &BadArgument{Flag: "--into", Err: fmt.Errorf("column %q: %w", d.Column, err)}
	}
	c.grid, err = newGrid(ctx, o.Target, c.h)
	return c, err
}

// Command plans for a command: a task for each slice of the target's grid in [From,
// Until), as nobody knows what the command will print. Nothing is run.
func Command(ctx context.Context, o Options, f Files) (*Plan, error) {
	c, err := newFilling(ctx, o, f)
	if err != nil {
		return nil, err
	}
	if err := tellable(c.h.Dimensions[0].RangeType, c.in); err != nil {
		return nil, err
	}
	p := csvPlan(c.h, originCommand)
	for at := c.in.From; at < c.in.Until; {
		extent := c.grid.at(at)
		t := c.task(extent, c.scan)
		t.Kind, t.Origin = task.KindExec, originCommand
		p.Tasks = append(p.Tasks, t)
		if at = extent.Until; len(p.Tasks) > mostSlices {
			return nil, tooMany("from %s to %s are", o.From, o.Until)
		}
	}
	slices.Reverse(p.Tasks) // newest first, as ever
	return p, spell(ctx, o.Target, c.h, p.Tasks)
}

func tooMany(what string, args ...any) error {
	return &BadArgument{Flag: "--from", Hint: "chunks may be larger: set_chunk_time_interval() on the target",
		Err: fmt.Errorf(what+" more than %d chunks", append(args, mostSlices)...)}
}

// clip is what is staged of an extent.
func (c *filling) clip(extent span) span {
	return span{From: max(extent.From, c.in.From), Until: min(extent.Until, c.in.Until)}
}

// task is the record of a slice that CSV fills, without its kind.
func (c *filling) task(extent span, scan *task.Scan) *task.Task {
	t := sliceTask(c.h, extent, c.clip(extent))
	t.Hypertable, t.Into, t.Chunk, t.Scan = c.h.Name, &c.h.Name, c.h.Name, scan
	return t
}

// sliceTask is the record of rows of one extent of a hypertable of the target, without
// what they are read from.
func sliceTask(h *tsdb.Hypertable, extent, rows span) *task.Task {
	column := h.Dimensions[0].Column
	t := &task.Task{V: task.VersionOther, Range: task.NewRange(column, rows.From, rows.Until),
		Slices: []task.Slice{{Column: column, From: task.FormatBound(extent.From),
			Until: task.FormatBound(extent.Until)}}}
	t.Range.Partial = rows != extent
	return t
}

// csvKind is the Relkind of what is no relation at all.
const csvKind = "text"

// csvPlan is a plan of CSV, still without tasks.
func csvPlan(h *tsdb.Hypertable, origin string) *Plan {
	source := *h
	source.Relkind, source.CompressionEnabled = csvKind, false
	return &Plan{Source: Server{Identity: origin, Origin: origin}, Hypertables: []*tsdb.Hypertable{&source},
		Compressed: map[task.Name]Compressed{}, Into: map[task.Name]*tsdb.Hypertable{h.Name: h}}
}

// into finds the hypertable that CSV goes into.
func into(ctx context.Context, dst *tsdb.DB, text string) (*tsdb.Hypertable, error) {
	name, err := dst.ParseName(ctx, text)
	if err != nil {
		return nil, err
	}
	if name.IsZero() {
		return nil, &BadArgument{Flag: "--into " + text, Err: errors.New("not the name of a table")}
	}
	h, err := dst.HypertableFor(ctx, name, nil)
	switch {
	case err != nil:
		return nil, err
	case h == nil:
		return nil, &pg.Error{Side: dst.Side, Object: "--into " + text, Err: errors.New("is no hypertable there")}
	case !h.Dimensions[0].Func.IsZero():
		return nil, &pg.Error{Side: dst.Side, Object: "--into " + text,
			Err: fmt.Errorf("%q is partitioned by a function (%s): only a hypertable can be its source",
				h.Dimensions[0].Column, h.Dimensions[0].Func)}
	}
	return h, nil
}

// scan is what the records say of the CSV.
func (f Files) scan(h *tsdb.Hypertable) (*task.Scan, error) {
	s := &task.Scan{Dialect: task.Dialect(f.Dialect)}
	switch {
	case f.NoHeader:
		s.Header = task.HeaderNone
	case f.Columns != "":
		s.Header = task.HeaderSkip
	}
	if f.Columns == "" {
		for _, c := range h.Copied() {
			s.Columns = append(s.Columns, task.Column{Name: c.Name, Type: c.Type})
		}
		return s, nil
	}
	key := false
	for _, name := range strings.Split(f.Columns, ",") {
		i := slices.IndexFunc(h.Columns, func(c pg.Column) bool { return c.Name == name && !c.Generated })
		twice := slices.ContainsFunc(s.Columns, func(c task.Column) bool { return c.Name == name })
		switch {
		case name == "-":
			s.Columns = append(s.Columns, task.Column{})
			continue
		case i < 0:
			return nil, &BadArgument{Flag: "--columns", Err: fmt.Errorf("%s has no column %q to copy", h.Label(), name)}
		case twice:
			return nil, &BadArgument{Flag: "--columns", Err: fmt.Errorf("%q is there twice", name)}
		}
		key = key || name == h.Dimensions[0].Column
		s.Columns = append(s.Columns, task.Column{Name: name, Type: h.Columns[i].Type})
	}
	if !key {
		return nil, &BadArgument{Flag: "--columns",
			Err: fmt.Errorf("the time column %q must be among them", h.Dimensions[0].Column)}
	}
	return s, nil
}

// tellable refuses bounds that cannot be told to a command.
func tellable(typ string, in span) error {
	format, err := csv.Dialect{}.Format()
	if err != nil {
		return err
	}
	clock, err := format.Clock(typ)
	if err != nil {
		return err
	}
	for _, bound := range []int64{in.From, in.Until} {
		if back, err := clock.Parse(clock.Append(nil, bound)); err != nil || back.Internal != bound {
			return &BadArgument{Flag: "--from",
				Err: errors.New("--from and --until must be in the years from 1 to 9999")}
		}
	}
	return nil
}
