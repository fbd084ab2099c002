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

	"github.com/jackc/pgx/v5"
)

// Misfit lists the differences because of which a plan cannot be carried out on
// the target.
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
		return nil, &pg.Error{Side: pg.Target, Err: errors.New("source and target are the same database"),
			Hint: "check --source and --target"}
	}
	all, err := dst.Hypertables(ctx)
	if err != nil {
		return nil, err
	}
	f := &fitting{dst: dst, plan: p}
	if dst.Full && dst.Postgres < 140000 {
		f.note("on PostgreSQL 13 TimescaleDB neither deletes rows from compressed chunks nor freezes chunks: " +
			"a copy for which it would have to do so fails, and changes nothing")
	}
	for _, s := range p.Hypertables {
		if err := f.hypertable(ctx, s, p.Counterpart(all, s)); err != nil {
			return nil, err
		}
	}
	diffs, more, err := aggregateDifferences(ctx, dst, all, p)
	if err != nil {
		return nil, err
	}
	f.notes = append(f.notes, more...)
	if f.differences = append(f.differences, diffs...); len(f.differences) > 0 {
		return f.notes, &Misfit{f.differences}
	}
	return f.notes, nil
}

// fitting is what Fit has found.
type fitting struct {
	dst                *tsdb.DB
	plan               *Plan
	differences, notes []string
}

