package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"
	"bf/lib/tsdb"
)

// Misfit is why a plan cannot be carried out on the target, every difference
// of it.
type Misfit struct{ Differences []string }

func (m *Misfit) Error() string {
	if len(m.Differences) == 1 {
		return "target: does not fit the source: " + m.Differences[0]
	}
	return fmt.Sprintf("target: does not fit the source, %d differences", len(m.Differences))
}

// Fit compares the plan's hypertables with the target's. What would make a copy
// fail or lose something is a Misfit that lists every difference; what is worth
// knowing comes back as notes.
func Fit(ctx context.Context, dst *tsdb.DB, p *Plan) (notes []string, err error) {
	if p.Source.Identity == dst.Identity {
		return nil, &pg.Error{Side: pg.Target, Err: errors.New("source and target are the same database"), Hint: "check --source and --target"}
	}
	all, err := dst.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	m := &Misfit{}
	for _, s := range p.Hypertables {
		t := tsdb.Counterpart(all, s.Name, s.View)
		if t == nil {
			d, err := missing(ctx, dst, s)
			if err != nil {
				return nil, err
			}
			m.Differences = append(m.Differences, d)
			continue
		}
		m.Differences = append(m.Differences, columnDifferences(s, t)...)
		diffs, ns := dimensionDifferences(s, t)
		m.Differences = append(m.Differences, diffs...)
		notes = append(notes, ns...)
		trig, err := dst.RowTriggers(ctx, t, tsdb.OnInsert)
		if err != nil {
			return nil, err
		}
		if s.CompressionEnabled {
			settings, err := dst.HypertableSettings(ctx, t)
			if err != nil {
				return nil, err
			}
			var sorted []string
			if settings != nil {
				sorted = settings.OrderBy
			}
			why := rowsOnly(p, dst, s, t, sorted)
			if why == "" && len(trig) > 0 {
				why = "row triggers of the target have to fire"
			}
			if why != "" {
				for _, task := range p.Tasks {
					if task.Hypertable == s.Name {
						task.RowsOnly = why
					}
				}
				notes = append(notes, fmt.Sprintf("%s: compressed chunks are copied row by row: %s", s.Label(), why))
			}
			if err := p.loose(ctx, dst, s, t, why); err != nil {
				return nil, err
			}
		}
		if s.View == nil {
			n, err := beside(ctx, dst, t, p.Tasks)
			if err != nil {
				return nil, err
			}
			if n > 0 {
				notes = append(notes, fmt.Sprintf("%s: where the source has no chunk, the target has rows in %d; they stay", t.Label(), n))
			}
		}
		if len(trig) > 0 {
			notes = append(notes, fmt.Sprintf("%s: row triggers will fire for every copied row: %s", t.Label(), strings.Join(trig, ", ")))
		}
	}
	diffs, ns, err := aggregateDifferences(ctx, dst, all, p)
	if err != nil {
		return nil, err
	}
	notes = append(notes, ns...)
	if m.Differences = append(m.Differences, diffs...); len(m.Differences) > 0 {
		return notes, m
	}
	return notes, nil
}

