package stage

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"

	"github.com/jackc/pgx/v5"
)

// plain is a relation of the source that is no hypertable, and what of it is staged.
type plain struct {
	*tsdb.Hypertable
	into   *tsdb.Hypertable // on the target
	grid   *grid
	lo, hi int64 // the range to stage
	leaves []*tsdb.Leaf
}

// plains finds the relations of the source that fill a hypertable of the target: those
// of the same name, and those that --map names.
func plains(ctx context.Context, src *tsdb.DB, o Options) ([]*plain, error) {
	if o.Target == nil {
		return nil, nil
	}
	targets, err := o.Target.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	targets = slices.DeleteFunc(targets, func(t *tsdb.Hypertable) bool { return t.View != nil })
	maps, err := readMaps(ctx, o.Target, targets, o.Maps)
	if err != nil {
		return nil, err
	}
	var all []*plain
	for _, t := range targets {
		name, mapped := maps.to[t.Name]
		if !mapped && maps.from[t.Name] {
			continue
		}
		if !mapped {
			name = t.Name
		}
		h, err := src.PlainRelation(ctx, name, t.Dimensions[0].Column)
		switch {
		case err != nil:
			return nil, err
		case h == nil && mapped:
			return nil, &pg.Error{Side: src.Side, Object: "--map " + name.String(),
				Err: errors.New("there is no such table or view, or it is a hypertable")}
		case h != nil:
			h.ID = -int32(len(all)) - 1 // tells it apart where hypertables are chosen
			all = append(all, &plain{Hypertable: h, into: t})
		}
	}
	return withoutChildren(ctx, src, all, maps)
}

// maps are the --map of a command line.
type maps struct {
	to   map[task.Name]task.Name // the source of a hypertable
	from map[task.Name]bool      // what is a source of one
}

func readMaps(ctx context.Context, dst *tsdb.DB, targets []*tsdb.Hypertable, specs []string) (maps, error) {
	m := maps{map[task.Name]task.Name{}, map[task.Name]bool{}}
	for _, spec := range specs {
		flag := "--map " + spec
		left, right, _ := pg.CutOutside(spec, '=')
		from, err := dst.ParseName(ctx, left)
		if err != nil {
			return m, err
		}
		to, err := dst.ParseName(ctx, right)
		if err != nil {
			return m, err
		}
		_, twice := m.to[to]
		switch {
		case from.IsZero() || to.IsZero():
			return m, &BadArgument{Flag: flag, Err: errors.New("not SOURCE=TARGET, the names of two tables"),
				Hint: "for example --map public.history=metrics.history"}
		case twice:
			return m, &BadArgument{Flag: flag, Err: fmt.Errorf("two sources for %s", to)}
		case m.from[from]:
			return m, &BadArgument{Flag: flag, Err: fmt.Errorf("%s is given twice", from)}
		case !slices.ContainsFunc(targets, func(t *tsdb.Hypertable) bool { return t.Name == to }):
			return m, &pg.Error{Side: dst.Side, Object: flag, Err: fmt.Errorf("%s is no hypertable", to)}
		}
		m.to[to], m.from[from] = from, true
	}
	return m, nil
}

//go:embed below.sql
var belowSQL string

// withoutChildren leaves out what is a partition or a child of another one, unless it
// was asked for.
func withoutChildren(ctx context.Context, src *tsdb.DB, all []*plain, m maps) ([]*plain, error) {
	var oids []uint32
	for _, p := range all {
		oids = append(oids, p.OID)
	}
	rows, err := src.Query(ctx, belowSQL, oids)
	if err != nil {
		return nil, src.Wrap(err, "partitions")
	}
	below, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	return slices.DeleteFunc(all, func(p *plain) bool {
		return slices.Contains(below, p.OID) && !m.from[p.Name]
	}), src.Wrap(err, "partitions")
}