func (f *fitting) note(format string, args ...any) {
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

// hypertable compares one of the plan with its counterpart, nil if there is none.
func (f *fitting) hypertable(ctx context.Context, s, t *tsdb.Hypertable) error {
	if t == nil {
		d, err := missing(ctx, f.dst, s)
		f.differences = append(f.differences, d)
		return err
	}
	f.differences = append(f.differences, columnDifferences(s, t)...)
	if !s.Plain() {
		diffs, notes := dimensionDifferences(s, t)
		f.differences, f.notes = append(f.differences, diffs...), append(f.notes, notes...)
	}
	dependents, err := t.Dependents(ctx, f.dst)
	if err != nil {
		return err
	}
	if s.CompressionEnabled {
		if err := f.compressed(ctx, s, t, dependents.OnInsert); err != nil {
			return err
		}
	}
	if s.Plain() {
		if err := f.sequences(ctx, s, t); err != nil {
			return err
		}
	}
	if s.View == nil {
		n, err := unstaged(ctx, f.dst, t, f.plan.Tasks)
		if err != nil {
			return err
		}
		if n > 0 {
			f.note("%s: where the source has no %s, the target has rows in %d; they stay", t.Label(), kindOf(s), n)
		}
	}
	if len(dependents.OnInsert) > 0 {
		f.note("%s: row triggers will fire for every copied row: %s", t.Label(),
			strings.Join(dependents.OnInsert, ", "))
	}
	return nil
}

// sequences tells of those on the target from which copied columns will be numbered: a
// copy leaves them where they are.
func (f *fitting) sequences(ctx context.Context, s, t *tsdb.Hypertable) error {
	name := pg.Ident(t.Name.Schema, t.Name.Name)
	for _, c := range s.Columns {
		var sequence string
		err := f.dst.QueryRow(ctx, `select coalesce(pg_get_serial_sequence($1, attname), '') from pg_attribute
            where attrelid = $2 and attname = $3`, name, t.OID, c.Name).Scan(&sequence)
		switch {
		case errors.Is(err, pgx.ErrNoRows) || err == nil && sequence == "":
		case err != nil:
			return f.dst.Wrap(err, "sequences of %s", t.Name)
		default:
			f.note("%s: the copy does not move the sequence of %q: before the target numbers rows itself, run there: "+
				"select setval(%s, max(%s)) from %s", t.Label(), c.Name, pg.Literal(sequence), pg.Ident(c.Name), name)
		}
	}
	return nil
}

func kindOf(s *tsdb.Hypertable) string {
	if s.Plain() {
		return "rows"
	}
	return "chunk"
}

// Counterpart is the hypertable of the target that takes the rows of one of the plan.
func (p *Plan) Counterpart(all []*tsdb.Hypertable, s *tsdb.Hypertable) *tsdb.Hypertable {
	if t := p.Into[s.Name]; t != nil && s.Plain() {
		return t
	}
	return tsdb.Counterpart(all, s.Name, s.View)
}

// compressed tells how compressed chunks of a hypertable will travel, and which
// will not be compressed on the target.
func (f *fitting) compressed(ctx context.Context, s, t *tsdb.Hypertable, triggers []string) error {
	settings, err := tsdb.HypertableSettings(ctx, f.dst, t)
	if err != nil {
		return err
	}
	var sorted []string
	if settings != nil {
		sorted = settings.OrderBy
	}
	why := rowsOnly(f.plan, f.dst, s, t, sorted)
	if why == "" && len(triggers) > 0 {
		why = "row triggers of the target have to fire"
	}
	if why != "" {
		for _, task := range f.plan.Tasks {
			if task.Hypertable == s.Name {
				task.RowsOnly = why
			}
		}
		f.note("%s: compressed chunks are copied row by row: %s", s.Label(), why)
	}
	return f.plan.loose(ctx, f.dst, s, t, why)
}

// aggregateDifferences finds aggregates whose buckets are not those of the same
// view on the source: with copied rows, the view would be wrong. A difference in
// the query is only a note: another version of PostgreSQL may spell the same query
// differently.
func aggregateDifferences(ctx context.Context, dst *tsdb.DB, all []*tsdb.Hypertable,
	p *Plan) (diffs, notes []string, err error) {
	aggregates, err := dst.Aggregates(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range p.Aggregates {
		for _, t := range aggregates {
			if *t.View != s.View || s.Buckets == nil {
				continue
			}
			buckets, err := t.Buckets(ctx, dst, t.Samples()...)
			if err != nil {
				return nil, nil, err
			}
			if !slices.Equal(buckets, s.Buckets) {
				diffs = append(diffs, fmt.Sprintf("%s: "+
					"its buckets are others than on the source (width, origin, offset or time zone)", s.View))
			} else if s.Definition != t.Definition && p.Source.Postgres/10000 == dst.Postgres/10000 {
				notes = append(notes, fmt.Sprintf("%s: its query is not the source's; "+
					"what is copied was computed by that", s.View))
			}
		}
	}
	return diffs, notes, nil
}

// rowsOnly returns why compressed chunks of s cannot be copied as they are; "" if
// no reason is known before the dump. sorted are the hypertable's orderby columns;
// its chunks may have others.
func rowsOnly(p *Plan, dst *tsdb.DB, s, t *tsdb.Hypertable, sorted []string) string {
	switch {
	case !dst.Full:
		return "the target is the Apache edition"
	case !tsdb.AtLeast(dst.TimescaleDB, p.Source.TimescaleDB):
		return fmt.Sprintf("the target's TimescaleDB %s is older than the source's %s", dst.TimescaleDB,
			p.Source.TimescaleDB)
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
	if err := dst.QueryRow(ctx, "select to_regclass($1) is not null", pg.Ident(n.Schema, n.Name)).
		Scan(&there); err != nil {
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
		case c.Type != o.Type && !(s.Plain() && pg.Widens(c.Type, o.Type)):
			say("%s: column %q has type %s on the source, %s on the target", label, c.Name, c.Type, o.Type)
		}
	}
	for _, c := range t.Columns { // in order
		_, extra := theirs[c.Name]
		switch {
		case extra && c.Identity:
			say("%s: column %q exists only on the target and is an identity, which its chunks have not: "+
				"make it one after the copy", label, c.Name)
		case extra && c.NotNull && !c.Default && !c.Generated:
			say("%s: column %q exists only on the target, is not null and has no default", label, c.Name)
		}
	}
	return diffs
}

func dimensionDifferences(s, t *tsdb.Hypertable) (diffs, notes []string) {
	label := s.Label()
	a, b := s.Dimensions[0], t.Dimensions[0]
	if a.Column != b.Column || a.RangeType != b.RangeType {
		diffs = append(diffs, fmt.Sprintf("%s: the primary dimension is %q (%s) on the source, %q (%s) on the target",
			label, a.Column, a.RangeType, b.Column, b.RangeType))
		return diffs, nil
	}
	if (a.Func.IsZero()) != (b.Func.IsZero()) {
		diffs = append(diffs, fmt.Sprintf("%s: the primary dimension has a partitioning function on one side only",
			label))
	}
	for _, d := range s.Dimensions[1:] {
		o := t.Dimension(d.Column)
		var theirs task.Name
		if o != nil {
			theirs = o.HashFunc()
		}
		if d.Hash() && d.HashFunc() != theirs {
			diffs = append(diffs, fmt.Sprintf("%s: dimension %q is hashed by another function on the target",
				label, d.Column))
		}
		if o == nil || o.Partitions != d.Partitions {
			notes = append(notes, fmt.Sprintf("%s: dimension %q differs: "+
				"chunks are copied row by row through the hypertable", label, d.Column))
		}
	}
	for _, d := range t.Dimensions[1:] {
		if s.Dimension(d.Column) == nil {
			notes = append(notes, fmt.Sprintf("%s: dimension %q exists only on the target: "+
				"chunks are copied row by row through the hypertable", label, d.Column))
		}
	}
	return diffs, notes
}