// aggregateDifferences finds aggregates that sum up other spans than those of the
// same name on the source: with what is copied, the view would be wrong. Whether
// they sum up the same is for people to see: another version of PostgreSQL may
// only spell it otherwise.
func aggregateDifferences(ctx context.Context, dst *tsdb.DB, all []*tsdb.Hypertable, p *Plan) (diffs, notes []string, err error) {
	aggregates, err := dst.Aggregates(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range p.Aggregates {
		for _, t := range aggregates {
			if *t.View != s.View || s.Buckets == nil {
				continue
			}
			buckets, err := dst.Buckets(ctx, t, t.Samples()...)
			if err != nil {
				return nil, nil, err
			}
			if !slices.Equal(buckets, s.Buckets) {
				diffs = append(diffs, fmt.Sprintf("%s: its buckets are others than on the source (width, origin, offset or time zone)", s.View))
			} else if s.Definition != t.Definition && p.Source.Postgres/10000 == dst.Postgres/10000 {
				notes = append(notes, fmt.Sprintf("%s: its query is not the source's; what is copied was computed by that", s.View))
			}
		}
	}
	return diffs, notes, nil
}

// rowsOnly says why compressed chunks of s cannot become compressed chunks of t
// as they are; "" when nothing speaks against it that is known before a dump.
// sorted are columns that order rows in the batches; chunks may have others.
func rowsOnly(p *Plan, dst *tsdb.DB, s, t *tsdb.Hypertable, sorted []string) string {
	switch {
	case !dst.Full:
		return "the target is the Apache edition"
	case !tsdb.AtLeast(dst.TimescaleDB, p.Source.TimescaleDB):
		return fmt.Sprintf("the target's TimescaleDB %s is older than the source's %s", dst.TimescaleDB, p.Source.TimescaleDB)
	case !t.CompressionEnabled:
		return "compression is not enabled on the target"
	case len(s.Dimensions) != len(t.Dimensions):
		return "the dimensions differ"
	}
	for _, d := range s.Dimensions[1:] {
		if o := t.Dimension(d.Column); o == nil || o.Partitions != d.Partitions {
			return fmt.Sprintf("dimension %q differs", d.Column)
		}
	}
	theirs := map[string]pg.Column{}
	for _, c := range t.Columns {
		theirs[c.Name] = c
	}
	for _, c := range s.Columns {
		o, ok := theirs[c.Name]
		delete(theirs, c.Name)
		switch {
		case !ok:
			return fmt.Sprintf("column %q exists only on the source", c.Name)
		case c.Generated != o.Generated:
			return fmt.Sprintf("column %q is generated on one side only", c.Name)
		case c.Collation != o.Collation:
			return fmt.Sprintf("column %q has another collation", c.Name)
		case !c.Order.Same(o.Order, slices.Contains(sorted, c.Name)):
			return fmt.Sprintf("column %q is sorted by %s, on the target by %s", c.Name, c.Spelled(), o.Spelled())
		}
	}
	for name := range theirs {
		return fmt.Sprintf("column %q exists only on the target", name)
	}
	if demand := t.Stricter(s.Enforced); demand != "" {
		return "only the target demands of its rows: " + demand
	}
	return ""
}

func missing(ctx context.Context, dst *tsdb.DB, s *tsdb.Hypertable) (string, error) {
	var there bool
	n := s.Label()
	if err := dst.QueryRow(ctx, "select to_regclass($1) is not null", pg.Ident(n.Schema, n.Name)).Scan(&there); err != nil {
		return "", dst.Wrap(err, "look for %s", n)
	}
	kind := "hypertable"
	if s.View != nil {
		kind = "continuous aggregate"
	}
	if there {
		return fmt.Sprintf("%s is no %s there", n, kind), nil
	}
	return fmt.Sprintf("%s %s does not exist there", kind, n), nil
}

func columnDifferences(s, t *tsdb.Hypertable) (diffs []string) {
	say := func(format string, args ...any) { diffs = append(diffs, fmt.Sprintf(format, args...)) }
	label := s.Label()
	theirs := map[string]pg.Column{}
	for _, c := range t.Columns {
		theirs[c.Name] = c
	}
	for _, c := range s.Columns {
		o, ok := theirs[c.Name]
		delete(theirs, c.Name)
		switch {
		case !ok && c.Generated:
		case !ok:
			say("%s: column %q does not exist there", label, c.Name)
		case c.Generated && !o.Generated:
			say("%s: column %q is generated on the source, ordinary on the target", label, c.Name)
		case !c.Generated && o.Generated:
			say("%s: column %q is ordinary on the source, generated on the target", label, c.Name)
		case c.Type != o.Type:
			say("%s: column %q has type %s on the source, %s on the target", label, c.Name, c.Type, o.Type)
		}
	}
	for _, c := range t.Columns { // in order
		if _, extra := theirs[c.Name]; extra && c.NotNull && !c.Default && !c.Generated {
			say("%s: column %q exists only on the target, is not null and has no default", label, c.Name)
		}
	}
	return diffs
}

func dimensionDifferences(s, t *tsdb.Hypertable) (diffs, notes []string) {
	label := s.Label()
	a, b := s.Dimensions[0], t.Dimensions[0]
	if a.Column != b.Column || a.RangeType != b.RangeType {
		diffs = append(diffs, fmt.Sprintf("%s: the primary dimension is %q (%s) on the source, %q (%s) on the target", label, a.Column, a.RangeType, b.Column, b.RangeType))
		return diffs, nil
	}
	if (a.Func.IsZero()) != (b.Func.IsZero()) {
		diffs = append(diffs, fmt.Sprintf("%s: the primary dimension has a partitioning function on one side only", label))
	}
	for _, d := range s.Dimensions[1:] {
		o := t.Dimension(d.Column)
		var theirs task.Name
		if o != nil {
			theirs = o.HashFunc()
		}
		if d.Hash() && d.HashFunc() != theirs {
			diffs = append(diffs, fmt.Sprintf("%s: dimension %q is hashed by another function on the target", label, d.Column))
		}
		if o == nil || o.Partitions != d.Partitions {
			notes = append(notes, fmt.Sprintf("%s: dimension %q differs: chunks are copied row by row through the hypertable", label, d.Column))
		}
	}
	for _, d := range t.Dimensions[1:] {
		if s.Dimension(d.Column) == nil {
			notes = append(notes, fmt.Sprintf("%s: dimension %q exists only on the target: chunks are copied row by row through the hypertable", label, d.Column))
		}
	}
	return diffs, notes
}