// twoSources refuses to fill one hypertable from two relations.
func twoSources(chosen []*tsdb.Hypertable, all []*plain) error {
	for _, p := range all {
		for _, h := range chosen {
			if h.Name == p.into.Name && h.View == nil && !h.Plain() && slices.Contains(chosen, p.Hypertable) {
				return &BadArgument{Flag: "--map",
					Err: fmt.Errorf("two sources for %s: hypertable %s and %s", p.into.Name, h.Name, p.Name)}
			}
		}
	}
	return nil
}

// addSlices makes the tasks of the chosen relations.
func (p *Plan) addSlices(ctx context.Context, src *tsdb.DB, all []*plain, o Options) error {
	var chosen []*plain
	misfit := &Misfit{}
	for _, r := range all {
		if !slices.Contains(p.Hypertables, r.Hypertable) {
			continue
		}
		chosen = append(chosen, r)
		p.Into[r.Name] = r.into
		misfit.Differences = append(misfit.Differences, r.differences()...)
	}
	if len(misfit.Differences) > 0 {
		return misfit
	}
	if len(chosen) == 0 {
		return nil
	}
	end, err := readIn(ctx, src, o.Snapshot)
	if err != nil {
		return err
	}
	defer end()
	for _, r := range chosen {
		if err := r.prepare(ctx, src, o); err != nil {
			return err
		}
		s := &survey{plain: r, src: src, o: o}
		tasks, err := s.tasks(ctx)
		if err != nil {
			return err
		}
		p.Tasks, p.Notes = append(p.Tasks, tasks...), append(p.Notes, s.notes...)
	}
	return nil
}

// readIn has all that is read of relations read in the exported snapshot, if there is
// one: the tasks read in it as well, and what is counted then is what they find.
func readIn(ctx context.Context, src *tsdb.DB, snapshot string) (end func(), err error) {
	sql := "set enable_seqscan = off;" // an index, whatever it costs
	if snapshot != "" {
		sql += "begin isolation level repeatable read read only; set transaction snapshot " + pg.Literal(snapshot)
	}
	_, err = src.Exec(ctx, sql)
	return func() {
		src.Rollback(ctx)
		_, _ = src.Exec(context.WithoutCancel(ctx), "reset enable_seqscan")
	}, src.Wrap(err, "snapshot %s", snapshot)
}

// differences are those because of which nothing of the relation may even be read.
func (r *plain) differences() []string {
	d := r.into.Dimensions[0]
	switch {
	case !d.Func.IsZero():
		return []string{fmt.Sprintf("%s: %q is partitioned by a function (%s): only a hypertable can be its source",
			r.into.Name, d.Column, d.Func)}
	case len(r.Dimensions) == 0:
		return []string{fmt.Sprintf("%s: has no column %q, by which %s is cut into chunks", r.Name, d.Column,
			r.into.Name)}
	}
	return columnDifferences(r.Hypertable, r.into)
}

// prepare reads what has to be known of the relation before its rows are looked at.
func (r *plain) prepare(ctx context.Context, src *tsdb.DB, o Options) (err error) {
	if r.lo, r.hi, err = bounds(ctx, o.Target, r.into, o); err != nil {
		return err
	}
	if r.grid, err = newGrid(ctx, o.Target, r.into); err != nil {
		return err
	}
	if r.leaves, err = tsdb.Leaves(ctx, src, r.Hypertable); err != nil {
		return err
	}
	var closed []string
	for _, l := range r.leaves {
		if !l.Readable {
			closed = append(closed, pg.Ident(l.Name.Schema, l.Name.Name))
		}
	}
	if len(closed) == 0 {
		return nil
	}
	role := pg.Ident(src.Config().User)
	return &pg.Error{Side: src.Side, Object: r.Name.String(),
		Err:  fmt.Errorf("role %s may not read %d of its tables, each of which is read by itself", role, len(closed)),
		Hint: fmt.Sprintf("run on the source: grant select on %s to %s", strings.Join(closed, ", "), role)}
}
